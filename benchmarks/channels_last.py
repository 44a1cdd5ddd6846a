"""A training step with model.channels_last=true against one without, on the same batch, in turn.

python -m benchmarks.channels_last [--device cpu] [--rounds 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from benchmarks.ratio import compare, hardware
from vitrine.modules import Classifier, OptimizerSettings, load_network, record_of
from vitrine.modules.objectives.standard import Standard

CASES = [  # network, pixels a side, images a batch
    ("resnet20", 32, 128),
    ("convnet", 64, 128),
    ("resnet18", 224, 8),
    ("squeezenet1_0", 224, 8),
    ("vit_b_16", 224, 2),
]


def step(name: str, size: int, count: int, channels_last: bool, device: torch.device) -> Callable[[], None]:
    torch.manual_seed(0)
    network = load_network(name, classes=10, image_size=size).train().to(device)
    settings = OptimizerSettings("sgd", schedule="constant", lr=1e-3)
    classes = record_of(network).classes
    classifier = Classifier(network, Standard(), settings, classes, channels_last=channels_last)
    optimizer, _ = classifier.build_optimizer(1000)
    batch = (torch.rand(count, 3, size, size, device=device), torch.arange(count, device=device) % 10)

    def run() -> None:
        optimizer.zero_grad()
        classifier.training_step(batch, 0).backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=9)
    how = parser.parse_args()
    device = torch.device(how.device)
    print(hardware(device), "\n", sep="")
    print("| network | batch | ms a step, plain | channels last | ratio, median | quartiles |")
    print("|---|---|---:|---:|---:|---:|")
    for name, size, count in CASES:
        steps = {str(last): step(name, size, count, last, device) for last in (False, True)}
        plain, last = compare(steps, how.rounds, device=device)
        batch, (low, high) = f"{count} x 3 x {size} x {size}", last.spread
        times = f"{1000 * plain.median:.0f} | {1000 * last.median:.0f}"
        print(f"| {name} | {batch} | {times} | {last.ratio:.2f} | {low:.2f} to {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
