"""Preempted and interrupted runs by the front door: exit status, queue, mark, and that they go on exactly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import torch

from vitrine import analyses
from vitrine.cli import train
from vitrine.distributed import requeue
from vitrine.distributed.interruption import Interrupted
from vitrine.runs.checkpoint_files import last_good_checkpoint
from vitrine.runs.store import Store

ROOT = Path(__file__).resolve().parents[2]
RUN = [
    "data.train_size=64",
    "data.val_size=32",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_epochs=15",  # of 4 steps
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=15",
    "analysis.probes=2",
    "analysis.units=2",
    "run.name=signs",
    "run.resume=true",
    *[f"analysis.{name}.enabled=false" for name in analyses.ANALYSES if name != "weights"],
]
SLURM = {  # as `srun` has it, so that Lightning would answer signals itself
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_NNODES": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


COMPLETING = "COMPLETING Reason=None Restarts=0 EndTime=2026-05-01T10:00:00"


def scontrol(folder: Path, requeueing: str = "exit 0", state: str = "RUNNING") -> dict[str, str]:
    """A stand-in for `scontrol` that writes down how it is called; the environment that has it on PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "scontrol"
    program.write_text(f"""#!/bin/sh
echo "$@" >>{folder}/calls
if [ "$1" = show ]; then echo "JobId=4711 JobName=train JobState={state}"; exit 0; fi
{requeueing}
""")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def start(root: Path, wandb: str = "disabled", *words: str, **environment: str) -> forked.Program:
    words = ["train.py", *RUN, f"run.root={root}", f"logging.wandb.mode={wandb}", *words]
    return forked.Program(words, ROOT, {**os.environ, **environment}, subprocess.STDOUT)


def ended(process: forked.Program | subprocess.Popen) -> tuple[int, str]:
    said, _ = process.communicate(timeout=200)
    return process.returncode, said


