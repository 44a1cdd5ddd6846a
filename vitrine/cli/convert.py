"""Convert a folder of images, a folder a class, for `data.name=streaming`.

    python -m vitrine convert FOLDER OUT          of FOLDER/train/CLASS and val/ or test/, or FOLDER/CLASS
    python -m vitrine convert FOLDER OUT chunk_mib=16 skip_corrupt=true

Files are kept byte for byte, so nothing is compressed twice. Training images are shuffled once, so that every
chunk has images of many classes; validation images keep their order. OUT can then be copied into an object
store as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.files import UnreadableImage, decode_image, map_in_threads, progress_bar
from vitrine.datamodules.folder import Samples, list_images
from vitrine.datamodules.streaming import INDEX, import_litdata

_MIB = 2**20
_SAMPLE = 2000  # images that mean and standard deviation are taken of


@dataclass(frozen=True)
class ConvertSettings:
    val_fraction: float = setting(
        0.1, "share held out for validation where there is no val/ or test/", above=0, most=0.9
    )
    split_seed: int = setting(0, "which images are held out; as for data.name=folder", least=0)
    seed: int = setting(0, "of the order of the training images in the chunks", least=0)
    chunk_mib: int = setting(64, "size of a chunk, MiB", least=1)
    skip_corrupt: bool = setting(False, "leave unreadable images out (all are decoded), not stop at them")


def convert(folder: str | Path, out: str | Path, how: ConvertSettings | None = None) -> dict[str, Any]:
    """Convert a folder of images; `out` appears whole or not at all.

    Args:
        folder: as data.root of `datamodules.folder`.
        out: is made; must not be there.

    Returns:
        What images.json says: `classes`, `side` (pixels, or None where images are not squares of one size),
        `statistics` (channels -> mean and standard deviation of [0, 1] pixels, a list each), `splits` (for
        train and val: `labels`, and `chunks`, how many images each has).

    Raises:
        SettingError: the folder is none, or `out` is there.
        UnreadableImage: a file is no image, and is not to be skipped.
        OSError: the disk refused; nothing of `out` is left.
    """
    how, out = how or ConvertSettings(), Path(out)
    if out.exists():
        raise SettingError(str(out), "is there already, expected a folder to be made")
    classes, train, val = list_images(str(folder), how.val_fraction, how.split_seed)
    if how.skip_corrupt:
        train, val = _drop_unreadable(train, "checking train"), _drop_unreadable(val, "checking val")
    for name, samples in (("training", train), ("validation", val)):
        if not samples:
            raise SettingError(str(folder), f"gives no {name} images")
    shuffled = permutation(len(train), how.seed)
    train = [train[i] for i in shuffled]
    staged = out.with_name(f".{out.name}.partial")
    shutil.rmtree(staged, ignore_errors=True)  # of a conversion that was cut off
    try:
        splits, sides = {}, set()
        for name, samples in (("train", train), ("val", val)):
            splits[name], found = _write_chunks(staged / name, samples, Path(folder), how.chunk_mib, name)
            sides |= found
        side = sides.pop() if len(sides) == 1 else (0, 0)
        index = {
            "classes": classes,
            "side": side[0] if side[0] == side[1] and side[0] else None,
            "statistics": _statistics(train[:_SAMPLE]),
            "splits": splits,
        }
        (staged / INDEX).write_text(json.dumps(index) + "\n", encoding="utf-8")
        os.rename(staged, out)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return index


def _write_chunks(
    place: Path, samples: Samples, folder: Path, chunk_mib: int, name: str
) -> tuple[dict[str, list[int]], set[tuple[int, int]]]:
    """Chunks of images; what images.json says of them, and the images' sizes, two of them at most."""
    import_litdata()
    from litdata.streaming import Cache

    place.mkdir(parents=True)
    cache, sizes = Cache(str(place), chunk_bytes=chunk_mib * _MIB), set()
    for i, (file, label) in enumerate(progress_bar(samples, f"converting {name}", len(samples))):
        if len(sizes) < 2:
            sizes.add(_size(file))
        cache[i] = {"image": file.read_bytes(), "label": label, "name": str(file.relative_to(folder))}
    cache.done()
    cache.merge()
    chunks = json.loads((place / "index.json").read_text(encoding="utf-8"))["chunks"]
    labels = [label for _, label in samples]
    return {"labels": labels, "chunks": [chunk["chunk_size"] for chunk in chunks]}, sizes


def _size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            return image.size
    except Exception as error:
        hint = "skip_corrupt=true leaves such images out"
        raise UnreadableImage(f"{file} cannot be read as an image ({error}); {hint}") from error


def _drop_unreadable(samples: Samples, description: str) -> Samples:
    tried = progress_bar(
        map_in_threads(_is_readable, (file for file, _ in samples)), description, len(samples)
    )
    return [sample for sample, good in zip(samples, tried) if good]


def _is_readable(file: Path) -> bool:
    try:
        decode_image(file, file, 3)
    except UnreadableImage as error:
        print(f"left out: {error}", file=sys.stderr)
        return False
    return True


def _statistics(samples: Samples) -> dict[str, list[list[float]]]:
    """Mean and standard deviation of [0, 1] pixels, in grey and in colour, each image counting alike."""
    found = {}
    for channels in (1, 3):
        moments = map_in_threads(partial(_moments, channels), (file for file, _ in samples))
        mean, squares = torch.stack(list(progress_bar(moments, "statistics", len(samples)))).mean(0)
        found[str(channels)] = [mean.tolist(), (squares - mean**2).clamp(min=1e-6).sqrt().tolist()]
    return found


def _moments(channels: int, file: Path) -> torch.Tensor:
    """Mean and mean square of an image's pixels, [2, channels]."""
    pixels = torch.frombuffer(bytearray(decode_image(file, file, channels).tobytes()), dtype=torch.uint8)
    pixels = pixels.view(-1, channels).double() / 255
    return torch.stack([pixels.mean(0), pixels.square().mean(0)])


def main(arguments: Sequence[str]) -> None:
    from vitrine import config  # not above: whoever converts in a program needs no settings

    if {"-h", "--help"} & set(arguments) or not arguments:
        from vitrine.cli.command_line import fields_help

        print("\n".join([__doc__.strip(), "", "Settings: key=default   meaning [type]"]))
        print("\n".join(fields_help(ConvertSettings)))
        return
    words = [a for a in arguments if "=" not in a]
    if len(words) != 2:
        raise SettingError(" ".join(words), "expected FOLDER OUT")
    from vitrine.core.settings import check

    how = config.parse_settings(ConvertSettings, [a for a in arguments if "=" in a])
    check(how)
    started = time.monotonic()
    index = convert(*words, how)
    print(summarize(Path(words[1]), index, time.monotonic() - started))


def summarize(out: Path, index: dict[str, Any], seconds: float) -> str:
    """What came of a conversion, in a line."""
    counts = {name: len(split["labels"]) for name, split in index["splits"].items()}
    chunks = sum(len(split["chunks"]) for split in index["splits"].values())
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return (
        f"{counts['train']:,} training and {counts['val']:,} validation images of {len(index['classes'])} "
        f"classes: {chunks} chunks, {size / 2**20:,.1f} MiB, in {seconds:.1f} s\n"
        f"python train.py data.name=streaming data.root={out}"
    )
