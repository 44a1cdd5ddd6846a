"""Kill a training run with SIGKILL, again and again, at random moments of all that it does.

    python tests/faults/kill.py --kills 20 --seed 0

A short run on small signs is started and killed up to six times, each time in a phase chosen in turn and
after a random part of it; then it is let end. After each kill nothing on disk may be half-made; at the end
weights, pictures, metrics, page and the list of files have to be those of a run that nobody killed.

Processes are forked from one that has imported everything, so that a start costs no seconds of imports.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import small

PHASES = ("start", "training", "metrics", "checkpoint", "analysis", "page", "end")
AIMED = ("training", "checkpoint", "analysis", "page", "metrics")
MOST = 6  # kills of one run
PATIENCE = 300  # seconds a process may take


@dataclass
class Told:
    """What a process said of its phases: (seconds since the start, phase), and how it ended."""

    phases: list[tuple[float, str]] = field(default_factory=list)
    status: int | None = None  # None: killed

    @property
    def last(self) -> str:
        return self.phases[-1][1] if self.phases else "start"

    def lengths(self) -> dict[str, float]:
        """The mean seconds of a phase each time that it comes."""
        total, times = Counter(), Counter()
        for (begun, phase), (ended, _) in zip(self.phases, self.phases[1:]):
            total[phase] += ended - begun
            times[phase] += 1
        return {phase: total[phase] / times[phase] for phase in times}


def run(words: list[str], log: Path, aim: tuple[str, int, float] | None = None) -> Told:
    """Train in a process of its own; killed at `aim`: so many seconds into a phase, when it comes for the
    so-many-th time."""
    heard, saying = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _train(words, log, saying)
    os.close(saying)
    told, left, deadline = Told(), aim[1] if aim else 0, None
    try:
        while True:
            wait = (deadline or begun + PATIENCE) - time.monotonic()
            ready, _, _ = select.select([heard], [], [], max(0.0, wait))
            if not ready:
                os.kill(child, signal.SIGKILL)
                if deadline is None:
                    raise TimeoutError(f"nothing for {PATIENCE} s in phase {told.last}; see {log}")
                deadline = time.monotonic() + PATIENCE
                continue
            letters = os.read(heard, 4096)
            if not letters:
                break
            for letter in letters:
                told.phases.append((time.monotonic() - begun, PHASES[letter]))
                if aim and deadline is None and PHASES[letter] == aim[0]:
                    left -= 1
                    if left == 0:
                        deadline = time.monotonic() + aim[2]
    finally:
        os.close(heard)
        _, status = os.waitpid(child, 0)
    told.status = os.waitstatus_to_exitcode(status)
    if told.status == -signal.SIGKILL:
        told.status = None
    return told


def _train(words: list[str], log: Path, saying: int) -> None:
    """The child: never returns."""
    status = 1
    try:
        with open(log, "ab", 0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        _speak(saying)
        from vitrine.cli import train

        train.main(words)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _speak(saying: int) -> None:
    """Have this process say in which phase it is, by a byte at every change."""
    from vitrine.modules.classifier import Classifier
    from vitrine.reporting.page import PageSink
    from vitrine.runs.checkpoint_io import AtomicCheckpointIO
    from vitrine.runs.metrics_csv import MetricsCSV
    from vitrine.runs.store import Store

    inside = ["start"]

    def say() -> None:
        os.write(saying, bytes([PHASES.index(inside[-1])]))

    @contextlib.contextmanager
    def phase(name: str) -> Iterator[None]:
        inside.append(name)
        say()
        try:
            yield
        finally:
            inside.pop()
            say()

    def within(name: str, owner: type, method: str) -> None:
        real = getattr(owner, method)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with phase(name):
                return real(*args, **kwargs)

        setattr(owner, method, wrapped)

    within("checkpoint", AtomicCheckpointIO, "save_checkpoint")
    within("metrics", MetricsCSV, "log_metrics")
    within("page", PageSink, "log")
    within("page", PageSink, "close")
    writing, step = Store.writing, Classifier.training_step

    @contextlib.contextmanager
    def analysis(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with phase("analysis"), writing(*args, **kwargs) as writer:
            yield writer

    def training(*args: Any, **kwargs: Any) -> Any:
        inside[0] = "training"
        say()
        return step(*args, **kwargs)

    Store.writing, Classifier.training_step = analysis, training


def loop(kills: int, seed: int, folder: Path, report: Any = print) -> Counter:
    """Runs killed until there were so many kills, each of which has ended like one that was not; how many
    fell into each phase."""
    prepared()
    dice, fell, runs = random.Random(seed), Counter(), 0
    log = folder / "log.txt"
    unbroken = run(small.words(folder / "whole"), log)
    assert unbroken.status == 0, f"the run that is not killed failed: see {log}"
    small.as_unbroken(folder / "whole", folder / "whole")
    lengths = unbroken.lengths()
    times = Counter(phase for _, phase in unbroken.phases)
    while sum(fell.values()) < kills:
        runs += 1
        place = folder / f"run{runs}"
        for attempt in range(MOST + 1):
            aim = None
            if attempt < MOST and sum(fell.values()) < kills:
                wanted = AIMED[sum(fell.values()) % len(AIMED)]
                aim = wanted, dice.randint(1, min(3, times[wanted])), dice.uniform(0, lengths[wanted])
            told = run(small.words(place), log, aim)
            if told.status is None:
                fell[told.last] += 1
                small.nothing_half_made(place)
                continue
            assert told.status == 0, f"{place.name} ended with {told.status} after {attempt} kills: see {log}"
            small.as_unbroken(place, folder / "whole")
            report(f"{place.name}: killed {attempt} times, ended like the unbroken run")
            break
    return fell


def prepared() -> None:
    """Import all that a run needs, so that a forked process has it."""
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    if (place := str(Path(__file__).parents[1] / "callbacks")) not in sys.path:
        sys.path.append(place)
    importlib.import_module("imported")
    from vitrine import config

    config.load(["run.name=prepared"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            fell = loop(asked.kills, asked.seed, Path(folder))
        except BaseException:
            print((Path(folder) / "log.txt").read_text(errors="replace")[-5000:], file=sys.stderr)
            raise
    phases = ", ".join(f"{phase} {fell[phase]}" for phase in PHASES if fell[phase])
    print(f"{sum(fell.values())} kills ({phases}) in {time.monotonic() - started:.0f} s, seed {asked.seed}")


if __name__ == "__main__":
    main()
