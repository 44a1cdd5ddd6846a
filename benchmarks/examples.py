"""Dataset examples for every convolution of a network in one pass, against the plain forward pass: at
most 1.05x.

    python -m benchmarks.examples [--device cuda] [--model resnet18] [--size 64] [--batch 128] [--batches 8]

Both go over the same images, random ones, whose units' top lists change as often as those of a shuffled data
set. On a CPU the examples' pass splits batches so that maps stay in the cache; the plain pass is timed whole,
and split alike. The lists begin empty, so that each image of the first batches enters many of them: over a
large split the cost is lower.
"""

from __future__ import annotations

import argparse

import torch
import torchvision
from torch import nn

from benchmarks.ratio import compare, hardware, table
from vitrine.analyses.examples import images_in_cache, top_examples

QUICK = "--rounds 3 --batches 2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18,squeezenet1_0", help="torchvision names")
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=128, help="images a batch")
    parser.add_argument("--batches", type=int, default=8, help="batches a pass")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print(hardware(options.device), end="\n\n")
    for name in options.model.split(","):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None).to(options.device).eval()
        layers = [layer for layer, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        shape = (options.batch, 3, options.size, options.size)
        loader = [
            (torch.rand(shape, device=options.device), torch.zeros(options.batch, dtype=torch.int64))
            for _ in range(options.batches)
        ]

        def plain(network: nn.Module = network, loader: list = loader) -> None:
            with torch.no_grad():
                for images, _ in loader:
                    network(images)

        def split(network: nn.Module = network, loader: list = loader) -> None:
            with torch.no_grad():
                for images, _ in loader:
                    for part in images.split(images_in_cache(images)):
                        network(part)

        def found(network: nn.Module = network, loader: list = loader, layers: list = layers) -> None:
            top_examples(network, loader, layers)

        units = sum(module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d))
        title = (
            f"{name}: {len(layers)} convolutions, {units} units; "
            f"{options.batches} batches of {options.batch} images of {options.size} pixels"
        )
        contestants = {"forward pass": plain, "split": split, "with dataset examples": found}
        print(table(compare(contestants, options.rounds, device=options.device), title), end="\n\n")


if __name__ == "__main__":
    main()
