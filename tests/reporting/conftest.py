import os
import sys
import time
from pathlib import Path

import pytest
import torch

from vitrine.analyses.base import Figure, Scalar
from vitrine.analyses.result import AnalysisResult, CheckpointReport

sys.path.insert(0, str(Path(__file__).parent))  # for `import wandb_server, wandb_training`


def _picture(seed, height=12, width=10):
    drawn = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return drawn.to(torch.uint8)


@pytest.fixture
def report():
    """What three analyses might give at a step: pictures of units, of a layer, of probes, and curves."""

    def at(step):
        units = [
            Figure(
                f"{layer}/unit-{unit:03d}",
                _picture(step + 10 * unit + depth),
                f"unit {unit} of {layer}",
                layer=layer,
                unit=unit,
                values={
                    "activation": 2.0 * unit + step,
                    "class_entropy": 0.5,
                },
                indices=[7],
                class_shares={"b": 1.0},
            )
            for depth, layer in enumerate(("layer1", "layer2"))
            for unit in (0, 5, 9)
        ]
        curves = [Scalar("dead_units/layer1", step / 1000, "layer1"), Scalar("entropy", 1.5)]
        maps = [
            Figure(f"probe-{p:03d}/<b>", _picture(step + p), f"probe {p}: <b>", probe=p, label=1)
            for p in range(3)
        ]
        weights = [Figure("conv1", _picture(step, 20, 30), "filters of conv1", layer="conv1")]
        return CheckpointReport(
            step,
            {
                "weights": AnalysisResult(weights, seconds=1.5),
                "examples": AnalysisResult(units, curves, 1.5),
                "cam": AnalysisResult(maps, seconds=1.5),
            },
        )

    return at


@pytest.fixture
def offline_home(tmp_path, monkeypatch):
    """A home without a key, nothing of W&B's in the environment, and an empty working directory."""
    wandb = pytest.importorskip("wandb")
    for variable in [v for v in os.environ if v.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    wandb.teardown()  # its settings are those of the environment when it was first used
    yield home
    wandb.teardown()
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ.pop(variable, None)


@pytest.fixture
def server(offline_home, monkeypatch):
    """A stand-in for W&B's server, and a key for it in the environment: W&B is online."""
    from wandb_server import WandbServer

    server = WandbServer()
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    yield server
    import wandb

    wandb.teardown()
    server.close()


@pytest.fixture
def services():
    """Finds the wandb-core processes that this one has started."""
    if not Path("/proc/self/task").exists():
        pytest.skip("looks for W&B's service in /proc")

    def find() -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, rest = stat.read_text().split(" (", 1)
            except OSError:
                continue  # ended meanwhile
            name, rest = rest.rsplit(") ", 1)
            if name.startswith("wandb-core") and int(rest.split()[1]) == os.getpid() and rest[0] != "Z":
                found.append(int(pid))
        return found

    return find


@pytest.fixture
def records():
    """Reads the transaction log of an offline run by W&B's own reader.

    W&B writes a log's end after `finish` has returned; a log without one is of a run that was killed.
    """
    from vitrine.reporting.wandb_internals import read_log

    def read(folder, kind):
        (file,) = folder.glob("run-*.wandb")
        deadline = time.monotonic() + 2
        while True:
            found = list(read_log(file))
            if any(record["type"] == "exit" for record in found) or time.monotonic() > deadline:
                return [record[kind] for record in found if record["type"] == kind]
            time.sleep(0.05)

    return read


@pytest.fixture
def history(records):
    """The rows of all that a run's folder holds of offline logs, start after start."""

    def read(run_dir):
        folders = sorted(run_dir.glob("wandb/offline-run-*"))
        return [row["item"] for folder in folders for row in records(folder, "history")]

    return read


@pytest.fixture
def whole(tmp_path, report, history):
    """The values of a run on W&B, without a server, to which nothing happened."""
    from wandb_training import Training, values

    training = Training(tmp_path / "whole", report, mode="offline")
    for start in (0, 4, 8):
        training.steps(start, start + 4)
        training.checkpoint(start + 4)
    training.sink.close()
    return values(history(tmp_path / "whole"))
