"""Photographs as the cheapest route gives them: the pixels of a plain JPEG, straight into a tensor."""

import io
from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

_START = b"\xff\xd8\xff"
_ORIENTATION = 274  # a tag of EXIF


def read_plain_jpeg(file: Path | BinaryIO, exif: bool = True) -> Tensor | None:
    """The pixels of a JPEG in colour, uint8 [3, H, W], as Pillow gives them; None: it is none, or needs more.

    Pillow keeps four bytes a pixel, so that by way of it a tensor takes half as long again. It still reads
    the header, and refuses what is too large. None is also what cannot be read: whoever reads it in the usual
    way says why.

    Args:
        file: can be read again from its start.
        exif: whether photographs are to be turned upright, which those are left to Pillow for that need it.
    """
    try:
        data = _read(file)
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as image:
            if image.format != "JPEG" or image.mode != "RGB":
                return None
            if exif and image.getexif().get(_ORIENTATION, 1) != 1:
                return None
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except Exception:  # of a damaged file or header, or of a torchvision that was built without JPEG
        return None


def _read(file: Path | BinaryIO) -> bytes | None:
    """All of a file that begins as JPEG does."""
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            return _read(opened)
    file.seek(0)
    start = file.read(len(_START))
    return start + file.read() if start == _START else None
