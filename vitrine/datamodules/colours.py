"""The colours that an image of 8 bits shows, and their contrast."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from vitrine.datamodules.levels import Range, scale_levels


def in_colours(image: Image.Image) -> Image.Image:
    """An image as gray levels or red, green and blue, with alpha where it says what is transparent."""
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_srgb())
    gray = image.mode in ("1", "L", "LA", "La")
    mode = ("L" if gray else "RGB") + "A" * image.has_transparency_data
    return image if image.mode == mode else image.convert(mode)


def stretch(image: Image.Image, limits: Range) -> Image.Image:
    """An image whose levels, not its alpha, are stretched from these limits to black and white."""
    if image.mode in ("1", "P", "PA"):  # numbers of colours
        image = in_colours(image)
    table = scale_levels(np.arange(256, dtype=np.uint8), limits).tolist()
    return image.point(
        [level for band in image.getbands() for level in (range(256) if band == "A" else table)]
    )


@lru_cache(maxsize=1)
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
