"""CIFAR-10 to 94 %: Vitrine's recipe beside airbench94 by its own published code, on the same images in turn.

    pip install airbench==0.1.8
    python -m benchmarks.airbench DATA [--recipe configs/cifar10-quick.yaml] [--rounds 3] [--device cuda]
    python -m benchmarks.airbench IMAGES [--epochs 2] [--images 10000] [--set model.compile=true ...]

DATA is a folder with CIFAR-10's original files (`cifar-10-batches-py`), IMAGES one of images,
IMAGES/train/CLASS/*.jpg and IMAGES/test/CLASS; without either images are noise, and only seconds mean
something. Both train on the same images and are measured on all test images. Wanted: no slower to 94 %
than airbench; on images of which neither reaches 94 %, to the highest accuracy that both reach.

Seconds are those of training, as airbench counts them: without reading data, and without the validation
after each epoch; airbench's last row has its evaluation with test-time augmentation in it, Vitrine's its
checkpoints. Analyses are off; cuDNN chooses its algorithms by trial for both, as airbench turns that on.
Before the clock starts each takes a step. On a GPU airbench runs as it is
published. On a CPU its network, optimizer, schedule, augmentation and evaluation do, and the first lines say
what does not.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks import published_airbench
from benchmarks.ratio import Timing, hardware
from benchmarks.time_to_accuracy import Curve, Point, common_accuracy
from vitrine import assembly, config
from vitrine.datamodules import source
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import image_files
from vitrine.datamodules.image_folders import list_images
from vitrine.datamodules.memory import InMemory
from vitrine.runs.metrics_csv import MetricsCSV

QUICK = "--images 1024 --test-images 200 --epochs 1"
BATCH = 1024  # of airbench
CIFAR10 = source("cifar10")


@dataclass
class Images:
    """Training and test images in memory, and the names of their classes."""

    train: InMemory
    test: InMemory
    classes: list[str]


def read(root: Path | None, train: int | None, test: int | None) -> Images:
    """The images of a folder, or noise; those of training in one random order, and so many of each split."""
    if root is None:
        drawn = torch.Generator().manual_seed(0)
        splits = [_noise(train or 50_000, drawn), _noise(test or 10_000, drawn)]
        return Images(*splits, list("abcdefghij"))
    if (root / "cifar-10-batches-py").is_dir():
        module = CIFAR10(CIFAR10.Settings(root=str(root), download=False))
        module.setup()
        found, classes = [module.train, module.val], module.classes
    else:
        classes, listed = list_images(str(root))
        names = ("train", "test" if "test" in listed else "val")
        found = [image_files(listed[name], 32).load("reading images") for name in names]
    return Images(*(_part(split, count) for split, count in zip(found, (train, test))), classes)


def _part(split: InMemory, count: int | None) -> InMemory:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    return split.select(order[:count])


def _noise(count: int, drawn: torch.Generator) -> InMemory:
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=drawn)
    return InMemory(images, torch.randint(0, 10, (count,), generator=drawn))


class Given(ImageDataModule):
    """Images in memory, batched and augmented as a recipe says."""

    mean, std = CIFAR10.mean, CIFAR10.std
    image_size = 32

    def __init__(self, settings: DataSettings, images: Images, seed: int):
        super().__init__(settings, seed)
        self.train, self.val, self.classes = images.train, images.test, images.classes


class Clock(Callback):
    """The curve of a training: seconds that are not validation's, accuracy after each."""

    def __init__(self) -> None:
        self.curve, self.seconds, self.since = Curve(), 0.0, 0.0
        self.epoch_began = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.since = _now(pl_module.device)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.epoch_began = self.seconds + _now(pl_module.device) - self.since

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.seconds += _now(pl_module.device) - self.since
            self.curve.epochs.append(self.seconds - self.epoch_began)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            accuracy = float(trainer.callback_metrics["val/accuracy"])
            self.curve.points.append(Point(self.seconds, accuracy))
            self.since = _now(pl_module.device)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self.seconds += _now(pl_module.device) - self.since  # a checkpoint
        self.curve.points.append(Point(self.seconds, self.curve.end.accuracy))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def train_recipe(words: list[str], images: Images, seed: int) -> Curve:
    """The curve of a recipe with these settings on these images, in a run's folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        settings = config.load([*words, f"run.root={folder}", "run.name=race", f"run.seed={seed}"])
        data = Given(settings.data, images, seed)
        module, clock = assembly.build_classifier(settings, data), Clock()
        trainer = assembly.build_trainer(settings, [clock])
        settings.folder.mkdir()
        trainer.loggers = [MetricsCSV(settings.folder)]
        trainer.fit(module, datamodule=data)
    return clock.curve


def table(curves: dict[str, list[Curve]], target: float) -> str:
    """Medians over the rounds, with the least and most; each round's common accuracy is its own."""
    rounds = list(zip(*curves.values()))
    common = [common_accuracy(of_round) for of_round in rounds]
    shown = _spread([100 * accuracy for accuracy in common], "{:.2f}")
    lines = [
        f"| | epochs | seconds an epoch | accuracy at the end, % | seconds in all | seconds to {target:.2%} "
        f"| seconds to what both reach, {shown} % |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, own in curves.items():
        epochs = [seconds for curve in own for seconds in curve.epochs]
        cells = [
            str(len(own[0].epochs)),
            _spread(epochs, "{:.3g}"),
            _spread([100 * curve.end.accuracy for curve in own], "{:.2f}"),
            _spread([curve.end.seconds for curve in own], "{:.4g}"),
            _spread([curve.seconds_to(target) for curve in own], "{:.4g}"),
            _spread([curve.seconds_to(accuracy) for curve, accuracy in zip(own, common)], "{:.4g}"),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, own in list(curves.items())[1:]:
        ratio = epoch_ratios(own, next(iter(curves.values())))
        low, high = ratio.spread
        lines += ["", f"{name}: an epoch takes {ratio.ratio:.3f} ({low:.3f} to {high:.3f}) of airbench's"]
    return "\n".join(lines)


def epoch_ratios(own: list[Curve], base: list[Curve]) -> Timing:
    """Seconds of a mean epoch, round by round, and their ratios to another's."""
    means = [[statistics.mean(curve.epochs) for curve in curves] for curves in (own, base)]
    return Timing("an epoch", means[0], [a / b for a, b in zip(*means)])


def _spread(values: list[float | None], form: str) -> str:
    """Median (least to most); "not reached" if one is None."""
    if not values or None in values:
        return "not reached" if values else ""
    text = form.format(statistics.median(values))
    if len(values) == 1:
        return text
    return f"{text} ({form.format(min(values))} to {form.format(max(values))})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="folder of CIFAR-10 or of images")
    parser.add_argument("--recipe", default="configs/cifar10-quick.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the recipe")
    parser.add_argument("--target", type=float, default=0.94, help="accuracy")
    parser.add_argument("--epochs", type=int, help="of both; else airbench's 9.9 and the recipe's own")
    parser.add_argument("--images", type=int, help="to train on; else all")
    parser.add_argument("--test-images", type=int)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--only", choices=("airbench", "recipe"), help="one of the two")
    parser.add_argument("--float32", action="store_true", help="on a CPU in place of bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.only != "recipe" and (lack := published_airbench.missing()):
        raise SystemExit(f"{parser.prog}: {lack}")
    if arguments.images is not None and arguments.images < BATCH:
        parser.error(f"--images {arguments.images}: expected a batch of airbench's, {BATCH}, at least")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    device, bf16 = torch.device(arguments.device), not arguments.float32
    images = read(arguments.data, arguments.images, arguments.test_images)
    words = [arguments.recipe, f"trainer.accelerator={device.type}", "trainer.devices=1", *arguments.set]
    words += ["trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"]
    words += [f"trainer.max_epochs={arguments.epochs}"] if arguments.epochs else []
    words += ["trainer.precision=32-true"] if device.type == "cpu" and arguments.float32 else []
    print(hardware(device), "\n", sep="")
    print(
        f"{len(images.train):,} training and {len(images.test):,} test images: {arguments.data or 'noise'}\n"
    )
    if device.type == "cpu":
        precision = "bfloat16 under autocast" if bf16 else "float32"
        print("airbench on a CPU:", published_airbench.ON_A_CPU.format(precision=precision), "\n")
    recipe = Path(arguments.recipe).stem
    with tempfile.TemporaryDirectory() as files:
        published_airbench.write_files(Path(files), images.train, images.test, images.classes)
        few = Images(
            images.train.select(torch.arange(BATCH)), images.test.select(torch.arange(100)), images.classes
        )

        def run(name: str, seed: int, warmup: bool = False) -> Curve:
            torch.manual_seed(seed)
            if name == "airbench94":
                return published_airbench.train(Path(files), device, bf16, arguments.epochs, warmup)
            if warmup:
                return train_recipe([*words, "trainer.max_epochs=1"], few, seed)
            return train_recipe(words, images, seed)

        names = {"airbench": ["airbench94"], "recipe": [recipe]}.get(arguments.only, ["airbench94", recipe])
        curves: dict[str, list[Curve]] = {name: [] for name in names}
        for name in names:
            run(name, 0, warmup=True)
        for turn in range(arguments.rounds):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                curves[name].append(curve := run(name, arguments.seed + turn))
                told = ", ".join(f"{p.seconds:.4g} s {100 * p.accuracy:.2f} %" for p in curve.points)
                print(f"- {name}: {told}", flush=True)
    print()
    print(table(curves, arguments.target))


if __name__ == "__main__":
    main()
