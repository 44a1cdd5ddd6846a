"""The settings of every source whose images are files."""

from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import DataSettings
from vitrine.datamodules.decoding import Decoding


@dataclass
class FileSettings(DataSettings):
    """What is made of image files; a source adds where they are."""

    resize: int = setting(
        0,
        "shorter side before the center crop, pixels; 0: as the network's library, else image_size",
        least=0,
    )
    channels: int = setting(3, "3 for colour, 1 for grayscale, or as many as every file has", least=1)
    fit: str = setting(
        "auto",
        "what makes squares of images: crop their middle, letterbox (data.background around them), stretch; "
        "auto: what the library of the network does (timm/, hf/), else crop",
        choices=("auto", "crop", "letterbox", "stretch"),
        before="crop",
    )
    interpolation: str = setting(
        "auto",
        "how images are resized; auto: as the library of the network does (timm/, hf/), else bilinear",
        choices=("auto", "nearest", "bilinear", "bicubic", "lanczos"),
        before="bilinear",
    )
    range: list[float] | None = setting(
        None,
        "[low, high]: numbers in files that become black and white, as do those beyond; null: the least and "
        "largest of 8 or 16 unsigned bits, 0 and 1 of floats",
    )
    background: str = setting("white", "colour behind transparent parts, by name or #rrggbb")
    exif: bool = setting(True, "turn photographs upright as their EXIF data say")
    show: list[int] | None = setting(
        None,
        "channels that pictures show where there are neither 1 nor 3: one, or [red, green, blue], from 0; "
        "null: the first three",
    )
    skip_corrupt: bool = setting(
        False, "leave out images that cannot be read (all are tried first); else stop at the first"
    )

    def file_options(self) -> dict[str, Any]:
        """Arguments of `ImageFiles`.

        Raises:
            SettingError: a range or colour that is none, or a channel that is not there.
        """
        if self.show is not None:
            _check_shown(self.show, self.channels)
        decoding = checked_decoding("data.", self.channels, self.range, self.background, self.exif)
        return {
            "resize": self.resize,
            "fit": "crop" if self.fit == "auto" else self.fit,
            "interpolation": "bilinear" if self.interpolation == "auto" else self.interpolation,
            "decoding": decoding,
        }


def checked_decoding(
    prefix: str, channels: int, range: list[float] | None, background: str, exif: bool
) -> Decoding:
    """The Decoding of these settings, whose keys begin with `prefix`; SettingError for wrong ones."""
    if range is not None and not (len(range) == 2 and range[0] < range[1]):
        raise SettingError(f"{prefix}range", f"is {list(range)}, expected [low, high], the lower first")
    try:
        colour = ImageColor.getrgb(background)
    except ValueError:
        colour = ()
    if len(colour) != 3:
        raise SettingError(
            f"{prefix}background", f"is {background!r}, expected a colour: white, black, #ff8800"
        )
    return Decoding(channels, range and (range[0], range[1]), colour, exif)


def _check_shown(show: list[int], channels: int) -> None:
    if channels in (1, 3):
        raise SettingError(
            "data.show", f"is {list(show)}, but images of data.channels={channels} are shown whole"
        )
    if len(show) not in (1, 3) or not all(0 <= channel < channels for channel in show):
        expected = f"expected one channel of 0 to {channels - 1}, or three"
        raise SettingError("data.show", f"is {list(show)}, {expected}")
