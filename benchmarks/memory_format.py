"""Passes of a network as analyses have it, with channels innermost in memory, against torch's own order.

    python -m benchmarks.memory_format [--networks convnet resnet18 ...] [--size 64] [--batches 8 64]
        [--rounds 7] [--cpu-time]

Of a forward pass, and of a forward pass with a backward pass to the pixels alone: the ratio of the time,
median and quartiles over the rounds. Images and kernels are arranged by `arrange_images`; images come in
torch's own order each time, and are arranged anew.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.ratio import Timing, compare, hardware
from vitrine.core.memory_format import arrange_images
from vitrine.modules import load_network

QUICK = "--networks convnet mobilenet_v2 --batches 8 --rounds 3"
NETWORKS = ["convnet", "resnet20", "resnet18", "resnet50", "squeezenet1_0", "vgg11_bn", "mobilenet_v2"]
NETWORKS += ["efficientnet_b0", "densenet121", "googlenet", "convnext_tiny", "shufflenet_v2_x1_0"]
NETWORKS += ["vit_b_16", "swin_t"]


def forward(network: nn.Module, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            network(images)

    return run


def to_pixels(network: nn.Module, images: Tensor) -> Callable[[], object]:
    def run() -> None:
        pixels = images.clone().requires_grad_()
        torch.autograd.grad(network(pixels).sum(), pixels)

    return run


def figures(timing: Timing) -> str:
    low, high = timing.spread
    return f"{timing.ratio:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME", help="of model.name")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 64], help="images of a batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor seconds, for OMP_NUM_THREADS=1 on a busy machine"
    )
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    print(hardware(), end="\n\n")
    print(f"| network, {options.size} pixels | images | ms, forward | ratio | ms, to the pixels | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in options.networks:
        torch.manual_seed(0)
        network = load_network(name, classes=10, image_size=options.size).eval().requires_grad_(False)
        arranged = copy.deepcopy(network)
        arrange_images(arranged, torch.rand(1, 3, options.size, options.size))
        for count in options.batches:
            images, cells = torch.rand(count, 3, options.size, options.size), []
            for kind in (forward, to_pixels):
                both = {"own": kind(network, images), "arranged": kind(arranged, images)}
                plain, other = compare(both, options.rounds, clock=clock)
                cells.append(f"{1000 * plain.median:.0f} | {figures(other)}")
            print(f"| {name} | {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
