"""A few tiny pictures with known pixels, as files."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def pixels(seed: int, side: int = 8) -> Tensor:
    """uint8 [3, side, side], a function of the seed."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, side, side), generator=draw).to(torch.uint8)


def picture(file: Path, seed: int, side: int = 8) -> Path:
    """Write these pixels to a file, without loss where its format has none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, side).permute(1, 2, 0).numpy()).save(file)
    return file
