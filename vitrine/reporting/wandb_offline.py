"""Offline W&B runs in a run's folder: what they logged, and the files that `wandb sync` uploads with them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitrine.reporting import wandb_internals


def log_files(run_dir: Path, run_id: str = "*", online: bool = False) -> list[Path]:
    """The logs of a run's offline starts, followers' included; with `online` those of all starts."""
    return sorted(run_dir.glob(f"wandb/{'*' if online else 'offline-'}run-*/run-{run_id}.wandb"))


def history(run_dir: Path, run_id: str, online: bool = False) -> Iterator[dict[str, Any]]:
    """The rows in these logs; a picture or table `key` is there as `key._type` and other parts."""
    for file in log_files(run_dir, run_id, online):
        for record in wandb_internals.read_log(file):
            if record["type"] == "history":
                yield record["history"]["item"]


def store_relative_paths(run: Any, run_dir: Path) -> None:
    """Let the artifacts that an offline run logs name their files relative to the run's folder.

    W&B stores absolute paths. Once the folder was moved, `wandb sync` does not find them and leaves them out
    without an error. Relative ones it finds from the directory in which it is started. W&B itself logs an
    artifact with each table. All else that it stores is relative to the log.

    Args:
        run: a `wandb.Run`, whose `log_artifact` is replaced.
        run_dir: absolute.
    """
    log_artifact = run.log_artifact

    @functools.wraps(log_artifact)
    def log_relative(artifact: Any, *args: Any, **kwargs: Any) -> Any:
        for entry in artifact.manifest.entries.values() if hasattr(artifact, "manifest") else ():
            if entry.local_path and Path(entry.local_path).is_relative_to(run_dir):
                entry.local_path = str(Path(entry.local_path).relative_to(run_dir))
        return log_artifact(artifact, *args, **kwargs)

    run.log_artifact = log_relative


def missing_files(run_dir: Path) -> list[str]:
    """The files of artifacts that `wandb sync`, started in `run_dir`, would not find."""
    return [
        entry["local_path"]
        for file in log_files(run_dir)
        for record in wandb_internals.read_log(file)
        if record["type"] == "artifact"
        for entry in record["artifact"]["manifest"].get("contents", ())
        if "local_path" in entry and not (run_dir / entry["local_path"]).exists()
    ]
