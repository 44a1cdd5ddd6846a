"""Training throughput while others look at the checkpoints (analysis.mode=follow), beside no analyses at all.

    python -m benchmarks.follow [key=value ...] [--steps 60] [--every 20] [--rounds 7]

Both save the same checkpoints; one has every analysis off, the other has all that are on by default, to be
made by followers. No follower runs: on a machine of its own it shares nothing with the training but the file
system. To see it with one, start `python analyze.py RUN follow=true` there; on the training's own GPU or core
it would take its share of them, which is not what is asked here. Timed is from the first step to the last,
checkpoints included.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from typing import Any

import lightning

from benchmarks.ratio import Timing, hardware, table
from vitrine import assembly
from vitrine.analyses import ANALYSES
from vitrine.cli import train

QUICK = "--rounds 1 --steps 30 --every 15"
WANTED = 0.98
SMALL = ["data.train_size=1024", "data.val_size=64", "data.image_size=32", "validation.robust_images=0"]


class Stopwatch(lightning.Callback):
    """The seconds of a training, its first step left out: it warms up."""

    seconds = 0.0

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            self.began = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.began


def seconds(arguments: list[str]) -> float:
    """How long a training takes, by the front door."""
    watch, original = Stopwatch(), assembly.build_trainer

    def trainer(*some: Any, **named: Any) -> Any:
        made = original(*some, **named)
        made.callbacks.append(watch)  # after whoever writes the last checkpoint
        return made

    assembly.build_trainer = trainer
    try:
        with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
            train.main([*arguments, f"run.root={root}", "run.name=run"])
    finally:
        assembly.build_trainer = original
    return watch.seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", help="key=value, as train.py takes them")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    common = [
        *SMALL,
        f"trainer.max_steps={arguments.steps}",
        "trainer.max_epochs=-1",
        f"checkpoint.every_steps={arguments.every}",
        "trainer.enable_progress_bar=false",
        "logging.wandb.mode=disabled",
        *arguments.settings,
    ]
    ways = {
        "no analyses": [f"analysis.{name}.enabled=false" for name in ANALYSES],
        "analysis.mode=follow": ["analysis.mode=follow"],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(arguments.rounds + 1):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds([*common, *ways[name]]))
    off, follow = (spent[1:] for spent in taken.values())  # the first round warms up
    ratios = [b / a for a, b in zip(off, follow)]
    timings = [
        Timing("no analyses", off, [1.0] * len(off)),
        Timing("analysis.mode=follow", follow, ratios),
    ]
    batches = f"{arguments.steps} steps, a checkpoint every {arguments.every}"
    print(hardware(), "\n", sep="")
    print(table(timings, batches))
    print(f"\nthroughput in follow mode: {1 / timings[1].ratio:.3f} of that without (wanted: {WANTED})")


if __name__ == "__main__":
    main()
