"""Runs of a few seconds as jobs of a cluster, and what has to be true of them beside an uninterrupted one."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import small
from cluster import Cluster

from vitrine.analyses import ANALYSES
from vitrine.reporting.wandb_offline import history
from vitrine.runs.metrics_csv import read_rows

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "configs" / "slurm"
WORDS = [
    *small.WORDS,
    "logging.wandb.mode=offline",
    *[f"analysis.{name}.enabled=false" for name in ANALYSES if name not in small.MADE],
]
HELD = 4  # steps after which trials hold training: in the midst of an epoch, where no checkpoint is due


class Trial:
    """A folder from which jobs are submitted, with the two programs in it as in a clone."""

    def __init__(self, folder: Path, cluster: Cluster | None = None):
        self.folder, self.cluster = folder, cluster
        folder.mkdir(exist_ok=True)
        for name in ("train.py", "analyze.py"):
            shutil.copy(Path(__file__).with_name("program.py"), folder / name)
        self.environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}

    def run(self, name: str = "run") -> Path:
        return self.folder / "runs" / name

    def train(self, *words: str, options: str = "", name: str = "run", **environment: str) -> str:
        """Submit train.sbatch as README does; the job."""
        return self._submit("train.sbatch", name, *WORDS, *words, options=options, **environment)

    def follow(self, *words: str, options: str = "", **environment: str) -> str:
        """Submit follow.sbatch as README does; the job."""
        return self._submit("follow.sbatch", *words, options=options, **environment)

    def hold(self, step: int = HELD) -> None:
        """Have training wait in the step after `step` optimizer steps, for a signal or `release`."""
        (self.folder / f"hold-{step}").touch()

    def release(self, step: int = HELD) -> None:
        for file in self.folder.glob(f"h*ld-{step}*"):
            file.unlink()

    def reached(self, step: int = HELD, ranks: int = 1) -> None:
        """Wait until all ranks are held."""
        files = [self.folder / f"held-{step}.{rank}" for rank in range(ranks)]
        self.cluster.until(lambda: all(file.exists() for file in files), f"step {step}")

    def output(self, job: str) -> str:
        """What a job has printed, start after start."""
        files = sorted(self.folder.glob(f"*-{job}*.out"))
        return "\n".join(file.read_text(errors="replace") for file in files)

    def _submit(self, script: str, *words: str, options: str, **environment: str) -> str:
        return self.cluster.sbatch(
            SCRIPTS / script,
            *words,
            options=options,
            folder=self.folder,
            **self.environment | environment,
        )


def uninterrupted(folder: Path, ranks: int = 1, *words: str) -> Path:
    """The folder of the same run without SLURM; several ranks are started by torchrun."""
    trial = Trial(folder)
    start = [sys.executable] if ranks == 1 else [sys.executable, "-m", "torch.distributed.run"]
    start += [] if ranks == 1 else ["--standalone", f"--nproc_per_node={ranks}"]
    environment = Cluster(folder).environment | trial.environment
    command = [*start, "train.py", *WORDS, *words, "run.name=run"]
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return trial.run()


def check_same(run: Path, whole: Path) -> None:
    """A run that has ended is the same as the uninterrupted one: weights and pictures bit for bit, the same
    metrics, and the same rows on W&B, each once. It may have pictures of more checkpoints."""
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    small.nothing_half_made(run)
    for step in steps(whole):
        mine, theirs = small.weights(run, step), small.weights(whole, step)
        assert mine.keys() == theirs.keys()
        assert all(mine[name].equal(theirs[name]) for name in theirs), f"other weights at step {step}"
    mine, theirs = small.pictures(run), small.pictures(whole)
    more = {int(Path(name).parts[1].removeprefix("step=")) for name in mine.keys() - theirs.keys()}
    other = [name for name in theirs if mine.get(name) != theirs[name] and not (more and "scalars" in name)]
    assert not other, f"other pictures: {other}"
    other = [pair for pair in zip(read_rows(run), read_rows(whole)) if pair[0] != pair[1]]
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text(), f"metrics: {other}"
    expected, found = logged(whole, not more), logged(run, not more)
    extra = [entry for entry in found if entry[0] in more and entry not in expected]
    assert [entry for entry in found if entry not in extra] == expected, "other rows on W&B"
    assert len({entry[:2] for entry in extra}) == len(extra), "rows twice on W&B"


def steps(run: Path) -> list[int]:
    """The steps that have a checkpoint."""
    return sorted(int(file.stem.removeprefix("step=")) for file in run.glob("checkpoints/step=*.ckpt"))


def logged(run: Path, overlap: bool = True) -> list[tuple[int, str, Any]]:
    """(step, key, value) of all that W&B's offline logs have, but times; what was logged twice stands twice.

    The epoch stands once: Lightning adds it to the training's metrics of a step and to the validation's.

    Args:
        overlap: with the overlap with the checkpoint before; a run that was interrupted has another before.
    """
    found, epochs = [], set()
    for row in history(run, (run / "wandb-id").read_text().strip()):
        if (step := row.get("trainer/global_step")) is None:
            continue
        media = {key.removesuffix("._type") for key in row if key.endswith("._type")}
        parts = tuple(f"{key}." for key in media)
        found += [(step, key, None) for key in media]
        for key, value in row.items():
            if key.startswith(("_", "Time/", "trainer/", *parts)) or ("/overlap/" in key and not overlap):
                continue
            finite = isinstance(value, int | float) and math.isfinite(value)
            entry = step, key, value if finite else None
            if key == "Training/epoch":
                epochs.add(entry)
            else:
                found.append(entry)
    return sorted([*found, *epochs], key=str)
