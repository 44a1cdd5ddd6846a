"""Images read from files as tensors, and written to files."""

import io
import time
from pathlib import Path

from PIL import Image
from torch import Tensor

from vitrine.analyses import paint
from vitrine.core import atomic
from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import Decoding, UnreadableImage
from vitrine.datamodules.files import to_tensor


def read_image(key: str, file: str, channels: int, size: int | None, max_size: int) -> Tensor:
    """An image file as float [1, C, H, W] in [0, 1], upright, in its own proportions.

    Args:
        key: the setting that names the file, for messages.
        channels: 1 (grayscale) or 3.
        size: pixels of the longer side; by default its own, but at most `max_size`.

    Raises:
        SettingError: the file is absent or no image, or the network takes no images of 1 or 3 channels.
    """
    if channels not in (1, 3):
        raise SettingError(key, f"the network takes images of {channels} channels, expected 1 or 3")
    if not Path(file).is_file():
        raise SettingError(key, f"there is no file {file}")
    try:
        image = Decoding(channels).decode(Path(file), file)
    except UnreadableImage as error:
        raise SettingError(key, str(error)) from None
    longer = max(image.size)
    scale = (size or min(longer, max_size)) / longer
    shape = tuple(max(1, round(side * scale)) for side in image.size)
    if shape != image.size:
        image = image.resize(shape, Image.Resampling.LANCZOS)
    return to_tensor(image)[None].float().div_(255).contiguous()


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


def write_image(file: Path, image: Tensor) -> None:
    """Write an image [C, H, W] in [0, 1] as a PNG, whole or not at all; SettingError if the disk refuses."""
    content = io.BytesIO()
    Image.fromarray(paint.picture(image).numpy()).save(content, "PNG")
    try:
        atomic.write_bytes(file, content.getvalue())
    except OSError as error:
        raise SettingError("out", f"{file} cannot be written: {error.strerror}") from None


def describe_size(image: Tensor, started: float) -> str:
    """The size of an image [C, H, W] and the time since `started` (time.monotonic) as text."""
    height, width = image.shape[-2:]
    return f"{width} x {height} pixels in {time.monotonic() - started:.0f} s"
