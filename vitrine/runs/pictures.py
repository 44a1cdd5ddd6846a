"""Pictures in files: written so that they are small and the same pixels give the same bytes; read back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_LOSSLESS = 8 * 1024  # bytes up to which a picture is kept bit for bit
_QUALITY, _EFFORT = 75, 3  # of the others; more effort takes longer and spares nothing


def read(path: Path) -> Tensor:
    """The picture in a file, uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def write(folder: Path, path: str, image: Tensor) -> str:
    """Write a picture to `path`, which has no ending yet, and give the path with it.

    Bit for bit as a PNG where that is small; else as a WebP of good quality, since runs are sent in mails.
    Either way the same pixels give the same bytes.
    """
    picture = Image.fromarray(image.cpu().contiguous().numpy())
    data, ending = _encode(picture, "PNG", compress_level=1), ".png"
    if len(data) > _LOSSLESS:
        smaller = _encode(picture, "WEBP", quality=_QUALITY, method=_EFFORT)
        if len(smaller) < len(data):
            data, ending = smaller, ".webp"
    place = folder / f"{path}{ending}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return path + ending


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
