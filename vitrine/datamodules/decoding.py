"""What is made of an image file: its channels, black and white, the background, which way up."""

import contextlib
import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError, features
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vitrine.core.settings import RunAborted
from vitrine.datamodules.levels import Range, scale_levels
from vitrine.datamodules.number_files import Planes, read_planes

log = logging.getLogger(__name__)

WHITE = (255, 255, 255)
_CODECS = {".webp": "webp", ".avif": "avif", ".jp2": "jpg_2000"}  # which not every Pillow is built with
_FRAMES = ("GIF", "TIFF", "WEBP", "AVIF", "PNG")  # a photograph's further frames (MPO) are its thumbnails
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_SIGNED = 2  # a sample format


class UnreadableImage(RunAborted, ValueError):
    """A file that cannot be decoded as an image, or is missing; the message names it."""


@dataclass(frozen=True)
class Decoding:
    """What is made of an image file. Profiles of colour (ICC) are left alone.

    Args:
        channels: 1 (grayscale), 3 (colour), or the number of planes that every file has.
        range: the numbers in the file that become black and white, what lies beyond becoming so, too; None: 0
            and the largest of an unsigned type of up to 16 bits, 0 and 1 for floats, unknown for others.
        background: red, green, blue of 0 to 255, seen through transparent parts; where `channels` is neither
            1 nor 3, alpha is a plane as any other.
        exif: turn photographs upright as their EXIF data say.
    """

    channels: int = 3
    range: Range | None = None
    background: tuple[int, int, int] = WHITE
    exif: bool = True

    def decode(self, file: Path | BinaryIO, name: object) -> Image.Image | Tensor:
        """The image in a file: Pillow's of mode L or RGB for 1 or 3 channels, else uint8 [C, H, W].

        Of several frames or pages it is the first.

        Args:
            file: can be read again from its start.

        Raises:
            UnreadableImage: it cannot be decoded, or its white is not known; the message begins with `name`.
        """
        try:
            try:
                with Image.open(file) as image:
                    if not self._beyond_pillow(image):
                        return self._convert(image, name)
            except UnidentifiedImageError:
                if codec := missing_codec(Path(str(name)).suffix):
                    raise ValueError(f"Pillow was built without {codec} on this machine") from None
                if (planes := read_planes(file, self.channels, self.exif)) is None:
                    raise
            else:
                planes = read_planes(file, self.channels, self.exif)
            return self._from_planes(planes, name)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
            problem: object = error
            if isinstance(error, Image.DecompressionBombError):
                problem = f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: scale it down first"
            raise UnreadableImage(f"{name} cannot be read as an image ({problem})") from error

    def size(self, file: Path | BinaryIO, name: object) -> tuple[int, int]:
        """Width and height of the image in a file, of which more than its header is read only if need be."""
        with contextlib.suppress(UnidentifiedImageError), Image.open(file) as image:
            return image.size
        height, width = F.get_size(self.decode(file, name))
        return width, height

    @property
    def fill(self) -> list[int] | int:
        """The background for torchvision's functions: per channel in colour, else its gray level."""
        if self.channels == 3:
            return list(self.background)
        return Image.new("RGB", (1, 1), self.background).convert("L").getpixel((0, 0))

    def _beyond_pillow(self, image: Image.Image) -> bool:
        """Whether an image is one of those TIFFs of which Pillow would read too little."""
        if image.format != "TIFF":
            return False
        if self.channels not in (1, 3):
            return len(image.getbands()) != self.channels or ";16" in str(image.tile)
        return self.range is not None and len(image.getbands()) > 1 and ";16" in str(image.tile)

    def _convert(self, image: Image.Image, name: object) -> Image.Image | Tensor:
        """`decode` of an image that Pillow has opened."""
        if self.range is not None and len(image.getbands()) > 1 and ";16" in str(image.tile):
            raise ValueError("of 16 bits a colour Pillow reads 8, for which range=[low,high] is not meant")
        _say_of_frames(image, name)
        if self.exif:
            with contextlib.suppress(Exception):  # damaged EXIF data; damaged pixels are reported below
                ImageOps.exif_transpose(image, in_place=True)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = self._to_8_bits(image, name)
        elif self.range is not None:
            image = _stretch(image, self.range)
        if self.channels not in (1, 3):
            if len(image.getbands()) != self.channels:
                raise ValueError(f"it has {_counted(len(image.getbands()))}, expected {self.channels}")
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if image.mode == "LAB":
            image = ImageCms.applyTransform(image, _lab_to_srgb())
        elif image.has_transparency_data:
            if image.mode == "La":  # of premultiplied levels
                image = image.convert("LA")
            ground = Image.new("RGBA", image.size, self.background)
            image = Image.alpha_composite(ground, image.convert("RGBA"))
        return image.convert("RGB" if self.channels == 3 else "L")

    def _to_8_bits(self, image: Image.Image, name: object) -> Image.Image:
        """Gray levels of more than 8 bits scaled to 8, which Pillow would clip."""
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        numbers = np.asarray(image)
        if image.mode == "I":
            signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
            if image.format in ("PNG", "PPM"):
                numbers = numbers.astype(np.uint16)
            elif bits == 16:
                numbers = numbers.astype(np.int16 if signed else np.uint16)
            elif not signed:
                numbers = numbers.view(np.uint32)  # Pillow has but signed ones
        white_is_0 = tags.get(_PHOTOMETRIC) == 0
        levels = self._scale(numbers, name, bits=bits if bits < 16 else None, white_is_0=white_is_0)
        if isinstance(hidden := image.info.get("transparency"), int):
            levels = np.where(numbers == hidden, np.uint8(replace(self, channels=1).fill), levels)
        return Image.fromarray(levels)

    def _from_planes(self, planes: Planes, name: object) -> Image.Image | Tensor:
        count = len(planes.numbers)
        if count != self.channels and not (count in (1, 3) and self.channels in (1, 3)):
            raise ValueError(f"it has {_counted(count)}, expected {self.channels}")
        levels = self._scale(planes.numbers, name, white_is_0=planes.white_is_0)
        if self.channels not in (1, 3):
            return torch.from_numpy(np.ascontiguousarray(levels))
        image = Image.fromarray(levels[0] if count == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))
        return image.convert("RGB" if self.channels == 3 else "L")

    def _scale(self, numbers: np.ndarray, name: object, **options: Any) -> np.ndarray:
        """`scale_levels`, and a line in the log, once, about a range that looks like a mistake."""
        levels = scale_levels(numbers, self.range, **options)
        if self.range is not None:
            if levels.flat[0] in (0, 255) and (levels == levels.flat[0]).all():
                ends = f"range=[{self.range[0]:g},{self.range[1]:g}]"
                span = f"{numbers.min():g} to {numbers.max():g}"
                _say_once("range", f"all of {name} is at one end of {ends}: it has numbers from {span}")
        elif numbers.dtype == np.uint16 and not options.get("bits") and 0 < numbers.max() < 2**12:
            white = 2 ** int(numbers.max()).bit_length() - 1
            problem = f"{name} has 16 bits, but no number above {numbers.max()}, and is dark"
            _say_once("depth", f"{problem}: range=[0,{white}] would make that white")
        return levels


