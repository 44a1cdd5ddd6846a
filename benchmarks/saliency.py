"""Input gradient and guided backprop, beside a forward and input-only backward pass by hand, and captum.

    python -m benchmarks.saliency [--device cuda] [--network resnet18] [--size 224] [--batch 8] [--rounds 15]

Claims: each at most 1.05x of the passes by hand; beside captum's time for the same map. Captum's
`GuidedBackprop` wants each ReLU to be a module of its own, and torchvision's networks reuse theirs: it is
timed, not believed.
"""

from __future__ import annotations

import argparse
import warnings

import torch
import torchvision
from captum.attr import Deconvolution, GuidedBackprop, Saliency

from benchmarks.ratio import compare, hardware, table
from vitrine.analyses.saliency import deconvnet, guided_backprop, input_gradient

QUICK = "--rounds 3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", default="resnet18", help="one of torchvision's")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Setting backward hooks")

    torch.manual_seed(0)
    network = torchvision.models.get_model(options.network, weights=None).to(options.device).eval()
    images = torch.rand(options.batch, 3, options.size, options.size, device=options.device)
    targets = torch.arange(options.batch, device=options.device)

    def by_hand() -> torch.Tensor:
        pixels = images.clone().requires_grad_()
        score = network(pixels).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(score, pixels)[0]

    def captum(kind: type, **how: bool) -> torch.Tensor:
        return kind(network).attribute(images.clone().requires_grad_(), target=targets, **how)

    print(f"{options.network}, {options.batch} images of {options.size} pixels; {hardware(options.device)}")
    timings = compare(
        {
            "forward and input-only backward by hand": by_hand,
            "input gradient": lambda: input_gradient(network, images, targets, of="logit"),
            "guided backprop": lambda: guided_backprop(network, images, targets),
            "deconvnet": lambda: deconvnet(network, images, targets),
            "captum Saliency": lambda: captum(Saliency, abs=False),
            "captum GuidedBackprop": lambda: captum(GuidedBackprop),
            "captum Deconvolution": lambda: captum(Deconvolution),
        },
        rounds=options.rounds,
        device=options.device,
    )
    print(table(timings))
    seconds = {t.name: t.median for t in timings}
    for ours, theirs in (
        ("input gradient", "captum Saliency"),
        ("guided backprop", "captum GuidedBackprop"),
        ("deconvnet", "captum Deconvolution"),
    ):
        print(f"{ours}: {seconds[ours] / seconds[theirs]:.2f}x of {theirs}")


if __name__ == "__main__":
    main()
