"""Convert a folder of images, one folder per class, for `data.name=streaming`.

    python -m vitrine convert FOLDER OUT          of FOLDER/train/CLASS, val/ and test/, or FOLDER/CLASS
    python -m vitrine convert FOLDER OUT test_fraction=0.1
    python -m vitrine convert FOLDER OUT chunk_mib=16 skip_corrupt=true

Files are kept byte for byte, so nothing is compressed twice. Training images are shuffled once, so that every
chunk has images of many classes; those of validation and test keep their order. OUT can then be copied into
an object store as it is.
"""

import dataclasses
import json
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitrine.cli.help import command_help
from vitrine.core.home import expand_home
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.caching import image_files
from vitrine.datamodules.decoding import Decoding, UnreadableImage, to_tensor
from vitrine.datamodules.file_settings import DecodingSettings, checked_decoding
from vitrine.datamodules.files import drop_unreadable, map_in_threads, progress_bar
from vitrine.datamodules.folder import divide_folder
from vitrine.datamodules.image_folders import Samples
from vitrine.datamodules.splitting import SplitSettings
from vitrine.datamodules.streaming import INDEX, import_litdata

_MIB = 2**20
_SAMPLE = 2000  # images that mean and standard deviation are taken of


@dataclass
class Settings(DecodingSettings, SplitSettings):
    seed: int = setting(0, "of the order of the training images in the chunks", least=0, most=2**63 - 1)
    chunk_mib: int = setting(64, "size of a chunk, MiB", least=1)
    skip_corrupt: bool = setting(False, "leave unreadable images out (all are decoded), not stop at them")


def convert(folder: str | Path, out: str | Path, settings: Settings | None = None) -> dict[str, Any]:
    """Convert a folder of images, as data.root of `datamodules.folder`; `out` appears whole or not at all.

    Returns:
        The content of images.json: `classes`; `side` (pixels; None unless all images are squares of one
        size); `statistics` (channels -> mean and standard deviation of [0, 1] pixels, a list each); `splits`
        (for train, val and, if there is one, test: `labels`, and `chunks`, the number of images in each);
        `decoding` (the fields of Decoding, by which the data source reads the images, too).

    Raises:
        SettingError: `folder` is no such folder, or `out` exists or cannot be made.
        UnreadableImage: a file is no image, without `skip_corrupt`.
        OSError: the disk refused; nothing of `out` is left.
    """
    settings = settings or Settings()
    folder, out = (Path(expand_home(str(place))) for place in (folder, out))
    if out.exists():
        raise SettingError(str(out), "is there already, expected a folder to be created")
    decoding = checked_decoding(settings)
    classes, listed = divide_folder(str(folder), settings)
    if settings.skip_corrupt:
        readable = {
            name: drop_unreadable(image_files(samples, 1, decoding=decoding))
            for name, samples in listed.items()
        }
        listed = {name: list(zip(split.files, split.labels.tolist())) for name, split in readable.items()}
    for name, kind in (("train", "training"), ("val", "validation"), ("test", "test")):
        if not listed.get(name, True):
            raise SettingError(str(folder), f"gives no {kind} images")
    train = listed["train"]
    listed["train"] = train = [train[i] for i in permutation(len(train), settings.seed)]
    staged = out.with_name(f".{out.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)  # of a conversion that was cut off
    try:
        staged.mkdir(parents=True)
    except OSError as error:
        raise SettingError(str(out), f"cannot be made: {error.strerror}") from None
    try:
        sizes: set[tuple[int, int]] = set()
        splits = {
            name: _write_chunks(staged / name, samples, Path(folder), settings.chunk_mib, sizes, decoding)
            for name, samples in listed.items()
        }
        width, height = sizes.pop() if len(sizes) == 1 else (0, 0)
        index = {
            "classes": classes,
            "side": width if width and width == height else None,
            "statistics": _statistics(train[:_SAMPLE], decoding),
            "decoding": dataclasses.asdict(decoding),
            "splits": splits,
        }
        (staged / INDEX).write_text(json.dumps(index) + "\n", encoding="utf-8")
        os.rename(staged, out)
    except BaseException as error:
        shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, UnreadableImage):
            raise UnreadableImage(f"{error}; skip_corrupt=true leaves such images out") from error
        raise
    return index


def _write_chunks(
    split: Path,
    samples: Samples,
    folder: Path,
    chunk_mib: int,
    sizes: set[tuple[int, int]],
    decoding: Decoding,
) -> dict[str, list[int]]:
    """Write chunks of images and return their part of images.json; `sizes` gets two of theirs at most."""
    import_litdata()
    from litdata.streaming import Cache

    split.mkdir(parents=True)
    cache = Cache(str(split), chunk_bytes=chunk_mib * _MIB)
    for i, (file, label) in enumerate(progress_bar(samples, f"converting {split.name}", len(samples))):
        if len(sizes) < 2:
            sizes.add(decoding.size(file, file))
        cache[i] = {"image": file.read_bytes(), "label": label, "name": str(file.relative_to(folder))}
    cache.done()
    cache.merge()
    chunks = json.loads((split / "index.json").read_text(encoding="utf-8"))["chunks"]
    labels = [label for _, label in samples]
    return {"labels": labels, "chunks": [chunk["chunk_size"] for chunk in chunks]}


def _statistics(samples: Samples, decoding: Decoding) -> dict[str, list[list[float]]]:
    """Mean and standard deviation of [0, 1] pixels, each image counting alike: in grey and in colour, or of
    the other number of channels."""
    statistics = {}
    for channels in (1, 3) if decoding.channels in (1, 3) else (decoding.channels,):
        read = dataclasses.replace(decoding, channels=channels)
        moments = map_in_threads(partial(_moments, read), (file for file, _ in samples))
        mean, squares = torch.stack(list(progress_bar(moments, "statistics", len(samples)))).mean(0)
        statistics[str(channels)] = [mean.tolist(), (squares - mean**2).clamp(min=1e-6).sqrt().tolist()]
    return statistics


def _moments(decoding: Decoding, file: Path) -> torch.Tensor:
    """Mean and mean square of an image's pixels, [2, channels]."""
    pixels = to_tensor(decoding.decode(file, file)).permute(1, 2, 0).reshape(-1, decoding.channels)
    pixels = pixels.double() / 255
    return torch.stack([pixels.mean(0), pixels.square().mean(0)])


def main(words: list[str], settings: Settings) -> None:
    if not words:
        print(command_help(__doc__, Settings))
        return
    started = time.monotonic()
    if len(words) != 2:
        raise SettingError(" ".join(words), "expected FOLDER OUT")
    index, out = convert(*words, settings), Path(words[1])
    counts = {name: len(split["labels"]) for name, split in index["splits"].items()}
    chunks = sum(len(split["chunks"]) for split in index["splits"].values())
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 2**20
    test = f" and {counts['test']:,} test" if "test" in counts else ""
    images = f"{counts['train']:,} training and {counts['val']:,} validation{test} images"
    took = f"{size:,.1f} MiB, in {time.monotonic() - started:.1f} s"
    print(f"{images} of {len(index['classes'])} classes: {chunks} chunks, {took}")
    print(shlex.join(["python", "train.py", "data.name=streaming", f"data.root={out}"]))
