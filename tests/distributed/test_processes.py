"""`train.py` in two processes, however they were started: one run, and the pictures of one process."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import forked
import pytest
import torch

from vitrine.cli import analyze
from vitrine.core.settings import SettingError
from vitrine.distributed.processes import Processes, launched
from vitrine.runs.store import Store

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.train_size=64",
    "data.val_size=33",
    "data.image_size=32",
    "data.batch_size=8",
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_steps=2",
    "logging.wandb.mode=disabled",
    "objective.name=fast",
    "validation.robust_images=9",
    "analysis.probes=5",
    "analysis.units=5",
    "analysis.features.steps=4",
    "analysis.features.classes=2",
    "analysis.localization.images=9",
    "analysis.truth.images=9",
    "analysis.truth.maps=[gradient,occlusion]",
    "analysis.saliency.copies=4",
    "analysis.saliency.steps=4",
    "analysis.randomization.enabled=true",
    "analysis.randomization.maps=[gradient,guided_backprop]",
    "analysis.dream.enabled=true",
    "analysis.dream.steps=2",
    "analysis.robustness.enabled=true",
    "analysis.robustness.images=7",
    "analysis.robustness.steps=3",
    "analysis.robustness.targets=2",
    "analysis.robustness.queries=10",
    "analysis.robustness.health_queries=10",
    "analysis.robustness.curve=[1]",
    "analysis.physical.enabled=true",
    "analysis.physical.probes=5",
    "analysis.physical.shown=3",
    "analysis.physical.steps=2",
    "analysis.physical.draws=2",
    "analysis.physical.draws_each=2",
]
SECONDS = 240


def torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def srun(rank: int, count: int, port: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "1",
        "SLURM_NTASKS": str(count),
        "SLURM_NTASKS_PER_NODE": str(count),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "MASTER_PORT": str(port),
    }


def programs(
    launcher, words: list[str], count: int = 2, places=(ROOT, ROOT)
) -> list[subprocess.CompletedProcess]:
    """`train.py` as a launcher starts it; all are killed where one does not end in time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_"))} | {
        "OMP_NUM_THREADS": "1"
    }
    settings = [launcher(rank, count, port) for rank in range(count)] if launcher else [{}]
    running = [
        forked.Program([ROOT / "train.py", *words], place, own | more)
        for more, place in zip(settings, places)
    ]
    end, ended = time.monotonic() + SECONDS, []
    try:
        for process in running:
            said, wrong = process.communicate(timeout=max(1.0, end - time.monotonic()))
            ended.append(subprocess.CompletedProcess(process.args, process.returncode, said, wrong))
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return ended


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two processes that torchrun has started, without a name."""
    root = tmp_path_factory.mktemp("runs")
    ended = programs(torchrun, [*SMALL, f"run.root={root}"])
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    assert "the page: " in ended[0].stdout and ended[1].stdout == ""
    (folder,) = root.iterdir()
    return folder


@pytest.mark.slow
def test_one_run_is_made_and_all_analyses_go_well(run):
    outcomes = Store(run).results(2)
    assert {"examples", "features", "localization", "robustness", "physical", "dream"} <= set(outcomes)
    assert [name for name, outcome in outcomes.items() if outcome.error] == []
    assert (run / "index.html").is_file() and (run / "config.yaml").is_file()


def split_numbers(entry: Any) -> tuple[Any, list[float]]:
    """What a figure's record holds without its numbers that are no integers, and these in order."""
    numbers: list[float] = []

    def without(part: Any) -> Any:
        if isinstance(part, float):
            numbers.append(part)
            return "a number"
        if isinstance(part, dict):
            return {key: without(value) for key, value in part.items()}
        return [without(value) for value in part] if isinstance(part, list) else part

    return without(entry), numbers


