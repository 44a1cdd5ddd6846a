"""Pictures in files: small, and the same pixels always give the same bytes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_LOSSLESS = 8 * 1024  # bytes up to which a picture is a PNG
_QUALITY, _EFFORT = 75, 3  # of larger ones, as WebP; more effort takes longer and saves nothing


def read(path: Path) -> Tensor:
    """The picture in a file as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def write(folder: Path, path: str, image: Tensor) -> str:
    """Write a picture, uint8 [H, W, 3], into a folder; return `path` with the suffix of the format chosen.

    Lossless as PNG if that is small; else as WebP of good quality, since runs are sent by mail.
    """
    picture = Image.fromarray(image.cpu().contiguous().numpy())
    data, suffix = _encode(picture, "PNG", compress_level=1), ".png"
    if len(data) > _LOSSLESS:
        webp = _encode(picture, "WEBP", quality=_QUALITY, method=_EFFORT)
        data, suffix = min((data, suffix), (webp, ".webp"), key=lambda encoded: len(encoded[0]))
    file = folder / f"{path}{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return path + suffix


def _encode(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()
