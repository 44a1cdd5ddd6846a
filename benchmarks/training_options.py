"""A training step of the recipes as they are, and with what may make it faster: channels_last, compile, bf16.

    python -m benchmarks.training_options [--recipes cifar10 ...] [--images N] [--device cpu] [--rounds 7]

The same network, weights, objective and optimizer on the same batch, each way in turn, so that ratios are of
one run: plain (float32), `model.channels_last=true`, `trainer.precision=bf16-mixed`, `model.compile=true`,
and together. What compiling takes stands apart: the seconds of its first step. A batch has as many images as
the recipe's on a GPU, on a CPU fewer. All of a network trains, also of `finetune`, and from scratch.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

from benchmarks.ratio import compare, hardware
from vitrine.config.loading import load
from vitrine.modules import OBJECTIVES, Classifier, load_network, record_of

QUICK = "--recipes cifar10 --ways bf16 --images 16 --rounds 3"
CONFIGS = Path(__file__).parent.parent / "configs"
RECIPES = {  # name: pixels a side, classes, images a batch on a CPU
    "cifar10": (32, 10, 64),
    "cifar10-resnet18": (32, 10, 16),
    "cifar10-fast": (32, 10, 8),
    "cifar10-trivialaugment": (32, 10, 4),
    "cifar10-vit": (32, 10, 32),
    "signs": (64, 43, 64),
    "imagenet": (224, 1000, 8),
    "finetune": (224, 10, 8),
}


@dataclass(frozen=True)
class Way:
    """How a step is computed."""

    channels_last: bool = False
    bf16: bool = False
    compile: bool = False


WAYS = {
    "plain": Way(),
    "channels last": Way(channels_last=True),
    "bf16": Way(bf16=True),
    "channels last, bf16": Way(channels_last=True, bf16=True),
    "compile": Way(compile=True),
    "compile, bf16": Way(bf16=True, compile=True),
    "all three": Way(True, True, True),
}


def build_step(recipe: str, count: int | None, way: Way, device: torch.device) -> Callable[[], None]:
    """A training step of a recipe on random images: forward, backward, optimizer."""
    (size, classes, few), settings = RECIPES[recipe], load([str(CONFIGS / f"{recipe}.yaml")])
    count = count or (few if device.type == "cpu" else settings.data.batch_size)
    model, chosen = settings.model, OBJECTIVES[settings.objective.name]
    torch.manual_seed(0)
    options = {"image_size": size, "stem": model.stem, "options": model.options}
    network = load_network(model.name, classes=classes, **options).train().to(device)
    objective = chosen(**{f.name: getattr(settings.objective, f.name) for f in dataclasses.fields(chosen)})
    names, channels_last = record_of(network).classes, way.channels_last
    classifier = Classifier(
        network, objective, settings.optimizer, names, way.compile, channels_last=channels_last
    )
    optimizer, _ = classifier.build_optimizer(1000)
    batch = (torch.rand(count, 3, size, size, device=device), torch.arange(count, device=device) % classes)
    precision = MixedPrecision("bf16-mixed", device.type) if way.bf16 else Precision()

    def step() -> None:
        optimizer.zero_grad()
        with precision.train_step_context():
            loss = classifier.training_step(batch, 0)
        loss.backward()
        optimizer.step()

    return step


def seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="beside plain")
    parser.add_argument("--images", type=int, help="a batch")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    device, ways = torch.device(arguments.device), [way for way in arguments.ways if way != "plain"]
    print(hardware(device), "\n", sep="")
    print("ratio to plain, median (quartiles); in the last column what compiling takes, seconds\n")
    print("| recipe | ms a step, plain |", *(f" {way} |" for way in ways), " first compiled steps |", sep="")
    print("|---|---:|", *("---:|" for _ in ways), "---:|", sep="")
    for recipe in arguments.recipes:
        torch.compiler.reset()
        steps = {way: build_step(recipe, arguments.images, WAYS[way], device) for way in ["plain", *ways]}
        first = [f"{seconds(steps[way]):.0f}" for way in ways if WAYS[way].compile]
        plain, *others = compare(steps, arguments.rounds, device=device)
        cells = [f" {t.ratio:.2f} ({t.spread[0]:.2f} to {t.spread[1]:.2f}) |" for t in others]
        line = f"| {recipe} | {1000 * plain.median:.0f} |"
        print(line, *cells, f" {', '.join(first)} |", sep="", flush=True)


if __name__ == "__main__":
    main()
