"""Images read from files as tensors, and written to files."""

import copy
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vitrine.analyses import paint
from vitrine.core import atomic
from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import UnreadableImage, to_tensor
from vitrine.datamodules.file_settings import FileSettings, check_shown, checked_decoding
from vitrine.datamodules.files import ImageFiles

FILE_SETTINGS = ("range", "background", "exif", "show")  # of FileSettings


def read_image(
    key: str, file: str, channels: int, size: int | None, max_size: int, settings: Any = None
) -> Tensor:
    """An image file as float [1, C, H, W] in [0, 1], upright, in its own proportions.

    Args:
        key: the setting that names the file, for messages.
        channels: 1 (grayscale), 3, or those that the file has.
        size: pixels of the longer side; by default its own, but at most `max_size`.
        settings: with FILE_SETTINGS; by default theirs.

    Raises:
        SettingError: the file is absent or no image, or has other channels.
    """
    settings = settings or FileSettings()
    check_shown(settings.show, channels)
    decoding = checked_decoding(settings, channels=channels)
    if not Path(file).is_file():
        raise SettingError(key, f"there is no file {file}")
    try:
        image = decoding.decode(Path(file), file)
    except UnreadableImage as error:
        raise SettingError(key, str(error)) from None
    height, width = F.get_size(image)
    longer = max(height, width)
    scale = (size or min(longer, max_size)) / longer
    shape = tuple(max(1, round(side * scale)) for side in (width, height))
    if shape != (width, height):
        if isinstance(image, Tensor):
            image = F.resize(image, shape[::-1], F.InterpolationMode.BICUBIC)
        else:
            image = image.resize(shape, Image.Resampling.LANCZOS)
    return to_tensor(image)[None].float().div_(255).contiguous()


def prepare_image(key: str, file: str, data: Any, fit: str | None = None) -> Tensor:
    """An image file as float [1, C, H, W] in [0, 1], of the size and made as validation images of some data
    are; where those are no files, its middle is cropped.

    Args:
        key: the setting that names the file, for messages.
        data: set up.
        fit: crop, letterbox or stretch, instead.

    Raises:
        SettingError: the file is absent or no image, or has other channels.
    """
    if not Path(file).is_file():
        raise SettingError(key, f"there is no file {file}")
    split = data.val if isinstance(data.val, ImageFiles) else getattr(data.val, "source", None)
    if not isinstance(split, ImageFiles):
        split = ImageFiles([], torch.zeros(0), data.image_size, channels=data.channels)
    if fit not in (None, split.fit):
        split = copy.copy(split)
        split.fit, split.resize = fit, split.image_size
    try:
        return split.prepare(Path(file))[None].float().div_(255)
    except UnreadableImage as error:
        raise SettingError(key, str(error)) from None


def output_file(out: str | None, default: Path, sources: list[str | None]) -> Path:
    """The file to write a picture to, in a folder that exists.

    Raises:
        SettingError: the name does not end in .png or is one of the sources, or the folder cannot be created.
    """
    file = default if out is None else Path(out)
    if file.suffix.lower() != ".png" or file.is_dir():
        raise SettingError("out", f"is {out}, expected a file that ends in .png")
    if any(source is not None and file.resolve() == Path(source).resolve() for source in sources):
        raise SettingError("out", f"{file} is what the picture is made of, expected another file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("out", f"{file.parent} cannot be made: {error.strerror}") from None
    return file


def write_image(file: Path, image: Tensor, show: Sequence[int] | None = None) -> None:
    """Write an image [C, H, W] in [0, 1] as a PNG, whole or not at all; SettingError if the disk refuses.

    Args:
        show: see `paint.showing`.
    """
    with paint.showing(show):
        write_picture(file, paint.picture(image))


def write_picture(file: Path, picture: Tensor) -> None:
    """Write a picture, uint8 [H, W, 3], as a PNG, whole or not at all; SettingError if the disk refuses."""
    content = io.BytesIO()
    Image.fromarray(picture.numpy()).save(content, "PNG")
    try:
        atomic.write_bytes(file, content.getvalue())
    except OSError as error:
        raise SettingError("out", f"{file} cannot be written: {error.strerror}") from None


def describe_size(image: Tensor, started: float) -> str:
    """The size of an image [C, H, W] and the time since `started` (time.monotonic) as text."""
    height, width = image.shape[-2:]
    return f"{width} x {height} pixels in {time.monotonic() - started:.0f} s"
