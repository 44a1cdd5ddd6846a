"""Seconds until a program answers: a mistyped setting, `--help`, `--version`, and the first training step.

    python -m benchmarks.starting [key=value ...] [--rounds 5] [--imports]

Each start is a process of its own, in turn. Without settings the first step is that of the default run, W&B
off line included. Processor seconds hold on a busy machine, where seconds do not. `--imports` lists which
packages the imports of that run spend their time in (python -X importtime), most first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUICK = "--rounds 1"
ROOT = Path(__file__).resolve().parent.parent
ANSWERS = {  # what is started -> its words
    "`python -m vitrine --version`": ["-m", "vitrine", "--version"],
    "`python train.py data.batchsize=3`": ["train.py", "data.batchsize=3"],
    "`python train.py --help`": ["train.py", "--help"],
    "`python analyze.py --help`": ["analyze.py", "--help"],
    "`python analyze.py dream --help`": ["analyze.py", "dream", "--help"],
    "`python analyze.py dream RUN octave=3`": ["analyze.py", "dream", "RUN", "octave=3"],
    "`python -m vitrine lidar --help`": ["-m", "vitrine", "lidar", "--help"],
}
PARTS = ("settings, torch and Lightning", "other imports", "data", "network and trainer")
PARTS += ("until the first step", "the first step")
WANTED_ANSWER, WANTED_STEP = 1.0, 8.0  # seconds, on two cores


def child(started: float, arguments: list[str]) -> None:
    """Train as `train.py` does, and print how far it was when, once the first step is done."""
    from vitrine.cli import train

    marks: list[float] = []
    original = train.train

    def mark() -> None:
        marks.append(time.time() - started)

    def marking(function: Any, and_then: Any = lambda made: None) -> Any:
        def marked(*some: Any, **named: Any) -> Any:
            made = function(*some, **named)
            mark()
            and_then(made)
            return made

        return marked

    def marked_train(*some: Any, **named: Any) -> None:
        mark()
        import lightning

        from vitrine import assembly

        class FirstStep(lightning.Callback):
            def on_train_batch_start(self, *_: Any) -> None:
                mark()

            def on_train_batch_end(self, *_: Any) -> None:
                mark()
                print(json.dumps([*marks[:4], *marks[-2:], sum(os.times()[:4])]), flush=True)
                os._exit(0)

        mark()
        assembly.build_data = marking(assembly.build_data)

        def add_callback(trainer: lightning.Trainer) -> None:
            trainer.callbacks.insert(0, FirstStep())

        assembly.build_trainer = marking(assembly.build_trainer, add_callback)
        original(*some, **named)

    train.train = marked_train
    train.main(arguments)


def first_step(arguments: list[str]) -> list[float]:
    """Seconds since the process was started at which each of PARTS was done, then its processor seconds."""
    with tempfile.TemporaryDirectory() as root:
        placed = [f"run.root={root}", "run.name=start", "trainer.enable_progress_bar=false"]
        command = [sys.executable, "-m", "benchmarks.starting", "--child", repr(time.time())]
        ran = subprocess.run(
            [*command, *placed, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("[")]
    if not lines:
        raise SystemExit(ran.stderr)
    return json.loads(lines[-1])


def answer(words: list[str]) -> tuple[float, float]:
    """Seconds and processor seconds of a program until it has ended."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def imports() -> list[tuple[str, float]]:
    """Seconds by package, of what is imported up to the end of one step without pictures; most first."""
    with tempfile.TemporaryDirectory() as root:
        words = ["train.py", f"run.root={root}", "trainer.max_steps=1", "analysis.mode=off"]
        command = [sys.executable, "-X", "importtime", *words, "trainer.enable_progress_bar=false"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    spent: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)", ran.stderr):
        spent[name.split(".")[0]] += int(own) / 1e6
    return spent.most_common(12)


def spread(values: Sequence[float]) -> str:
    """Median, and least to most, as two cells of a table."""
    return f"{statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f}"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", help="key=value, as train.py takes them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    arguments = parser.parse_args()
    from benchmarks.ratio import hardware

    answers: dict[str, list[tuple[float, float]]] = {name: [] for name in ANSWERS}
    steps = []
    for _ in range(arguments.rounds):
        for name, words in ANSWERS.items():
            answers[name].append(answer(words))
        steps.append(first_step(arguments.settings))
    print(hardware(), "\n")
    print("| | seconds, median | least to most | processor seconds, median | least to most |")
    print("|---|---:|---:|---:|---:|")
    for name, taken in answers.items():
        print(f"| {name} | {' | '.join(map(spread, zip(*taken)))} |")
    whole, processor = ([marks[i] for marks in steps] for i in (-2, -1))
    print(f"| first training step | {spread(whole)} | {spread(processor)} |")
    print(f"\nwanted on two cores: answers in {WANTED_ANSWER:.0f} s, the first step in {WANTED_STEP:.0f} s;")
    print(f"{arguments.rounds} starts of each, one after another\n")
    print("| until the first training step is done | seconds, median | least to most |\n|---|---:|---:|")
    spans = [[b - a for a, b in zip([0.0, *marks[:-1]], marks[:-1])] for marks in steps]
    for name, taken in zip(PARTS, zip(*spans)):
        print(f"| {name} | {spread(taken)} |")
    if arguments.imports:
        print("\n| package | seconds of importing |\n|---|---:|")
        print("\n".join(f"| {name} | {seconds:.2f} |" for name, seconds in imports()))


if __name__ == "__main__":
    main()
