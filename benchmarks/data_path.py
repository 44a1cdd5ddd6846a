"""Pixels to float batches: this project's in-memory path against DataLoader with PIL transforms.

    python -m benchmarks.data_path [--rounds 5] [--images 10000] [--workers 0 2] [--device cpu]

Both crop at random after padding by 4 pixels, mirror, and yield float batches of 128 at CIFAR size on the
device, from pixels that are random numbers (neither path looks at them). An epoch is timed whole, workers
starting included, as in training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.ratio import compare, hardware, table
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.memory import InMemory

QUICK = "--rounds 2 --images 4000"
BATCH = 128


class Noise(ImageDataModule):
    """Random pixels at CIFAR size."""

    def __init__(self, images: Tensor):
        super().__init__(DataSettings(batch_size=BATCH, augment=Augment(crop=4, flip=True)))
        self.images = images

    def load(self) -> tuple[InMemory, InMemory]:
        split = InMemory(self.images, torch.zeros(len(self.images), dtype=torch.int64))
        return split, split


class Pictures(Dataset):
    """The same as most training scripts have it: arrays in memory, PIL transforms one image at a time."""

    def __init__(self, images: Tensor):
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def ours(data: Noise, device: torch.device) -> Iterator[Tensor]:
    for batch in data.train_dataloader():
        moved = batch._replace(
            images=batch.images.to(device), indices=batch.indices.to(device), seed=batch.seed.to(device)
        )
        yield data.preprocess(moved, train=True).images


def theirs(pictures: Pictures, workers: int, device: torch.device) -> Iterator[Tensor]:
    loader = DataLoader(pictures, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    for images, _ in loader:
        yield images.to(device)


def exhausted(batches: Iterator[Tensor]) -> None:
    for _ in batches:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the DataLoader")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    images = torch.randint(0, 256, (arguments.images, 3, 32, 32), dtype=torch.uint8)
    data, pictures = Noise(images), Pictures(images)
    data.setup()
    contestants = {"in memory, batched": lambda: exhausted(ours(data, device))}
    for workers in arguments.workers:
        name = f"DataLoader, PIL, {workers} workers"
        contestants[name] = partial(lambda workers: exhausted(theirs(pictures, workers, device)), workers)
    timings = compare(contestants, arguments.rounds, device=device)
    print(hardware(device), "\n", sep="")
    print(table(timings, f"An epoch of {arguments.images:,} images of 3 x 32 x 32, batches of {BATCH}"))
    fastest = min(timing.ratio for timing in timings[1:])
    print(f"\nin memory is {fastest:.1f} times as fast as the faster DataLoader (wanted: 3)")


if __name__ == "__main__":
    main()
