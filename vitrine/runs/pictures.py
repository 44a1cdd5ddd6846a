"""Pictures in files: small, and the same pixels always give the same bytes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SMALL = 8 * 1024  # bytes up to which a picture is kept without loss
_FEW_PIXELS = 64 * 1024  # bytes of pixels up to which it is tried whether one is so small
_FLAT = 0.5  # share of pixels that repeat, from which no loss may cost less than some: plots, enlarged pixels
_DEARER = 1.1  # how many times as large a picture without loss may be
_WEBP_SIDE = 16383  # pixels, the format's limit
_LOSSY = {"quality": 75, "method": 5}  # 6 takes twice the time for a fiftieth less
_LOSSLESS = {"lossless": True, "quality": 0, "method": 2}  # more effort takes longer and saves nothing


def read(path: Path) -> Tensor:
    """The picture in a file as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def write(folder: Path, path: str, image: Tensor) -> str:
    """Write a picture, uint8 [H, W, 3], into a folder; return `path` with the suffix of the format chosen.

    Without loss where that is small, or hardly larger than with some; else as WebP of good quality, since
    runs are sent by mail.
    """
    data, suffix = _encoded(image.cpu().contiguous())
    file = folder / f"{path}{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return path + suffix


def _encoded(image: Tensor) -> tuple[bytes, str]:
    picture = Image.fromarray(image.numpy())
    if image.numel() <= _SMALL or max(picture.size) > _WEBP_SIDE:
        return _encode(picture, "PNG", compress_level=1), ".png"
    exact = None
    if image.numel() <= _FEW_PIXELS or _repeating(image) >= _FLAT:
        exact = _encode(picture, "WEBP", **_LOSSLESS)
        if len(exact) <= _SMALL:
            return exact, ".webp"
    lossy = _encode(picture, "WEBP", **_LOSSY)
    return (lossy if exact is None or len(exact) > _DEARER * len(lossy) else exact), ".webp"


def _repeating(image: Tensor) -> float:
    """The share of pixels that are as their neighbour above and to the left, in every fourth row."""
    above, below = image[:-1:4, :-1], image[1::4, 1:]
    return (above == below).all(2).float().mean().item()


def _encode(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()
