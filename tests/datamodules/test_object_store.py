"""Training from an object store: ranks that are killed, wrong keys, a store that vanishes and comes back."""

import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import forked
import pytest
import torch
from PIL import Image

from vitrine.cli.convert import Settings, convert

pytest.importorskip("litdata", reason="litdata is not installed")
pytest.importorskip("moto", reason="moto is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600
WORDS = [
    "data.name=streaming",
    "data.image_size=16",
    "data.batch_size=8",
    "data.workers=1",
    "data.window=2",
    "model.options={widths: [4, 8]}",
    "trainer.max_steps=16",
    "trainer.max_epochs=10",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_steps=4",
    "analysis.mode=off",
    "logging.wandb.mode=disabled",
    "run.name=run",
    "run.resume=true",
]


@pytest.fixture(scope="module")
def chunks(tmp_path_factory) -> Path:
    """A data set in chunks of a few pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 160), ("val", 16)):
        for i in range(count):
            file = root / "folder" / split / f"class{i % 2}" / f"{i:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(i)) * 128 + 127 * (i % 2)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(file)
    with pytest.MonkeyPatch.context() as patch:  # chunks are of MiB, and these pictures of bytes
        patch.setattr("vitrine.cli.convert._MIB", 1024)
        convert(root / "folder", root / "chunks", Settings(chunk_mib=6))
    assert len(list((root / "chunks" / "train").glob("*.bin"))) > 20
    return root / "chunks"


@pytest.fixture
def store(chunks):
    from object_store import ObjectStore

    store = ObjectStore(chunks)
    yield store
    store.vanish()


def start(place: Path, root: str, ranks: int = 1, **environment: str) -> list[forked.Program]:
    """train.py from a store or folder, as torchrun would start its ranks; steps wait where a file says so."""
    place.mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests" / "slurm" / "program.py", place / "train.py")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"PYTHONPATH": str(ROOT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = ["train.py", *WORDS, f"data.root={root}", f"data.download_dir={place / 'cache'}"]
    started = []
    for rank in range(ranks):
        own = {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        own |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        own = own if ranks > 1 else {}
        started.append(forked.Program(words, place, {**os.environ, **common, **own, **environment}))
    return started


def ended(processes: list[forked.Program]) -> list[tuple[int, str, str]]:
    try:
        answers = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return [(process.returncode, *answer) for process, answer in zip(processes, answers)]


def until_held(processes: list[forked.Program], file: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not file.exists():
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.05)


def weights(place: Path) -> dict[str, torch.Tensor]:
    file = place / "runs" / "run" / "checkpoints" / "step=00000016.ckpt"
    return torch.load(file, weights_only=True)["state_dict"]


def check_same(place: Path, other: Path) -> None:
    mine, theirs = weights(place), weights(other)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    runs = place / "runs" / "run", other / "runs" / "run"
    assert (runs[0] / "metrics.csv").read_text() == (runs[1] / "metrics.csv").read_text()


def test_two_ranks_that_are_killed_end_as_those_that_read_a_folder(store, chunks, tmp_path):
    for status, _, wrong in ended(start(tmp_path / "whole", str(chunks), ranks=2)):
        assert status == 0, wrong
    place, address = tmp_path / "killed", "s3://pictures/chunks"
    place.mkdir()
    (place / "hold-6").touch()
    ranks = start(place, address, ranks=2, **store.environment)
    until_held(ranks, place / "held-6.0")
    for process in ranks:
        os.killpg(process.pid, signal.SIGKILL)  # workers as well
    assert [status for status, _, _ in ended(ranks)] == [-signal.SIGKILL] * 2
    (place / "hold-6").unlink()
    again = ended(start(place, address, ranks=2, **store.environment))
    assert [status for status, _, _ in again] == [0, 0], again
    assert "going on from" in again[0][1]
    check_same(place, tmp_path / "whole")


WRONG = {
    "another key": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://pictures/chunks", r"\(403\)"),
    "no key": ({"AWS_SECRET_ACCESS_KEY": "", "AWS_ACCESS_KEY_ID": ""}, "s3://pictures/chunks", "credentials"),
    "nothing there": ({}, "s3://pictures/elsewhere", r"\(404\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_from_the_start_is_one_line_and_status_2(store, tmp_path, case):
    environment, address, words = WRONG[case]
    ((status, said, wrong),) = ended(start(tmp_path, address, **store.environment | environment))
    assert (status, said) == (2, ""), wrong
    (line,) = wrong.strip().splitlines()
    assert line.startswith(f"error: data.root: {address}/images.json cannot be read (")
    assert re.search(words, line)
    assert not (tmp_path / "runs").exists()


def test_a_store_that_vanishes_ends_a_run_that_goes_on_once_it_is_back(store, chunks, tmp_path):
    for status, _, wrong in ended(start(tmp_path / "whole", str(chunks))):
        assert status == 0, wrong
    place, address = tmp_path / "cut", "s3://pictures/chunks"
    place.mkdir()
    (place / "hold-4").touch()
    process = start(place, address, **store.environment)
    until_held(process, place / "held-4.0")
    store.vanish()
    (place / "hold-4").unlink()
    ((status, said, wrong),) = ended(process)
    assert status == 1 and "chunks/train: chunk " in wrong and "cannot be read" in wrong, said + wrong
    ((status, said, wrong),) = ended(start(place, address, **store.environment))
    assert status == 2 and "images.json cannot be read (Could not connect" in wrong, said + wrong
    store.appear()
    ((status, said, wrong),) = ended(start(place, address, **store.environment))
    assert status == 0 and "going on from" in said, wrong
    check_same(place, tmp_path / "whole")
