"""Images of any number of channels and any type: NumPy's .npy, and the TIFF that Pillow does not read."""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

_NPY, _TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin
_ORIENTATION = 274  # tag of TIFF, as EXIF's
# NumPy parses an array's header by `ast`, whose count of depth is the process's in Python 3.11: in threads it
# is now and then off ("AST constructor recursion depth mismatch"), and a good file would count as damaged.
_PARSING = threading.Lock()


class Planes(NamedTuple):
    """An image's numbers, one plane a channel."""

    numbers: np.ndarray  # [C, H, W]
    white_is_0: bool = False


def read_planes(file: Path | BinaryIO, channels: int, exif: bool) -> Planes | None:
    """The image in an .npy or TIFF file; None of another kind of file.

    An array is [H, W], [H, W, C] or [C, H, W]. Of a TIFF it is the first page; or all pages, if they are as
    many as the channels wanted.

    Args:
        channels: wanted; for 1 or 3, images of either are read.
        exif: turn a TIFF upright as its tag says.

    Raises:
        ValueError: it has no such shape; the TIFF needs a library that is not installed.
    """
    with _opened(file) as opened:
        start = opened.read(len(_NPY))
        opened.seek(0)
        if start == _NPY:
            return Planes(_channels_first(load_array(opened), channels))
        return _read_tiff(opened, channels, exif) if start.startswith(_TIFF) else None


def load_array(opened: BinaryIO) -> np.ndarray:
    """The array in an .npy file; threads may load at once.

    Raises:
        ValueError: it is no such file, or holds Python objects.
    """
    content = io.BytesIO(opened.read())  # reading waits for a disk or network: not under the lock
    with _PARSING:
        return np.load(content, allow_pickle=False)


@contextlib.contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            yield opened
    else:
        file.seek(0)
        yield file


def _channels_first(numbers: np.ndarray, channels: int) -> np.ndarray:
    if numbers.ndim == 2:
        return numbers[None]
    wanted = (1, 3) if channels in (1, 3) else (channels,)
    axes = [axis for axis in (0, 2) if numbers.ndim == 3 and numbers.shape[axis] in wanted]
    if not axes:
        shape = ", ".join(map(str, numbers.shape))
        expected = f"[H, W{', C] or [C, H, W' if channels == 1 else ''}]"
        if channels != 1:
            expected = f"[H, W, {channels}] or [{channels}, H, W]"
        raise ValueError(f"it is an array of shape [{shape}], expected {expected}")
    if len(axes) == 2:
        raise ValueError(f"it is an array of shape {list(numbers.shape)}: either end may be the channels")
    return np.moveaxis(numbers, axes[0], 0)


def _read_tiff(opened: BinaryIO, channels: int, exif: bool) -> Planes:
    try:
        import tifffile
    except ImportError:
        raise ValueError('such a TIFF needs tifffile: pip install "vitrine[tiff]"') from None
    with tifffile.TiffFile(opened) as tiff:
        page, series = tiff.pages[0], tiff.series[0]
        one = page.samplesperpixel == 1
        if one and channels not in (1, 3) and series.axes[1:] == "YX" and series.shape[0] == channels:
            numbers = series.asarray()  # a page a channel
        else:
            numbers = page.asarray()
            if page.axes == "YX":
                numbers = numbers[None]
            elif page.axes == "YXS":
                numbers = np.moveaxis(numbers, 2, 0)
            elif page.axes != "SYX":
                raise ValueError(f"it is a TIFF with axes {page.axes}, expected an image")
        tag = page.tags.get(_ORIENTATION)
        upright = _upright(numbers, int(tag.value)) if exif and tag is not None else numbers
        return Planes(upright, white_is_0=one and page.photometric == 0)


def _upright(planes: np.ndarray, orientation: int) -> np.ndarray:
    """Planes as they are to be seen (TIFF 6.0, tag Orientation)."""
    if orientation in (5, 6, 7, 8):
        planes = planes.swapaxes(1, 2)
    if orientation in (3, 4, 7, 8):
        planes = planes[:, ::-1]
    return planes[:, :, ::-1] if orientation in (2, 3, 6, 7) else planes
