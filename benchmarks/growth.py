"""What a long run of a deep network costs: building its page, adding a checkpoint, opening it, telling W&B.

    python -m benchmarks.growth                        wide: 24 checkpoints x 64 units of 100 layers
    python -m benchmarks.growth --steps 300 --units 2  long

Each takes some minutes, and prints a row as soon as it is measured.

The run is made up, but written through the Store, with pictures of a few pixels: at every checkpoint feature
visualizations and dataset examples of every unit, maps of eight images, curves of every layer, a confusion
matrix with a table of all classes. The last `--written` checkpoints are written one by one, in turn with as
many of a run that has few; those before are copies of the first in which pictures and listings are links, so
that the disk holds few of them.
Opening needs chromium and playwright. To W&B, offline, two checkpoints are sent with pictures of blurred
noise of `--pixels` a side.

Wanted: a checkpoint is added in the time that it needs itself, whatever came before; the page opens in two
seconds, and shows its first picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.page import opened, results
from benchmarks.ratio import hardware
from vitrine.analyses.base import Figure, Scalar, Table
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.core import atomic
from vitrine.reporting import page, page_cache
from vitrine.reporting.bounds import shown_units
from vitrine.runs.store import Store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--written", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=96)
    parser.add_argument("--page-only", action="store_true", help="leave W&B out")
    parser.add_argument("--keep", type=Path, help="a folder to leave the run in")
    how = parser.parse_args()
    print(hardware(), end="\n\n")
    with tempfile.TemporaryDirectory() as place:
        measure(how.keep or Path(place) / "run", how)


def measure(run: Path, how: argparse.Namespace) -> None:
    print("| | |\n|---|---:|", flush=True)
    if not how.page_only:
        sent(run.parent / "sent", how)
    page_cache.ONE_FILE = 0  # as of a large run from the first checkpoint on, so that early and late compare
    few, linked = run.parent / "few", max(1, how.steps - how.written)
    with unsynced():
        checkpoint(run, 1, how)
        for k in range(how.written):
            checkpoint(few, k + 1, how)
    for k in range(1, linked):
        copy(run, 1, k + 1)
    page.build(few)
    begun = time.perf_counter()
    memory = built_apart(run)
    seconds = time.perf_counter() - begun
    row(f"the page from nothing, {linked} checkpoints, with imports", f"{seconds:.1f} s")
    row("its peak memory", f"{memory / 1e6:.0f} MB")
    row("of it imports", f"{built_apart(run.parent / 'empty') / 1e6:.0f} MB")
    pairs = [
        (added(few, how.written + k, how), added(run, linked + k, how)) for k in range(1, how.written + 1)
    ]
    early, late = zip(*pairs)
    say(f"CPU of the page with a checkpoint more, after {how.written}", early)
    say(f"the same, after {linked}", late)
    row("as a ratio of medians", f"{statistics.median(late) / statistics.median(early):.2f}")
    say(f"CPU of the page with nothing new, after {2 * how.written}", [timed(few) for _ in range(how.rounds)])
    say(f"the same, after {linked + how.written}", [timed(run) for _ in range(how.rounds)])
    sizes = [path.stat().st_size for path in run.glob("analysis/*/*/page.parts/*.js")]
    for name in ("gallery.js", "index.html", "page.cache"):
        row(name, f"{(run / name).stat().st_size / 1e6:.2f} MB")
    if sizes:
        row("files that are loaded on demand", f"{len(sizes):,}")
        row("the largest of them", f"{max(sizes) / 1e3:.0f} kB")
        row("all of them", f"{sum(sizes) / 1e6:.0f} MB")
    row("files and links of the run", f"{sum(len(files) for _, _, files in os.walk(run)):,}")
    for name, seconds in opened(run, how.rounds).items():
        say(name, seconds)


def say(name: str, seconds: Sequence[float]) -> None:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    row(name, f"{middle:.3f} s ({low:.3f} to {high:.3f})")


def row(name: str, value: str) -> None:
    print(f"| {name} | {value} |", flush=True)


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
    with Store(run).writing(step, weights="") as writer:
        for name, result in all_results(step, how).items():
            writer.write(name, result)


def all_results(step: int, how: argparse.Namespace) -> dict[str, AnalysisResult]:
    drawn = torch.zeros(12, 12, 3, dtype=torch.uint8)
    recall = torch.rand(how.classes, generator=torch.Generator().manual_seed(step)).tolist()
    names = class_names(how)
    table = Table(
        {"class": names, "images": [50] * how.classes, "recall": recall, "taken for": names[::-1]}, "recall"
    )
    matrix = Figure("confusion", drawn, f"all classes at {step}", values={"accuracy": 0.5}, table=table)
    curves = [Scalar("worst_class_accuracy", min(recall))]
    return {**results(step, how.layers, how.units), "confusion": AnalysisResult([matrix], curves, 1.0)}


def class_names(how: argparse.Namespace) -> list[str]:
    return [f"class {i:04d}" for i in range(how.classes)]


def sent(run: Path, how: argparse.Namespace) -> None:
    """Log two checkpoints to an offline run: what the second adds to its log, tables and pictures."""
    from vitrine.reporting import wandb_internals, wandb_offline
    from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
    from vitrine.reporting.wandb_sink import WandbSink

    run.mkdir(parents=True)
    logger, note = wandb_logger(run, WandbSettings(mode="offline", page=False))
    if logger is None:
        print(f"W&B: not measured: {note}\n")
        return
    sink = WandbSink(logger.experiment, class_names(how), page=False, run_dir=run)
    before: dict[Path, int] = {}
    for step in (1, 2):
        found = {name: enlarged(result, how.pixels) for name, result in all_results(step, how).items()}
        with unsynced(), Store(run).writing(step, weights=str(step)) as writer:
            for name, result in found.items():
                writer.write(name, enlarged(result, 12, all_but_shown=True))
        begun = time.process_time()
        sink.log(CheckpointReport(step, found), Store(run).step_folder(step))
        seconds = time.process_time() - begun
        time.sleep(3)  # W&B's own process writes the log
        files = [file for file in run.glob("wandb/*run-*/**/*") if file.is_file() and not file.is_symlink()]
        sizes = {file: file.stat().st_size for file in files}
        grown = {file: size - before.get(file, 0) for file, size in sizes.items()}
        before = sizes
    kinds = {"log": (".wandb",), "tables": (".json",), "pictures": (".jpg", ".png", ".webp")}
    for kind, ends in kinds.items():
        own = [size for file, size in grown.items() if file.suffix in ends and size]
        row(f"W&B, a step: {kind}", f"{sum(own) / 1e6:.2f} MB in {len(own)} files")
    artifacts = [
        record["artifact"]["manifest"].get("contents", ())
        for file in wandb_offline.log_files(run)
        for record in wandb_internals.read_log(file)
        if record["type"] == "artifact"
    ]
    own = [int(entry["size"]) for content in artifacts[len(artifacts) // 2 :] for entry in content]
    row("W&B, a step: tables once more, as artifacts", f"{sum(own) / 1e6:.2f} MB in {len(own)} files")
    folder = [file.stat().st_size for file in Store(run).step_folder(2).rglob("*") if file.is_file()]
    row("W&B, a step, online: its folder", f"{sum(folder) / 1e6:.1f} MB in {len(folder):,} files")
    row("W&B, a step: CPU of logging it", f"{seconds:.2f} s")
    sink.close()


def enlarged(result: AnalysisResult, pixels: int, all_but_shown: bool = False) -> AnalysisResult:
    """Its pictures as blurred noise, so large; but for those a dashboard copies from the disk."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.rand(997, 3, 12, 12, generator=draws)
    fine = F.interpolate(coarse, (pixels, pixels), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    units = shown_units((f.layer, f.unit) for f in result.figures if f.unit is not None)
    figures = [
        figure
        if all_but_shown and (figure.unit is None or (figure.layer, figure.unit) in units)
        else dataclasses.replace(figure, image=fine[i % len(fine)].permute(1, 2, 0).contiguous())
        for i, figure in enumerate(result.figures)
    ]
    return dataclasses.replace(result, figures=figures)


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
    build = "from vitrine.reporting import page, page_cache; page_cache.ONE_FILE = 0; "
    build += f"page.build({str(run)!r}); print({peak})"
    out = subprocess.run([sys.executable, "-c", build], check=True, capture_output=True, text=True).stdout
    return int(out) * 1024


if __name__ == "__main__":
    main()