def missing_codec(suffix: str) -> str | None:
    """The codec that files of this suffix need, if Pillow was built without it on this machine."""
    codec = _CODECS.get(suffix.lower())
    return codec if codec and not features.check(codec) else None


def _stretch(image: Image.Image, limits: Range) -> Image.Image:
    """An image of 8 bits whose colours, not its alpha, are stretched from these limits to black and white."""
    if image.mode in ("1", "P", "PA"):  # numbers of colours
        image = image.convert("RGBA" if image.has_transparency_data else "RGB" if image.mode != "1" else "L")
    table = scale_levels(np.arange(256, dtype=np.uint8), limits).tolist()
    return image.point(
        [level for band in image.getbands() for level in (range(256) if band == "A" else table)]
    )


@lru_cache(maxsize=1)
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


_said: set[str] = set()


def _say_once(what: str, line: str) -> None:
    if what not in _said:
        _said.add(what)
        log.warning("%s (said once)", line)


def _say_of_frames(image: Image.Image, name: object) -> None:
    """Log once for each kind of file that only the first frame or page is read."""
    kind = image.format or ""
    if kind in _FRAMES and kind not in _said and getattr(image, "is_animated", False):
        _say_once(kind, f"{name} has several frames or pages; the first is read, as of every {kind}")


def _counted(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