@pytest.mark.slow
def test_the_pictures_and_curves_are_those_of_one_process(run, tmp_path):
    alone = tmp_path / "alone"
    (alone / "checkpoints").mkdir(parents=True)
    for file in ("config.yaml", "checkpoints/step=00000002.ckpt"):
        (alone / file).write_bytes((run / file).read_bytes())
    analyze.main([str(alone)])
    mine, theirs = Store(run), Store(alone)
    assert set(mine.results(2)) == set(theirs.results(2))
    equal = []
    for name in mine.results(2):
        for a, b in zip(mine.entries(2, name), theirs.entries(2, name), strict=True):
            (words, numbers), (own_words, own_numbers) = split_numbers(a), split_numbers(b)
            assert words == own_words
            # sums over ranks round otherwise
            assert numbers == pytest.approx(own_numbers, rel=1e-5, abs=1e-5, nan_ok=True)
        for a, b in zip(mine.figures(2, name), theirs.figures(2, name), strict=True):
            # a pixel that rounds the other way shows in the whole block of a WebP file
            assert (a.image.float() - b.image.float()).abs().mean() < 0.2, (name, a.key)
            equal.append(torch.equal(a.image, b.image))
        for a, b in zip(mine.scalars(2, name), theirs.scalars(2, name), strict=True):
            assert (a.key, a.layer) == (b.key, b.layer)
            assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-5, nan_ok=True)
    assert sum(equal) >= 0.9 * len(equal)


@pytest.mark.slow
def test_lightning_s_own_processes_give_the_same_weights_and_curves(run, tmp_path):
    (ended,) = programs(
        None, [*SMALL[:12], "analysis.mode=follow", "trainer.devices=2", f"run.root={tmp_path}"]
    )
    assert ended.returncode == 0, ended.stderr
    (folder,) = tmp_path.iterdir()
    states = [
        torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (run, folder)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert (run / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()


@pytest.mark.slow
def test_slurm_s_tasks_find_each_other_and_a_run_goes_on(tmp_path):
    words = [*SMALL[:12], "analysis.mode=follow", f"run.root={tmp_path}", "run.name=a"]
    assert [one.returncode for one in programs(srun, words)] == [0, 0]
    again = programs(srun, [*words, "run.resume=true", "trainer.max_steps=4"])
    assert [one.returncode for one in again] == [0, 0], again[0].stderr + again[1].stderr
    assert "going on from" in again[0].stdout
    assert (tmp_path / "a" / "checkpoints" / "step=00000004.ckpt").is_file()


@pytest.mark.slow
def test_what_the_first_one_refuses_ends_all_with_status_2_and_one_message(tmp_path):
    (tmp_path / "a").mkdir()
    ended = programs(srun, [*SMALL, f"run.root={tmp_path}", "run.name=a"])
    assert [one.returncode for one in ended] == [2, 2]
    assert "a is there already; run.resume=true goes on with it" in ended[0].stderr
    assert "error:" not in ended[1].stderr
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.slow
def test_what_only_another_one_lacks_ends_all_before_a_folder_is_made(tmp_path):
    from PIL import Image

    places = [tmp_path / "here", tmp_path / "there"]
    for label in ("a", "b"):
        (places[0] / "images" / label).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(places[0] / "images" / label / f"{i}.png")
    places[1].mkdir()
    words = ["data.name=folder", "data.root=images", *SMALL[2:12], f"run.root={tmp_path}/runs"]
    ended = programs(torchrun, words, places=places)
    assert [one.returncode for one in ended] == [2, 2], ended[0].stderr + ended[1].stderr
    assert f"data.root: {places[1] / 'images'} is missing" in ended[1].stderr and ended[0].stderr == ""
    assert not (tmp_path / "runs").exists()


def test_as_many_devices_and_nodes_as_there_are_processes_unless_others_are_asked_for():
    four = Processes(rank=1, world_size=4, local_rank=1, local_world_size=2)
    assert four.with_launched_devices({"devices": 1, "max_steps": 3}) == {
        "devices": 2,
        "num_nodes": 2,
        "max_steps": 3,
    }
    assert Processes().with_launched_devices({"devices": 3}) == {"devices": 3}
    with pytest.raises(
        SettingError, match=r"trainer\.devices: is 3, but the launcher has started 2 processes"
    ):
        four.with_launched_devices({"devices": 3})


def test_a_process_started_by_hand_is_told_how_to_start_it(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "VITRINE_BROADCAST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with (
        launched() as processes,
        pytest.raises(SettingError, match=r"expected torchrun, srun or trainer\.devices=N"),
    ):
        processes.receive()
