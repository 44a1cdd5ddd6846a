"""What is made of an image file: its channels, black and white, the background, which way up."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vitrine.core.settings import RunAborted
from vitrine.datamodules.colours import in_colours, stretch
from vitrine.datamodules.jpeg import read_plain_jpeg
from vitrine.datamodules.levels import Range, scale_levels
from vitrine.datamodules.number_files import Planes, read_planes

log = logging.getLogger(__name__)
logging.getLogger(TiffImagePlugin.__name__).addFilter(  # of each such file, which is then read in another way
    lambda record: not str(record.msg).startswith("More samples per pixel")
)

WHITE = (255, 255, 255)
_CODECS = {
    ".webp": "webp",
    ".avif": "avif",
    ".jp2": "jpg_2000",
    ".j2k": "jpg_2000",
}  # which not every Pillow is built with
_FRAMES = ("GIF", "TIFF", "WEBP", "AVIF", "PNG")  # a photograph's further frames (MPO) are its thumbnails
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_ORIENTATION, _PLANAR_CONFIGURATION = 274, 284
_BACK = {  # from upright to stored, by orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
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
        with _named(name):
            try:
                with Image.open(file) as image:
                    if not self._beyond_pillow(image):
                        return self._convert(image, name)
            except UnidentifiedImageError:
                if codec := missing_codec(str(name)):
                    raise ValueError(f"Pillow was built without {codec} on this machine") from None
                if (planes := read_planes(file, self.channels, self.exif)) is None:
                    raise
            else:
                planes = read_planes(file, self.channels, self.exif)
            return self._from_planes(planes, name)

    def levels(self, file: Path | BinaryIO, name: object) -> Tensor:
        """The same image as uint8 [C, H, W]; a photograph in JPEG takes two thirds of the time.

        Raises:
            UnreadableImage: as `decode`.
        """
        plain = self.channels == 3 and self.range is None
        if plain and (levels := read_plain_jpeg(file, self.exif)) is not None:
            return levels
        return to_tensor(self.decode(file, name))

    def size(self, file: Path | BinaryIO, name: object) -> tuple[int, int]:
        """Width and height of the image in a file, of which more than its header is read only if need be.

        Raises:
            UnreadableImage: as `decode`.
        """
        with _named(name), contextlib.suppress(UnidentifiedImageError), Image.open(file) as image:
            return image.size
        height, width = F.get_size(self.decode(file, name))
        return width, height

    def upright_size(self, file: Path | BinaryIO, name: object) -> tuple[int, int]:
        """Width and height of the image that `decode` gives, which may be turned upright.

        Raises:
            UnreadableImage: as `decode`.
        """
        with _named(name), contextlib.suppress(UnidentifiedImageError), Image.open(file) as image:
            if image.format != "TIFF":  # which Pillow turns when it loads them
                turned = self.exif and image.getexif().get(_ORIENTATION, 1) >= 5
                return image.size[::-1] if turned else image.size
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
        bands, deep = len(image.getbands()), _is_deep(image)
        if self.channels not in (1, 3):
            return bands != self.channels or deep
        planar = image.tag_v2.get(_PLANAR_CONFIGURATION) == 2  # of which it mixes up the bytes
        return bands > 1 and deep and (planar or self.range is not None)

    def _convert(self, image: Image.Image, name: object) -> Image.Image | Tensor:
        """`decode` of an image that Pillow has opened."""
        if self.range is not None and len(image.getbands()) > 1 and _is_deep(image):
            raise ValueError("of 16 bits a colour Pillow reads 8, for which range=[low,high] is not meant")
        _say_of_frames(image, name)
        restore = None
        if self.exif:
            with contextlib.suppress(Exception):  # damaged EXIF data; damaged pixels are reported below
                ImageOps.exif_transpose(image, in_place=True)
        elif image.format == "TIFF":
            restore = _undo_of_tiff(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_signed(image):
            image = self._to_8_bits(image, name)
        elif self.range is not None:
            image = stretch(in_colours(image) if self.channels in (1, 3) else image, self.range)
        if self.channels not in (1, 3):
            if len(image.getbands()) != self.channels:
                raise ValueError(f"it has {_counted(len(image.getbands()))}, expected {self.channels}")
        elif image.mode == "LAB":
            image = in_colours(image)
        elif image.has_transparency_data:
            if image.mode == "La":  # of premultiplied levels
                image = image.convert("LA")
            ground = Image.new("RGBA", image.size, self.background)
            image = Image.alpha_composite(ground, image.convert("RGBA"))
        if restore is not None:
            image = image.transpose(restore)
        if self.channels not in (1, 3):
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return image.convert("RGB" if self.channels == 3 else "L")

    def _to_8_bits(self, image: Image.Image, name: object) -> Image.Image:
        """Gray levels of more than 8 bits, or signed ones, scaled to 8, which Pillow would clip or wrap."""
        tags = getattr(image, "tag_v2", {})  # of a TIFF
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        numbers = np.asarray(image)
        if image.mode == "L":
            numbers = numbers.view(np.int8)
        elif image.format in ("PNG", "PPM"):
            numbers = numbers.astype(np.uint16)
        elif image.mode == "I" and bits == 16:
            numbers = numbers.astype(np.int16)
        elif image.mode == "I" and not _is_signed(image):
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
            white = 2 ** max(8, int(numbers.max()).bit_length()) - 1
            problem = f"{name} has 16 bits, but no number above {numbers.max()}, and is dark"
            _say_once("depth", f"{problem}: range=[0,{white}] would make that white")
        return levels


def to_tensor(image: Image.Image | Tensor) -> Tensor:
    """uint8 [C, H, W]; torchvision's own way takes as long as decoding a small JPEG does."""
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1)


@contextlib.contextmanager
def _named(name: object) -> Iterator[None]:
    """Whatever reading an image raises in this scope, as UnreadableImage of its name."""
    try:
        yield
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        problem: object = error
        if isinstance(error, Image.DecompressionBombError):
            problem = f"it has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: scale it down first"
        raise UnreadableImage(f"{name} cannot be read as an image ({problem})") from error


def missing_codec(name: str) -> str | None:
    """The codec that a file of this name needs, if Pillow was built without it on this machine."""
    codec = _CODECS.get(name[name.rfind(".") :].lower())
    return codec if codec and not features.check(codec) else None


def _undo_of_tiff(image: Image.Image) -> Image.Transpose | None:
    """Load a TIFF's pixels; what turns them back if Pillow has turned them upright."""
    orientation = image.tag_v2.get(_ORIENTATION)
    image.load()
    return None if _ORIENTATION in image.getexif() else _BACK.get(orientation)


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a channel."""
    if image.format == "TIFF":
        return image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0] > 8
    return ";16" in str(image.tile)


def _is_signed(image: Image.Image) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED


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
