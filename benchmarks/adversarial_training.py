"""A training step of each adversarial objective beside one written by hand.

    python -m benchmarks.adversarial_training [--network convnet] [--image-size 64] [--batch-size 128]
    [--rounds 9] [--only pgd]

A step is: find the adversarial images, forward and backward pass on them, a step of SGD. Written by hand it
is ten passes with gradients by the pixels alone, in eval mode, and nothing else; TRADES by hand computes its
clean logits once, before the steps. Fast's guard, which looks every 50 steps, is off.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ratio import compare, hardware, table
from vitrine.modules import OBJECTIVES, load_network

QUICK = "--rounds 2 --only pgd --batch-size 64"
WANTED = 1.05
EPS, STEP, STEPS = 8 / 255, 2 / 255, 10


def climb(
    network: nn.Module,
    images: Tensor,
    start: Tensor,
    steps: int,
    step: float,
    loss: Callable[[Tensor], Tensor],
) -> Tensor:
    """The loop that everybody writes."""
    network.eval()
    network.requires_grad_(False)
    lower, upper = (images - EPS).clamp(min=0), (images + EPS).clamp(max=1)
    points = start.clamp(0, 1)
    for _ in range(steps):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(network(points)), points)
        points = torch.clamp(points.detach() + step * gradient.sign(), lower, upper)
    network.requires_grad_(True)
    network.train()
    return points


def noisy(images: Tensor) -> Tensor:
    return images + (2 * torch.rand_like(images) - 1) * EPS


def pgd(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    worst = climb(
        network, images, noisy(images), STEPS, STEP, lambda z: F.cross_entropy(z, labels, reduction="sum")
    )
    return F.cross_entropy(network(worst), labels)


def fast(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    worst = climb(
        network, images, noisy(images), 1, 1.25 * EPS, lambda z: F.cross_entropy(z, labels, reduction="sum")
    )
    return F.cross_entropy(network(worst), labels)


def trades(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        target = network(images).softmax(1)
    start = images + 0.001 * torch.randn_like(images)
    worst = climb(
        network, images, start, STEPS, STEP, lambda z: F.kl_div(z.log_softmax(1), target, reduction="sum")
    )
    logits = network(images)
    around = F.kl_div(network(worst).log_softmax(1), logits.softmax(1), reduction="batchmean")
    return F.cross_entropy(logits, labels) + 6 * around


BY_HAND = {"pgd": pgd, "fast": fast, "trades": trades}
SETTINGS = {"fast": {"guard_every": 0}}


def stepping(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Callable[[], None]:
    """A step of training a copy of the network."""
    network = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss(network).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--network", default="preact_resnet18" if on_gpu else "convnet")
    parser.add_argument("--image-size", type=int, default=32 if on_gpu else 64)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=list(BY_HAND), default=None)
    arguments = parser.parse_args()

    device, size = arguments.device, arguments.image_size
    torch.manual_seed(0)
    network = load_network(arguments.network, classes=10).to(device)
    images = torch.rand(arguments.batch_size, 3, size, size, device=device)
    labels = torch.arange(arguments.batch_size, device=device) % 10
    print(hardware(device), "\n", sep="")
    for name in [arguments.only] if arguments.only else BY_HAND:
        objective, by_hand = OBJECTIVES[name](**SETTINGS.get(name, {})), BY_HAND[name]
        contestants = {
            f"{name}, by hand": stepping(network, lambda net, f=by_hand: f(net, images, labels)),
            f"objective.name={name}": stepping(network, lambda net, o=objective: o(net, images, labels)[0]),
        }
        timings = compare(contestants, arguments.rounds, device=device)
        shape = f"batches of {arguments.batch_size} x 3 x {size} x {size}"
        print(table(timings, f"One training step of {arguments.network}, {shape}"))
        print(f"\n{name}: {timings[1].ratio:.3f} of the step by hand (wanted: at most {WANTED})\n")


if __name__ == "__main__":
    main()
