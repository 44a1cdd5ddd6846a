"""The example scripts call what they say; with stand-ins for srun and scontrol."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "configs" / "slurm"


def ran(tmp_path: Path, script: str, *words: str, status: int = 0, **env: str) -> tuple[int, list[str]]:
    """The exit status of a script, and what it called."""
    for name, ends in (("srun", status), ("scontrol", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $@" >>{tmp_path}/calls\nexit {ends}\n')
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **env}
    ended = subprocess.run(["bash", SCRIPTS / script, *words], env=environment, check=False)
    return ended.returncode, (tmp_path / "calls").read_text().splitlines()


def test_training_goes_on_under_its_name(tmp_path):
    status, calls = ran(
        tmp_path, "train.sbatch", "mine", "configs/imagenet.yaml", "data.root=/a b", status=75
    )
    assert status == 75
    said = "run.name=mine run.resume=true trainer.enable_progress_bar=false"
    assert calls == [f"srun --gpu-bind=none python train.py configs/imagenet.yaml data.root=/a b {said}"]


def test_each_of_an_array_has_a_run_of_its_own(tmp_path):
    _, calls = ran(tmp_path, "train.sbatch", "mine", SLURM_ARRAY_TASK_ID="3")
    said = "run.name=mine-3 run.resume=true trainer.enable_progress_bar=false"
    assert calls == [f"srun --gpu-bind=none python train.py run.seed=3 {said}"]


@pytest.mark.parametrize(("status", "requeued"), [(0, []), (75, ["scontrol requeue 7"]), (1, [])])
def test_a_follower_is_requeued_when_its_time_is_up(tmp_path, status, requeued):
    ended, calls = ran(tmp_path, "follow.sbatch", "runs/mine", "features.steps=64", status=status)
    assert ended == status
    assert calls == [
        "srun --gpu-bind=none python analyze.py runs/mine follow=true features.steps=64",
        *requeued,
    ]
