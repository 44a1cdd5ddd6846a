"""Augmentation of a batch on the device, against torchvision.transforms.v2 image by image, as in a worker.

    python -m benchmarks.augmentation [--rounds 5] [--sizes 32 224] [--batch 128] [--device cpu]

Both begin with bytes and end with floats, random numbers included. torchvision's mixup and cutmix are of a
batch, too. Images are smooth noise: no operation looks at what they show, but some at their levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.ratio import compare, hardware
from vitrine.datamodules.augment import Augment, augment
from vitrine.datamodules.mixing import mix

QUICK = "--rounds 1 --sizes 32"
CLASSES = 100
# what is set here -> torchvision's transform of an image, or of a batch where it mixes images
OPTIONS: dict[str, tuple[Augment, Callable]] = {
    "crop and flip": (
        Augment(crop=4, flip=True),
        lambda size: v2.Compose([v2.RandomCrop(size, 4), v2.RandomHorizontalFlip()]),
    ),
    "RandAugment, 2 operations": (Augment(randaugment=2), lambda _: v2.RandAugment()),
    "TrivialAugmentWide": (Augment(trivialaugment=True), lambda _: v2.TrivialAugmentWide()),
    "AugMix": (Augment(augmix=True), lambda _: v2.AugMix()),
    "random erasing": (Augment(erasing=0.5), lambda _: v2.RandomErasing(0.5)),
    "mixup": (Augment(mixup=0.2), lambda _: v2.MixUp(alpha=0.2, num_classes=CLASSES)),
    "cutmix": (Augment(cutmix=1.0), lambda _: v2.CutMix(alpha=1.0, num_classes=CLASSES)),
}


def ours(images: Tensor, labels: Tensor, settings: Augment) -> Tensor:
    indices, seed = torch.arange(len(images), device=images.device), torch.tensor(1, device=images.device)
    augmented = augment(images, indices, seed, settings)
    if not settings.mixes:
        return augmented
    alphas = {"mixup_alpha": settings.mixup, "cutmix_alpha": settings.cutmix}
    return mix(augmented, labels, indices, classes=CLASSES, **alphas)[0]


def theirs(images: Tensor, labels: Tensor, settings: Augment, transform: Callable) -> Tensor:
    if settings.mixes:
        return transform(images.float() / 255, labels)[0]
    return torch.stack([transform(image).float() / 255 for image in images])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(
        hardware(device),
        f"\n\nImages a second, batches of {arguments.batch}, median (quartiles of the ratio)\n",
    )
    print("| | pixels | here | torchvision | times as fast |\n|---|---:|---:|---:|---:|")
    for size in arguments.sizes:
        noise = torch.rand(arguments.batch, 3, size // 8, size // 8)
        smooth = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
        images = smooth.mul(255).round().to(torch.uint8).to(device)
        labels = (torch.arange(arguments.batch) % CLASSES).to(device)
        for name, (settings, transform) in OPTIONS.items():
            contestants = {
                "here": partial(ours, images, labels, settings),
                "torchvision": partial(theirs, images, labels, settings, transform(size)),
            }
            here, there = compare(contestants, arguments.rounds, device=device)
            speeds = [f"{arguments.batch / timing.median:,.0f}" for timing in (here, there)]
            low, high = there.spread
            ratio = f"{there.ratio:.2f} ({low:.2f} to {high:.2f})"
            print(f"| {name} | {size} | {' | '.join(speeds)} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
