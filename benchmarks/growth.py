"""What a long run of a deep network costs: building its page, adding a checkpoint, opening it.

    python -m benchmarks.growth [--steps 300] [--layers 100] [--units 64] [--classes 1000] [--written 3]

The run is made up, but written through the Store, with pictures of a few pixels: at every checkpoint feature
visualizations and dataset examples of every unit, maps of eight images, curves of every layer, a confusion
matrix with a table of all classes. The last `--written` checkpoints are written one by one; those before are
copies of the first in which pictures and listings are links, so that the disk holds few of them.
Opening needs chromium and playwright.

Wanted: a checkpoint is added in the time that it needs itself, whatever came before; the page opens in two
seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.page import opened, write
from benchmarks.ratio import hardware
from vitrine.analyses.base import Figure, Scalar, Table
from vitrine.analyses.result import AnalysisResult
from vitrine.core import atomic
from vitrine.reporting import page
from vitrine.runs.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--written", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="a folder to leave the run in")
    how = parser.parse_args()
    print(hardware(), end="\n\n")
    with tempfile.TemporaryDirectory() as place:
        measure(how.keep or Path(place) / "run", how)


def measure(run: Path, how: argparse.Namespace) -> None:
    print("| | |\n|---|---:|")
    linked = max(1, how.steps - 2 * how.written)
    with unsynced():
        for k in range(how.written):
            checkpoint(run, k + 1, how)
    page.build(run)
    early = [added(run, k + how.written + 1, how) for k in range(how.written)]
    say("CPU of the page with a checkpoint more, of the first", early)
    for k in range(2 * how.written, linked + how.written):
        copy(run, 1, k + 1)
    begun = time.perf_counter()
    memory = built_apart(run)
    seconds = time.perf_counter() - begun
    count = len(Store(run).begun())
    print(f"| the page from nothing, {count} checkpoints, with imports | {seconds:.1f} s |")
    print(f"| its peak memory | {memory / 1e6:.0f} MB |")
    print(f"| of it imports | {built_apart(run.parent / 'empty') / 1e6:.0f} MB |")
    steps = Store(run).begun()
    late = [added(run, steps[-1] + k + 1, how) for k in range(how.written)]
    say("CPU of the page with a checkpoint more, of the last", late)
    print(f"| the same, as a ratio of medians | {statistics.median(late) / statistics.median(early):.2f} |")
    again = [timed(run) for _ in range(how.rounds)]
    say("CPU of the page with nothing new", again)
    sizes = [path.stat().st_size for path in run.glob("analysis/*/*/page.parts/*.js")]
    for name in ("gallery.js", "index.html", "page.cache"):
        print(f"| {name} | {(run / name).stat().st_size / 1e6:.2f} MB |")
    if sizes:
        print(f"| files that are loaded on demand | {len(sizes):,} |")
        print(f"| the largest of them | {max(sizes) / 1e3:.0f} kB |")
        print(f"| all of them | {sum(sizes) / 1e6:.0f} MB |")
    print(f"| files and links of the run | {sum(len(files) for _, _, files in os.walk(run)):,} |")
    for name, seconds in opened(run, how.rounds).items():
        say(name, seconds)


def say(name: str, seconds: list[float]) -> None:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    print(f"| {name} | {middle:.3f} s ({low:.3f} to {high:.3f}) |", flush=True)


def timed(run: Path) -> float:
    """The seconds of the processor that the page takes: others use the machine, and its disk, as well."""
    os.sync()
    begun = time.process_time()
    page.build(run)
    return time.process_time() - begun


def added(run: Path, step: int, how: argparse.Namespace) -> float:
    """Write a checkpoint, and give what the page then takes, see `timed`."""
    with unsynced():
        checkpoint(run, step, how)
    return timed(run)


def checkpoint(run: Path, step: int, how: argparse.Namespace) -> None:
    write(run, step, how.layers, how.units)
    drawn = torch.zeros(12, 12, 3, dtype=torch.uint8)
    names = [f"class {i:04d}" for i in range(how.classes)]
    recall = torch.rand(how.classes, generator=torch.Generator().manual_seed(step)).tolist()
    table = Table(
        {"class": names, "images": [50] * how.classes, "recall": recall, "taken for": names[::-1]}, "recall"
    )
    matrix = Figure("confusion", drawn, f"all classes at {step}", values={"accuracy": 0.5}, table=table)
    curves = [Scalar("worst_class_accuracy", min(recall))]
    with Store(run).writing(step, weights="") as writer:
        writer.write("confusion", AnalysisResult([matrix], curves, 1.0))


def copy(run: Path, step: int, to: int) -> None:
    """A checkpoint as another one, with listings of its own and links to its pictures."""
    here, there = Store(run).step_folder(step), Store(run).step_folder(to)
    there.mkdir()
    text = (here / "complete.json").read_text().replace(f'"step": {step},', f'"step": {to},')
    (there / "complete.json").write_text(text)
    for folder in here.iterdir():
        if not folder.is_dir():
            continue
        (there / folder.name).mkdir()
        for path in folder.iterdir():
            place = there / folder.name / path.name
            if path.is_dir() and path.suffix != ".parts":
                place.symlink_to(path.resolve(), target_is_directory=True)
            elif path.is_file():
                os.link(path, place)


@contextmanager
def unsynced() -> Iterator[None]:
    """A made-up run may be lost when the power fails."""
    sync = atomic.sync_tree
    atomic.sync_tree = lambda folder: None
    try:
        yield
    finally:
        atomic.sync_tree = sync


def built_apart(run: Path) -> int:
    """Build a page from nothing in a process of its own; its peak memory in bytes."""
    for made in (*run.glob("page.cache"), *run.glob("analysis/*/*/page.parts")):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    peak = "open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"  # of Linux
    build = f"from vitrine.reporting import page; page.build({str(run)!r}); print({peak})"
    out = subprocess.run([sys.executable, "-c", build], check=True, capture_output=True, text=True).stdout
    return int(out) * 1024


if __name__ == "__main__":
    main()
