"""How many images pass through a network at once, so that memory does not grow with their size."""

from __future__ import annotations

import torch

PIXELS = {"cpu": 2**19, "cuda": 2**21}  # of a pass with gradients: 10 and 41 images of 224 pixels a side
DATA_PIXELS = {"cpu": 2**20, "cuda": 2**22}  # of a pass over a data set: 20 and 83 images of 224 pixels
DATA_IMAGES = 256  # of such a pass, at most


def images_at_once(height: int, width: int, device: torch.device, most: int) -> int:
    """The number of images of a size that a pass with gradients takes: at most `most`, at least one.

    A backward pass keeps the activations of the forward pass: of a ResNet-50 and 224 pixels 100 MB an image.
    """
    pixels = PIXELS.get(device.type, PIXELS["cpu"])
    return max(1, min(most, pixels // (height * width)))


def data_batch_size(height: int, width: int, device: torch.device) -> int:
    """The number of images of a size in a batch of a pass over a data set, without gradients."""
    pixels = DATA_PIXELS.get(device.type, DATA_PIXELS["cpu"])
    return max(1, min(DATA_IMAGES, pixels // (height * width)))
