"""Images in litdata's chunks, in a folder or an object store: what does not fit on one machine.

`python -m vitrine convert FOLDER OUT` makes them. Only folders have been tried; addresses (s3://, gs://,
azure://, ...) are handed to litdata as they are.

litdata stores, fetches and caches, and is read by index; which image comes when is our own `ChunkOrder`. In
litdata's own loader an epoch's order follows from the number of workers too, and it makes the batches. Here
it is a function of (seed, epoch, rank, number of ranks) as for every other source, and batches are the
house's: a resumed run has exactly those of one that was not cut off, with any number of workers.
"""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import DataSettings, ImageData
from vitrine.datamodules.files import Files, UnreadableImage, decoded
from vitrine.datamodules.order import ChunkOrder, Order

INDEX = "images.json"  # beside the chunks: classes, labels, statistics; see datamodules.convert
_EXPECTED = "expected what `python -m vitrine convert FOLDER OUT` made: a folder, or an address of one"


@dataclass
class StreamingSettings(DataSettings):
    """`image_size=0` asks that all images be squares of one size; augmentation is off unless asked for."""

    root: str | None = setting(None, "what datamodules.convert made: a folder, or s3://... and the like")
    resize: int = setting(0, "shorter side before the centre is cut out, pixels; 0: image_size", least=0)
    channels: int = setting(3, "3 for colour, 1 for grayscale", choices=(1, 3))
    window: int = setting(8, "chunks whose images are shuffled together", least=1)
    fetched: str | None = setting(
        None, "folder for chunks fetched from an object store; null: litdata's default"
    )
    cache: str = setting(
        "never",
        "hold decoded images in memory: auto (up to 2 GiB), always, never",
        choices=("auto", "always", "never"),
    )


class Streaming(ImageData):
    """Images in litdata's chunks, shuffled by chunk, sharded by rank, read by worker processes."""

    Settings = StreamingSettings
    settings: StreamingSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        how = self.settings
        if not how.root:
            raise SettingError("data.root", f"is not set; {_EXPECTED}")
        root = how.root if is_address(how.root) else str(Path(how.root).expanduser())
        index = read_index(root, how.fetched)
        self.classes, self.channels = index["classes"], how.channels
        self.image_size = how.image_size or index["side"] or 0
        if not self.image_size:
            problem = "is 0, but the images are not squares of one size; expected pixels a side"
            raise SettingError("data.image_size", problem)
        if 0 < how.resize < self.image_size:
            expected = f"expected at least data.image_size, {self.image_size}"
            raise SettingError("data.resize", f"is {how.resize}, {expected}")
        self.mean, self.std = (tuple(values) for values in index["statistics"][str(how.channels)])
        return tuple(self._split(root, name, index["splits"][name]) for name in ("train", "val"))

    def _split(self, root: str, name: str, known: dict[str, Any]) -> ImageDataset:
        how = self.settings
        split = Chunks(
            f"{root}/{name}",
            torch.tensor(known["labels"], dtype=torch.int64),
            known["chunks"],
            self.image_size,
            resize=how.resize,
            channels=how.channels,
            zoom=how.augment.zoom,
            fetched=how.fetched and f"{how.fetched}/{name}",
        )
        return split.decoded(f"reading {name}") if split.held(how.cache) else split

    def _order(self, split: ImageDataset, batch_size: int, **how: Any) -> Order:
        if isinstance(split, Chunks):
            return ChunkOrder(len(split), batch_size, chunks=split.chunks, window=self.settings.window, **how)
        return super()._order(split, batch_size, **how)


class Chunks(Files):
    """A split whose images lie in litdata's chunks: `Files` in all but where the bytes are.

    Args:
        where: folder or address of the split.
        labels: int64, [N].
        chunks: how many images each chunk has, in order.
        fetched: folder for chunks from an object store.
        image_size, resize, channels, zoom: as for Files.
    """

    def __init__(
        self,
        where: str,
        labels: Tensor,
        chunks: list[int],
        image_size: int,
        *,
        fetched: str | None = None,
        **how: Any,
    ):
        super().__init__([], labels, image_size, **how)
        self.source, self.chunks, self.fetched = where, chunks, fetched
        self._opened: tuple[int, Any, threading.Lock] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def item(self, index: int) -> dict[str, Any]:
        """An image as it was converted: `image` (the file's bytes), `label`, `name`.

        Raises:
            UnreadableImage: its chunk is missing, or cannot be read; names it.
        """
        source, lock = self._open()
        try:
            with lock:  # litdata has one chunk open at a time
                return source[index]
        except Exception as error:  # litdata's own, those of a file, of a store, of a broken pickle
            chunk = self._chunk_of(index)
            problem = " ".join(str(error).split()) or type(error).__name__
            raise UnreadableImage(f"{self.source}: {chunk} cannot be read ({problem})") from error

    @property
    def storage(self) -> str:
        return f"streamed from {self.source.rpartition('/')[0]}"

    def held(self, cache: str) -> bool:
        """Whether `data.cache` asks for all of them in memory."""
        from vitrine.datamodules.holding import MEMORY

        size = len(self) * self.channels * self.image_size**2
        return cache == "always" or (cache == "auto" and size <= MEMORY)

    def _decoded(self, index: int) -> Image.Image:
        found = self.item(index)
        return decoded(io.BytesIO(found["image"]), f"{self.source}: {found['name']}", self.channels)

    def _open(self) -> tuple[Any, threading.Lock]:
        """litdata's data set, opened anew in each process: its files and threads do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            source = litdata().StreamingDataset(self.source, cache_dir=self.fetched)
            if is_address(self.source):
                source[0:0]  # from now on whole chunks are fetched and kept: neighbours are wanted next
            self._opened = os.getpid(), source, threading.Lock()
        return self._opened[1:]

    def _chunk_of(self, index: int) -> str:
        last = torch.tensor(self.chunks).cumsum(0)
        return f"chunk {int(torch.searchsorted(last, index, right=True))} (of image {index})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def is_address(root: str) -> bool:
    """Whether a root is one that litdata fetches from, and no folder."""
    return "://" in root or root.startswith("local:")


def read_index(root: str, fetched: str | None = None) -> dict[str, Any]:
    """What images.json says of converted images.

    Raises:
        SettingError: it is not there, or cannot be read.
    """
    try:
        if is_address(root):
            text = _fetched_text(f"{root}/{INDEX}", root)
        else:
            text = (Path(root) / INDEX).read_text(encoding="utf-8")
        index = json.loads(text)
        known = {"classes", "splits", "statistics", "side"} <= set(index)
    except FileNotFoundError:
        raise SettingError("data.root", f"{root} has no {INDEX}; {_EXPECTED}") from None
    except Exception as error:  # each kind of store has its own
        raise SettingError("data.root", f"{root}/{INDEX} cannot be read ({error}); {_EXPECTED}") from error
    if not known:
        raise SettingError("data.root", f"{root}/{INDEX} is of another kind; {_EXPECTED}")
    return index


def _fetched_text(address: str, root: str) -> str:
    import tempfile

    litdata()
    from litdata.streaming.downloader import get_downloader

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / INDEX
        get_downloader(root, folder, []).download_file(address, str(file))
        return file.read_text(encoding="utf-8")


def litdata() -> Any:
    """The library, quiet.

    Raises:
        SettingError: it is not installed.
    """
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")  # else it asks the network at every start
    try:
        import litdata
    except ImportError as error:
        raise SettingError(
            "data.name", f'streaming needs litdata: pip install -e ".[streaming]" ({error})'
        ) from None
    logging.getLogger("litdata").setLevel(logging.WARNING)
    return litdata