def after_first_checkpoint(root: Path) -> None:
    deadline = time.monotonic() + 150
    while not list((root / "signs" / "checkpoints").glob("step=*.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.01)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "step=00000060.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    train.main([*RUN, f"run.root={root}", "logging.wandb.mode=disabled"])
    assert json.loads((root / "signs" / "run.json").read_text())["state"] == "finished"
    return root / "signs"


@pytest.mark.slow
def test_a_preempted_job_is_requeued_and_goes_on_exactly_with_all_its_pictures(whole, tmp_path):
    run, path = tmp_path / "signs", scontrol(tmp_path / "bin")
    environment = {**SLURM, **path}
    process = start(tmp_path, "offline", **environment)
    after_first_checkpoint(tmp_path)
    process.send_signal(signal.SIGUSR1)
    status, said = ended(process)
    assert status == 75, said
    assert "job 4711 is requeued" in said and "Traceback" not in said
    assert calls(tmp_path / "bin") == ["show job --oneliner 4711", "requeue 4711"]
    assert json.loads((run / "run.json").read_text())["state"] == "preempted"
    assert (run / "checkpoints" / "last.ckpt").exists() and last_good_checkpoint(run)
    name = (run / "wandb-id").read_text()

    status, said = ended(start(tmp_path, "offline", **environment))  # as SLURM would
    assert status == 0, said
    assert "going on from" in said
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert (run / "wandb-id").read_text() == name
    assert set(Store(whole).steps()) <= set(Store(run).steps())
    found = weights(run)
    assert all(torch.equal(tensor, found[key]) for key, tensor in weights(whole).items())
    assert not list((run / "checkpoints").glob("hpc*"))  # Lightning has saved none of its own
    assert len(calls(tmp_path / "bin")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("signalled", "said"), [([0, 1], "after this step"), ([1], "as another rank")])
def test_two_ranks_say_once_that_they_stop(tmp_path, signalled, said):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    names = ("RANK", "LOCAL_RANK"), ("WORLD_SIZE", "LOCAL_WORLD_SIZE")
    ranks = [
        start(
            tmp_path,
            "disabled",
            "trainer.max_epochs=1000",
            "checkpoint.every_steps=1000",
            **common,
            **dict.fromkeys(names[0], str(rank)),
            **dict.fromkeys(names[1], "2"),
        )
        for rank in range(2)
    ]
    deadline = time.monotonic() + 150
    while not (tmp_path / "signs" / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.1)  # until they train
    for rank in signalled:
        ranks[rank].send_signal(signal.SIGTERM)
    outputs = [ended(rank) for rank in ranks]
    assert [status for status, _ in outputs] == [75, 0], outputs
    lines = [line for _, output in outputs for line in output.splitlines() if "stopping" in line]
    assert len(lines) == 1 and said in lines[0], lines


@pytest.mark.slow
def test_ctrl_c_once_ends_with_130_and_the_command_that_goes_on(whole, tmp_path):
    process = start(tmp_path)
    after_first_checkpoint(tmp_path)
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert status == 130, said
    command = f"python train.py run.root={tmp_path} run.name=signs run.resume=true"
    assert f"to go on: {command}" in said and "Traceback" not in said
    assert json.loads((tmp_path / "signs" / "run.json").read_text())["state"] == "interrupted"
    train.main(command.split()[2:])
    found = weights(tmp_path / "signs")
    assert all(torch.equal(tensor, found[key]) for key, tensor in weights(whole).items())


@pytest.mark.slow
def test_a_signal_before_there_is_anything_to_save_is_answered_too(tmp_path):
    process = subprocess.Popen(  # of its own, as its imports are what the signal falls into
        [sys.executable, "train.py", *RUN, f"run.root={tmp_path}", "logging.wandb.mode=disabled"],
        cwd=ROOT,
        env={**os.environ, **SLURM, **scontrol(tmp_path / "bin")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(2.5)
    process.send_signal(signal.SIGTERM)
    status, said = ended(process)
    assert status == 75, said
    assert "job 4711 is requeued" in said and "Traceback" not in said
    assert calls(tmp_path / "bin")[-1] == "requeue 4711"


def told(
    monkeypatch, tmp_path, number=signal.SIGTERM, resume=True, wanted="auto", env=SLURM, **stand_in
) -> str:
    for name, value in {**env, **scontrol(tmp_path / "bin", **stand_in)}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").touch()
    run = SimpleNamespace(name="mine", root=str(tmp_path), resume=resume, requeue=wanted)
    return requeue.requeue(Interrupted(number), run)


@pytest.mark.parametrize(
    ("how", "words", "called"),
    [
        ({}, "job 4711 is requeued", True),
        (
            {"requeueing": "echo no such job >&2; exit 1"},
            "could not be requeued: no such job\nto go on:",
            True,
        ),
        ({"requeueing": "echo Job is pending execution >&2; exit 1"}, "job 4711 is requeued", True),
        ({"requeueing": "exit 3"}, "could not be requeued: scontrol ended with status 3", True),
        ({"requeueing": "exec sleep 60"}, "could not be requeued: scontrol did not answer within", True),
        ({"state": "CANCELLED"}, "job 4711 was cancelled and is not requeued\nto go on:", False),
        ({"state": "PREEMPTED"}, "job 4711 is requeued", True),
        # what SLURM 22.05 says while the processes of a job end: tests/slurm
        ({"state": COMPLETING}, "job 4711 was cancelled and is not requeued\nto go on:", False),
        ({"state": f"{COMPLETING} PreemptTime=2026-05-01T10:00:00"}, "job 4711 is requeued", True),
        ({"state": COMPLETING.replace("=None", "=TimeLimit")}, "job 4711 is requeued", True),
        ({"state": COMPLETING.replace("=0", "=1")}, "job 4711 is requeued", False),
        (
            {"state": COMPLETING.replace("=0", "=1"), "env": {**SLURM, "SLURM_RESTART_COUNT": "1"}},
            "job 4711 was cancelled",
            False,
        ),
        ({"state": "RUNNING EndTime=Unknown PreemptTime=2026-05-01T10:00:00"}, "job 4711 is requeued", True),
        ({"number": signal.SIGINT}, "to go on: python train.py", False),
        ({"resume": False}, "is not requeued: its command lacks run.name=NAME run.resume=true", False),
        ({"wanted": "never"}, "to go on: python train.py", False),
        ({"env": {}}, "to go on: python train.py", False),
        (
            {"env": {**SLURM, "SLURM_ARRAY_JOB_ID": "900", "SLURM_ARRAY_TASK_ID": "3"}},
            "job 900_3 is requeued",
            True,
        ),
    ],
)
def test_a_job_is_requeued_where_that_is_wanted_and_possible(monkeypatch, tmp_path, how, words, called):
    monkeypatch.setattr(requeue, "SCONTROL_SECONDS", 1.0)
    for name in [*SLURM, "SLURM_ARRAY_JOB_ID"]:
        monkeypatch.delenv(name, raising=False)
    began = time.monotonic()
    said = told(monkeypatch, tmp_path, **how)
    assert words in said
    assert time.monotonic() - began < 10
    assert any(call.startswith("requeue") for call in calls(tmp_path / "bin")) == called


def test_without_scontrol_the_command_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    run = SimpleNamespace(name="a b", root="runs", resume=True, requeue="auto")
    said = requeue.requeue(Interrupted(signal.SIGTERM), run)
    assert said == "job 1 could not be requeued: scontrol: No such file or directory\nnothing had begun"
    assert requeue.resume_command("a b", "runs") == "python train.py 'run.name=a b' run.resume=true"


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({}, 75),
        ({"RANK": "1", "LOCAL_RANK": "0"}, 0),  # torchrun
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, 75),  # which numbers nodes as it likes
        ({"SLURM_PROCID": "3"}, 0),  # srun
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, 0),  # a batch script, and Lightning in it
    ],
)
def test_of_several_ranks_the_first_speaks(monkeypatch, capsys, environment, status):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run, closed = SimpleNamespace(name="a", root="runs", resume=True, requeue="auto"), []
    with pytest.raises(SystemExit) as caught:
        requeue.exit_interrupted(Interrupted(signal.SIGTERM), run, lambda: closed.append(1))
    assert caught.value.code == status and closed == [1]
    assert bool(capsys.readouterr().out) == (status == 75)


@pytest.mark.slow
def test_a_log_that_hangs_does_not_keep_the_process(tmp_path):
    program = """
import signal, time
from vitrine.distributed import requeue
from types import SimpleNamespace
from vitrine.distributed.interruption import Interrupted
requeue.CLOSING_SECONDS = 0.2
run = SimpleNamespace(name="a", root="runs", resume=True, requeue="never")
requeue.exit_interrupted(Interrupted(signal.SIGTERM), run, lambda: time.sleep(60))
"""
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 75, ran.stderr
    assert time.monotonic() - began < 30
    assert "nothing had begun" in ran.stdout
