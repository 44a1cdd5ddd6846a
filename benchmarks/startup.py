"""Seconds from `python train.py` to the end of the first training step, each start in a process of its own.

    python -m benchmarks.startup [key=value ...] [--rounds 5] [--imports]

Without settings it is the default run, W&B off line included. `--imports` lists which packages the imports
spend their time in (python -X importtime), most first.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

WANTED = 15.0
PARTS = ("imports", "data", "network and trainer", "until the first step", "the first step")
ROOT = Path(__file__).resolve().parent.parent


def child(started: float, arguments: list[str]) -> None:
    """Train as `train.py` does, and print how far it was when, once the first step is done."""
    from vitrine import assembly
    from vitrine.cli import train

    marks = [time.time() - started]

    def marking(function: Any) -> Any:
        def marked(*some: Any, **named: Any) -> Any:
            made = function(*some, **named)
            marks.append(time.time() - started)
            return made

        return marked

    import lightning

    class FirstStep(lightning.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            marks.append(time.time() - started)

        def on_train_batch_end(self, *_: Any) -> None:
            print(json.dumps([*marks, time.time() - started]), flush=True)
            raise SystemExit

    def trainer(*some: Any, **named: Any) -> Any:
        made = original(*some, **named)
        made.callbacks.insert(0, FirstStep())
        return made

    original = assembly.trainer
    assembly.data, assembly.trainer = marking(assembly.data), marking(trainer)
    train.main(arguments)


def start(arguments: list[str]) -> list[float]:
    """Seconds since the process was started at which each of PARTS was done."""
    with tempfile.TemporaryDirectory() as root:
        placed = [f"run.root={root}", "run.name=start", "trainer.enable_progress_bar=false"]
        command = [sys.executable, "-m", "benchmarks.startup", "--child", repr(time.time())]
        ran = subprocess.run(
            [*command, *placed, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("[")]
    if not lines:
        raise SystemExit(ran.stderr)
    return json.loads(lines[-1])


def imports() -> list[tuple[str, float]]:
    """Seconds by package, of what `train.py` imports before it reads its first image; most first."""
    command = [sys.executable, "-X", "importtime", "-c", "import train, build"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    spent: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)", ran.stderr):
        spent[name.split(".")[0]] += int(own) / 1e6
    return spent.most_common(12)


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

    rounds = [start(arguments.settings) for _ in range(arguments.rounds)]
    print(hardware(), "\n")
    print("| until the first training step is done | seconds, median | least | most |\n|---|---:|---:|---:|")
    spans = [[b - a for a, b in zip([0.0, *marks], marks)] for marks in rounds]
    for name, taken in zip(PARTS, zip(*spans)):
        print(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f} | {max(taken):.1f} |")
    whole = [marks[-1] for marks in rounds]
    print(f"| in all | {statistics.median(whole):.1f} | {min(whole):.1f} | {max(whole):.1f} |")
    print(f"\nwanted: at most {WANTED:.0f} s on two cores; {len(rounds)} starts, one after another")
    if arguments.imports:
        print("\n| package | seconds of importing |\n|---|---:|")
        print("\n".join(f"| {name} | {seconds:.2f} |" for name, seconds in imports()))


if __name__ == "__main__":
    main()
