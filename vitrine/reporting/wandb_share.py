"""Several processes that log to one W&B run: the training leads, processes that follow it add pictures.

Online W&B calls this shared mode. *Every* process of the run has to be in it: a training that is not loses
the rows that it logged first as soon as another joins in shared mode (wandb issue 12269). So a leader leaves
a mark in the run's folder, and followers of a training without that mark stay offline.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from vitrine.core import atomic

_MARK = "wandb-shared"


def mode_of(run_dir: Path, part: str, mode: str) -> str:
    """W&B's mode for the part that a process plays: "online" becomes "shared", or "offline"."""
    if mode != "online" or part == "alone":
        return mode
    return "shared" if part == "leader" or (run_dir / _MARK).exists() else "offline"


def settings_of(part: str) -> dict[str, Any]:
    """Further arguments of `wandb.Settings`."""
    if part != "follower":
        return {}
    process = f"{socket.gethostname()}-{os.getpid()}"
    return {
        "x_primary": False,  # the leader's settings, hardware and files stand
        "x_update_finish_state": False,  # a follower that ends does not end the run
        "x_label": f"follower-{process}",
        "x_sync_dir_suffix": process,  # offline: two that start in the same second
    }


def mark(run_dir: Path, part: str, shared: bool) -> None:
    """Leave or remove the leader's mark."""
    if part == "leader" and shared:
        atomic.write_text(run_dir / _MARK, "the processes of this run log to W&B in shared mode\n")
    elif part != "follower":
        (run_dir / _MARK).unlink(missing_ok=True)
