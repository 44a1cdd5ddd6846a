"""Which process logs the pictures of which step, where several log to one W&B run.

A process claims a step before it examines it. What a living process has claimed may still be on its way to
W&B. What one that is gone had claimed may have been lost with it: the next to start takes that over.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path

from vitrine.core import atomic
from vitrine.runs import locks

_FILES = "follower-*.steps"


class Claims:
    """The steps that this process has claimed, which it keeps for as long as it lives.

    Args:
        run_dir: the run's folder, in whose `wandb` they are written down.
    """

    def __init__(self, run_dir: Path):
        self._folder, self._steps = run_dir / "wandb", set[int]()
        self._name = f"follower-{secrets.token_hex(6)}"
        self._lock = locks.acquire(self._folder, self._name)
        self._lock.__enter__()

    def add(self, *steps: int) -> None:
        self._steps |= {*steps}
        with contextlib.suppress(OSError):  # a full disk costs no analysis
            atomic.write_json(self._folder / f"{self._name}.steps", sorted(self._steps))

    def take_over(self) -> set[int]:
        """Claim what processes that are gone had claimed, and return it."""
        taken: set[int] = set()
        for file in self._others():
            if lock := locks.acquire(self._folder, file.stem):
                with lock:
                    steps = _read(file)
                    self.add(*steps)
                    file.unlink(missing_ok=True)
                taken |= steps
        return taken

    def of_others(self) -> set[int]:
        """What processes that live have claimed, after `take_over`."""
        return {step for file in self._others() for step in _read(file)}

    def release(self) -> None:
        """Let the next process that starts see whether W&B has them."""
        self._lock.release()

    def _others(self) -> list[Path]:
        return [file for file in self._folder.glob(_FILES) if file.stem != self._name]


def any_left(run_dir: Path) -> bool:
    """Whether a process has claimed steps, and nobody has seen yet whether W&B has them."""
    return any((run_dir / "wandb").glob(_FILES))


def _read(file: Path) -> set[int]:
    with contextlib.suppress(OSError, ValueError):
        return set(json.loads(file.read_text(encoding="utf-8")))
    return set()
