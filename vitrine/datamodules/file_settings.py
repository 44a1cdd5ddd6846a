"""The settings of every source whose images are files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import DataSettings
from vitrine.datamodules.decoding import Decoding


@dataclass
class DecodingSettings:
    """What is made of image files."""

    channels: int = setting(3, "3 for colour, 1 for grayscale, or as many as every file has", least=1)
    range: list[float] | None = setting(
        None,
        "[low, high]: numbers in files that become black and white, as do those beyond; null: the least and "
        "largest of 8 or 16 unsigned bits, 0 and 1 of floats",
    )
    background: str = setting("white", "colour behind transparent parts, by name or #rrggbb")
    exif: bool = setting(True, "turn photographs upright as their EXIF data say")


@dataclass
class FileSettings(DecodingSettings, DataSettings):
    """What is made of image files, to images of one size; a source adds where they are."""

    resize: int = setting(
        0,
        "shorter side before the center crop, pixels; 0: as the network's library, else image_size",
        least=0,
    )
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
        check_shown(self.show, self.channels, "data.")
        interpolation = "bilinear" if self.interpolation == "auto" else self.interpolation
        if interpolation == "lanczos" and self.channels not in (1, 3):
            problem = f"is lanczos, which images of {self.channels} channels are not resized by"
            raise SettingError("data.interpolation", f"{problem}; expected bilinear or bicubic")
        return {
            "resize": self.resize,
            "fit": "crop" if self.fit == "auto" else self.fit,
            "interpolation": interpolation,
            "decoding": checked_decoding(self, "data."),
            "root": getattr(self, "root", None),
        }


def checked_decoding(settings: Any, prefix: str = "", channels: int | None = None) -> Decoding:
    """The Decoding of settings with `range`, `background`, `exif` and, unless given, `channels`.

    Args:
        prefix: of the settings' keys, for messages.

    Raises:
        SettingError: a range or colour that is none.
    """
    limits, background = settings.range, settings.background
    if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
        raise SettingError(f"{prefix}range", f"is {list(limits)}, expected [low, high], the lower first")
    try:
        colour = ImageColor.getrgb(background)
    except ValueError:
        colour = ()
    if len(colour) != 3:
        raise SettingError(
            f"{prefix}background", f"is {background!r}, expected a colour: white, black, #ff8800"
        )
    channels = settings.channels if channels is None else channels
    return Decoding(channels, limits and (limits[0], limits[1]), colour, settings.exif)


def check_shown(show: Sequence[int] | None, channels: int, prefix: str = "") -> None:
    """Raise SettingError for a setting `show` that images of so many channels do not have."""
    if show is None:
        return
    if channels in (1, 3):
        problem = f"is {list(show)}, but images of {channels} channels are shown whole; expected null"
        raise SettingError(f"{prefix}show", problem)
    if len(show) not in (1, 3) or not all(0 <= channel < channels for channel in show):
        expected = f"expected one channel of 0 to {channels - 1}, or three"
        raise SettingError(f"{prefix}show", f"is {list(show)}, {expected}")
