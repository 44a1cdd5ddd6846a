"""Time several ways of doing a thing in turn, and report each as a ratio to the first, round by round.

A busy or throttled machine slows neighbours in time alike, so that ratios hold where seconds do not.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds a call over the rounds, and each round's ratio to the first contestant of the same round."""

    name: str
    seconds: list[float]
    ratios: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the ratio."""
        if len(self.ratios) < 2:
            return self.ratio, self.ratio
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, high


def compare(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    warmup: int = 1,
    device: str | torch.device = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time each contestant once a round, in turn; the first is what the others are held against.

    The order turns round by round, so that no one always runs after the same neighbour. On a GPU the clock
    waits for the work to be done.

    Args:
        contestants: name -> what is timed, called without arguments.
        rounds: how many times each is timed.
        warmup: calls of each before the clock starts.
        clock: seconds; `time.process_time` on one thread leaves out what other programs took.
    """
    names = list(contestants)

    def timed(name: str) -> float:
        _wait(device)
        start = clock()
        contestants[name]()
        _wait(device)
        return clock() - start

    for name in names:
        for _ in range(warmup):
            timed(name)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(timed(name))
    finally:
        if was_on:
            gc.enable()
    base = seconds[names[0]]
    return [Timing(name, s, [a / b for a, b in zip(s, base)]) for name, s in seconds.items()]


def table(timings: list[Timing], title: str = "") -> str:
    """The timings as a Markdown table: median seconds, median ratio to the first, quartiles of the ratio."""
    lines = [f"**{title}**", ""] if title else []
    lines += ["| | seconds, median | ratio, median | quartiles |", "|---|---:|---:|---:|"]
    for t in timings:
        low, high = t.spread
        lines.append(f"| {t.name} | {t.median:.4g} | {t.ratio:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines)


def hardware(device: str | torch.device = "cpu") -> str:
    """One line: processor or GPU, threads, versions."""
    device = torch.device(device)
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    else:
        place = f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{place}; torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _wait(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
