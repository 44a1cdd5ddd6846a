"""How much sooner two processes look at a checkpoint than one: the default analyses, one thread each.

    python -m benchmarks.ranks [--processes 2] [--rounds 3] [--only features,examples] [--processor]
        [key=value ...]

Every process has the default run's network (as it is before training) and images. Each round looks with one
process and with all of them, in turn: all analyses after each other, as at a checkpoint, what one of them has
worked out being at hand for the next. Timed is what computes and paints; nothing is written to a disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from benchmarks.ratio import hardware
from vitrine import assembly, config
from vitrine.analyses.base import Subject
from vitrine.distributed.ranks import SINGLE_PROCESS, Ranks
from vitrine.examination.budget import Choice
from vitrine.examination.runner import run_analysis
from vitrine.examination.subject import make_subject

QUICK = "--rounds 1 --only saliency,cam"
WANTED = 1.6


def measure(
    subject: Subject, analyses: dict[str, Any], ranks: Ranks, clock: Callable[[], float]
) -> dict[str, float]:
    """The seconds of each analysis, nothing being known before the first; of several ranks the most."""
    subject, seconds = dataclasses.replace(subject, cache={}), {}
    for name, analysis in analyses.items():
        ranks.all_gather(None)  # nobody begins before all are there
        begun = clock()
        result = run_analysis(name, analysis, subject, Choice(), ranks)
        if result.error:
            raise RuntimeError(f"{name}: {result.error}")
        seconds[name] = max(ranks.all_gather(clock() - begun))
    return seconds


def work(rank: int, count: int, port: int, wanted: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=count)
    ranks = Ranks(rank, count, dist.new_group(backend="gloo"))
    settings = config.load(["data.train_size=64", *wanted.settings, "run.name=benchmark"])
    data = assembly.build_data(settings)
    network = assembly.build_network(settings, data)
    analyses = assembly.build_analyses(settings, network, data)
    chosen = [name for name, analysis in analyses.items() if analysis.enabled and analysis.sharded]
    chosen = [name for name in chosen if not wanted.only or name in wanted.only.split(",")]
    subject = make_subject(network, data, settings.analysis, device="cpu")
    subject = dataclasses.replace(subject, progress=lambda iterable, *_: iterable)
    clock = time.process_time if wanted.processor else time.perf_counter
    alone: list[dict[str, float]] = []
    together: list[dict[str, float]] = []
    for turn in range(wanted.rounds):
        for with_others in (turn % 2 == 0, turn % 2 == 1):
            measured = {name: analyses[name] for name in chosen}
            if with_others:
                together.append(measure(subject, measured, ranks, clock))
            else:
                if ranks.is_global_zero:
                    alone.append(measure(subject, measured, SINGLE_PROCESS, clock))
                ranks.all_gather(None)  # the others wait, and leave it the machine
    if ranks.is_global_zero:
        print(f"{hardware()}\n\n{table(alone, together, count)}")


def table(alone: list[dict[str, float]], together: list[dict[str, float]], count: int) -> str:
    """Seconds with one process and with all, and how many times as fast the latter are, round by round."""
    lines = [
        f"| | seconds, one process | {count} processes | times as fast, median | quartiles |",
        "|---|---:|---:|---:|---:|",
    ]
    totals = [[one | {"all": sum(one.values())} for one in seconds] for seconds in (alone, together)]
    for name in totals[0][0]:
        one, several = ([seconds[name] for seconds in rounds] for rounds in totals)
        gains = [a / b for a, b in zip(one, several)]
        low, _, high = statistics.quantiles(gains, n=4, method="inclusive") if len(gains) > 1 else gains * 3
        medians = f"{statistics.median(one):.3g} | {statistics.median(several):.3g}"
        lines.append(f"| {name} | {medians} | {statistics.median(gains):.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join([*lines, "", f"Wanted: at least {WANTED} in all."])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="analyses, with commas between")
    parser.add_argument(
        "--processor", action="store_true", help="processor seconds, for a machine that others use as well"
    )
    parser.add_argument("settings", nargs="*", help="settings of train.py, e.g. analysis.units=16")
    wanted = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    torch.multiprocessing.spawn(work, (wanted.processes, port, wanted), nprocs=wanted.processes)
    print(f"({time.monotonic() - start:.0f} s in all)")


if __name__ == "__main__":
    main()
