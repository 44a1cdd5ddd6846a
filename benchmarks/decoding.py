"""Photographs in JPEG files to float batches of 224 pixels: `folder` and `streaming` beside torchvision.

    python -m benchmarks.decoding [--photographs FOLDER_OR_TAR] [--images 600] [--workers 2] [--rounds 5]

Photographs are resized to a shorter side of 375 pixels and written as JPEG (quality 90) into a temporary
folder; without `--photographs` they are drawn: smooth noise. Each contestant yields an epoch of float batches
of 64 in [0, 1], from worker processes; an epoch is timed whole, workers starting included. For training a
random resized crop and a flip, for validation the shorter side resized to 256 and the middle cropped.

"decoding alone" makes RGB pixels of each file by torchvision and returns none of them: the floor for what
decodes whole files. Wanted: `folder` no slower than PIL's transforms in as many workers.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import io, transforms
from torchvision.transforms import v2

from benchmarks.ratio import compare, hardware, table
from vitrine.cli.convert import convert
from vitrine.datamodules import source
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.base import ImageDataModule

QUICK = "--rounds 1 --images 128"
BATCH, SIZE, RESIZE, SCALE, SHORTER = 64, 224, 256, 0.08, 375
CLASSES = 4  # folders that the photographs are put into, in turn


class Files(Dataset):
    """What most training scripts have: a file's image, transformed; and a label."""

    def __init__(self, files: list[Path], decode: Callable[[Path], object], transform: Callable):
        self.files, self.decode, self.transform = files, decode, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.decode(self.files[index])), 0


def by_pillow(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def by_torchvision(file: Path) -> Tensor:
    return io.decode_jpeg(io.read_file(str(file)), mode=io.ImageReadMode.RGB)


def pillow_transform(train: bool) -> Callable:
    crop = [transforms.RandomResizedCrop(SIZE, (SCALE, 1)), transforms.RandomHorizontalFlip()]
    middle = [transforms.Resize(RESIZE), transforms.CenterCrop(SIZE)]
    return transforms.Compose([*(crop if train else middle), transforms.ToTensor()])


def tensor_transform(train: bool) -> Callable:
    crop = [v2.RandomResizedCrop(SIZE, (SCALE, 1)), v2.RandomHorizontalFlip()]
    middle = [v2.Resize(RESIZE), v2.CenterCrop(SIZE)]
    return v2.Compose([*(crop if train else middle), v2.ToDtype(torch.float32, scale=True)])


def nothing(image: object) -> Tensor:
    return torch.zeros(1)


def theirs(files: Dataset, train: bool, workers: int, device: torch.device) -> Iterator[Tensor]:
    loader = DataLoader(files, BATCH, shuffle=train, num_workers=workers, drop_last=train)
    for images, _ in loader:
        yield images.to(device)


def ours(data: ImageDataModule, train: bool, device: torch.device) -> Iterator[Tensor]:
    for batch in data.train_dataloader() if train else data.val_dataloader():
        parts = {name: getattr(batch, name).to(device) for name in ("images", "indices", "seed")}
        yield data.preprocess(batch._replace(**parts), train=train).images


def exhausted(batches: Callable[[], Iterator[Tensor]]) -> None:
    for _ in batches():
        pass


def opened(name: str, root: Path, workers: int) -> ImageDataModule:
    kind = source(name)
    settings = kind.Settings(
        root=str(root), image_size=SIZE, resize=RESIZE, batch_size=BATCH, workers=workers, cache="never"
    )
    settings.augment = Augment(random_resized_crop=SCALE, flip=True)
    data = kind(settings)
    data.setup()
    return data


def originals(place: Path | None, count: int) -> Iterator[Image.Image]:
    """`count` photographs of a folder or an archive, or drawn ones."""
    generator = torch.Generator().manual_seed(0)
    if place is None:
        for _ in range(count):
            levels = sum(
                torch.nn.functional.interpolate(
                    torch.randn(1, 3, 3 * 2**k, 4 * 2**k, generator=generator) / 2**k,
                    (375, 500),
                    mode="bicubic",
                )
                for k in range(7)
            )
            yield v2.functional.to_pil_image((levels[0] / 4 + 0.5).clamp(0, 1))
    elif place.is_dir():
        for file in sorted(place.rglob("*.jpg"))[:count]:
            yield by_pillow(file)
    else:
        with tarfile.open(place) as archive:
            for _ in range(count):
                while (member := archive.next()) is not None and not member.name.endswith(".jpg"):
                    pass
                if member is None:
                    return
                yield Image.open(archive.extractfile(member)).convert("RGB")


def write(images: Iterator[Image.Image], root: Path) -> list[Path]:
    """The photographs as JPEG files of train/, and the same as those of val/."""
    files = []
    for number, image in enumerate(images):
        scale = SHORTER / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
        file = root / "train" / str(number % CLASSES) / f"{number:05}.jpg"
        same = root / "val" / file.relative_to(root / "train")
        for folder in (file.parent, same.parent):
            folder.mkdir(parents=True, exist_ok=True)
        image.save(file, quality=90)
        same.hardlink_to(file)
        files.append(file)
    return files


def contestants(root: Path, files: list[Path], workers: int, train: bool, device: torch.device) -> dict:
    plain = partial(theirs, train=train, workers=workers, device=device)
    vitrine = partial(ours, train=train, device=device)
    sources = {
        "PIL, torchvision.transforms": partial(plain, Files(files, by_pillow, pillow_transform(train))),
        "torchvision.io, transforms.v2": partial(
            plain, Files(files, by_torchvision, tensor_transform(train))
        ),
        "data.name=folder": partial(vitrine, opened("folder", root, workers)),
        "data.name=streaming": partial(vitrine, opened("streaming", root / "chunks", workers)),
        "decoding alone": partial(plain, Files(files, by_torchvision, nothing)),
    }
    return {name: partial(exhausted, batches) for name, batches in sources.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, help="folder of .jpg files, or a .tar of them")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = write(originals(arguments.photographs, arguments.images), root)
        size = sum(file.stat().st_size for file in files) / len(files) / 1000
        convert(root, root / "chunks")
        print(hardware(device), f"{arguments.workers} workers", sep="; ")
        for train in (True, False):
            timings = compare(
                contestants(root, files, arguments.workers, train, device), arguments.rounds, device=device
            )
            images = len(files) // BATCH * BATCH if train else len(files)
            title = f"{images:,} files of {size:.0f} kB for {'training' if train else 'validation'}"
            print("", table(timings, title), "", sep="\n")
            for timing in timings:
                print(f"{timing.name}: {images / timing.median:.0f} images a second")


if __name__ == "__main__":
    main()
