"""Images of random formats, depths and damage: the pixels that were stored, or refused by name."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from cases import run_cases, time_limit
from hypothesis import strategies as st
from PIL import Image

from vitrine.datamodules.decoding import Decoding, UnreadableImage

KINDS = {  # how an image is stored, and by how much a value of 255 may then be off
    "gray 8": ("L", ["PNG", "TIFF", "BMP", "GIF", "WEBP"]),
    "gray 16": ("I;16", ["PNG", "TIFF"]),
    "float": ("F", ["TIFF"]),
    "black and white": ("1", ["PNG", "TIFF", "BMP", "GIF"]),
    "palette": ("P", ["PNG", "TIFF", "GIF", "BMP"]),
    "colour": ("RGB", ["PNG", "TIFF", "BMP", "JPEG", "WEBP"]),
    "alpha": ("RGBA", ["PNG", "TIFF", "WEBP"]),
    "gray and alpha": ("LA", ["PNG", "TIFF"]),
    "print": ("CMYK", ["TIFF", "JPEG"]),
}
OPTIONS = {"WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 100, "subsampling": 0}}


@st.composite
def images(draw: Any) -> tuple[str, str, int, int, int, int, list[tuple[float, int]], float | None, int]:
    kind = draw(st.sampled_from(sorted(KINDS)))
    return (
        kind,
        draw(st.sampled_from(KINDS[kind][1])),
        draw(st.integers(1, 24)),  # width
        draw(st.integers(1, 24)),  # height
        draw(st.integers(0, 8)),  # EXIF orientation; 0: without
        draw(st.integers(0, 2**16)),  # seed of the pixels
        draw(
            st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=3)
        ),  # bytes flipped: where, how
        draw(st.none() | st.floats(0, 1)),  # cut off at
        draw(st.sampled_from([1, 3])),  # channels to read
    )


def stored(kind: str, width: int, height: int, seed: int) -> tuple[Image.Image, np.ndarray]:
    """An image, and the pixels [H, W, 3] that a viewer shows of it."""
    mode = KINDS[kind][0]
    generator = np.random.default_rng(seed)
    gray = generator.integers(0, 256, (height, width), dtype=np.uint8)
    colour = np.full((height, width, 3), generator.integers(0, 256, 3), np.uint8)  # flat: JPEG keeps it
    if mode == "I;16":
        return Image.fromarray(gray.astype(np.uint16) * 257), np.stack([gray] * 3, -1)
    if mode == "F":
        return Image.fromarray(gray.astype(np.float32) / 255), np.stack([gray] * 3, -1)
    if mode == "1":
        gray = (gray > 127).astype(np.uint8) * 255
        return Image.fromarray(gray).convert("1"), np.stack([gray] * 3, -1)
    if mode in ("L", "LA"):
        return Image.fromarray(gray).convert(mode), np.stack([gray] * 3, -1)
    if mode == "P":
        colours = generator.integers(0, 256, (4, 3), dtype=np.uint8)
        numbers = generator.integers(0, 4, (height, width), dtype=np.uint8)
        image = Image.fromarray(numbers).convert("P")
        image.putpalette(colours.tobytes())
        return image, colours[numbers]
    if mode == "CMYK":
        inks = Image.fromarray(colour).convert("CMYK")
        return inks, colour
    return Image.fromarray(colour).convert(mode), colour


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What is seen of stored pixels (EXIF 2.3, tag 0x0112)."""
    turned = [
        pixels,
        pixels,
        pixels[:, ::-1],
        pixels[::-1, ::-1],
        pixels[::-1],
        pixels.transpose(1, 0, 2),
        np.rot90(pixels, -1),
        pixels[::-1, ::-1].transpose(1, 0, 2),
        np.rot90(pixels),
    ]
    return turned[orientation]


def check(case: tuple[Any, ...]) -> str:
    kind, form, width, height, orientation, seed, flips, cut, channels = case
    image, expected = stored(kind, width, height, seed)
    options = dict(OPTIONS.get(form, {}))
    if orientation and form in ("PNG", "TIFF", "JPEG", "WEBP"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
        expected = upright(expected, orientation)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    content = bytearray(buffer.getvalue())
    for place, bits in flips:
        content[int(place * (len(content) - 1))] ^= bits
    if cut is not None:
        content = content[: int(cut * len(content))]
    try:
        with time_limit(60):  # damage may announce a hundred million pixels
            pixels = np.asarray(Decoding(channels).decode(io.BytesIO(bytes(content)), "odd.image"))
    except UnreadableImage as refusal:
        assert flips or cut is not None, f"a whole image is refused: {refusal}"
        assert str(refusal).startswith("odd.image cannot be read as an image") and "\n" not in str(refusal)
        return "refused by name"
    assert pixels.dtype == np.uint8 and pixels.ndim == (2 if channels == 1 else 3)
    if flips or cut is not None:
        return "damaged and readable"
    if channels == 1:
        expected = np.asarray(Image.fromarray(np.ascontiguousarray(expected)).convert("L"))
    assert pixels.shape == expected.shape
    assert abs(pixels.astype(int) - expected).max() <= (3 if form == "JPEG" or kind == "print" else 1)
    return "as stored"


def run(count: int, seed: int, _folder: Path) -> Counter:
    """So many images: how many were read as they were stored, refused, or readable though damaged."""
    return run_cases(count, seed, images(), check)
