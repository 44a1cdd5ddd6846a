"""Grad-CAM against the plain forward pass: at most 1.15x; beside captum, torchcam and grad-cam where
installed.

    python -m benchmarks.cam [--device cuda] [--model resnet18] [--size 128] [--batch 16]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.ratio import compare, hardware, table
from vitrine.analyses.cam import cam, grad_cam
from vitrine.analyses.evidence import last_spatial_layer

QUICK = "--rounds 5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18,mobilenet_v2", help="torchvision names, a comma between")
    parser.add_argument("--size", type=int, default=128, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(hardware(options.device), end="\n\n")
    for name in options.model.split(","):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None).to(options.device).eval()
        images = torch.rand(options.batch, 3, options.size, options.size, device=options.device)
        targets = torch.arange(options.batch, device=options.device)
        layer = last_spatial_layer(network, images)
        title = f"{name}: {options.batch} images of {options.size} pixels, at {layer}"
        timings = compare(contestants(network, images, targets, layer), options.rounds, device=options.device)
        print(table(timings, title), end="\n\n")


def contestants(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str
) -> dict[str, Callable[[], object]]:
    """The plain forward pass, ours, and each peer that is installed: all give [N, h, w] maps, not
    upsampled."""

    def plain() -> None:
        with torch.no_grad():
            network(images)

    found: dict[str, Callable[[], object]] = {
        "forward pass": plain,
        "Grad-CAM": lambda: grad_cam(network, images, targets, layer),
        "CAM, all classes": lambda: cam(network, images),
    }
    try:
        from captum.attr import LayerGradCam
    except ImportError:
        print("captum is not installed")
    else:
        oracle = LayerGradCam(network, network.get_submodule(layer))
        found["captum LayerGradCam"] = lambda: oracle.attribute(images, targets, relu_attributions=True)
    try:
        from torchcam.methods import GradCAM
    except ImportError:
        print("torchcam is not installed")
    else:

        def with_torchcam() -> None:
            with GradCAM(network, target_layer=layer) as extractor:
                # its hooks need a graph down to the images
                extractor(targets.tolist(), network(images.detach().requires_grad_()), normalized=False)

        found["torchcam GradCAM"] = with_torchcam
    try:
        from pytorch_grad_cam import GradCAM as Extractor
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError:
        print("grad-cam is not installed")
    else:

        def with_grad_cam() -> None:
            wanted = [ClassifierOutputTarget(int(target)) for target in targets]
            with Extractor(network, [network.get_submodule(layer)]) as extractor:
                extractor(images, wanted)

        found["grad-cam GradCAM (upsamples)"] = with_grad_cam
    return found


if __name__ == "__main__":
    main()
