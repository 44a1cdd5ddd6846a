"""Images in litdata's chunks, in a folder or an object store, for data sets larger than one machine.

`python -m vitrine convert FOLDER OUT` makes them. Folders and a stand-in for S3 have been tested; other
addresses (gs://, azure://, ...) are passed to litdata.

litdata stores, downloads and caches, and is read by index; the order is that of our `ChunkBatchSampler`, and
so a function of (seed, epoch, rank, number of ranks) as for every other source, where that of litdata's own
loader depends on the number of workers too.
"""

import bisect
import hashlib
import io
import itertools
import json
import logging
import os
import tempfile
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock
from torch import Tensor

from vitrine.core.home import absolute_path
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.caching import should_cache
from vitrine.datamodules.decoding import Decoding, UnreadableImage
from vitrine.datamodules.file_settings import check_shown
from vitrine.datamodules.files import ImageFiles

INDEX = "images.json"  # beside the chunks: classes, labels, statistics; see cli.convert
_EXPECTED = "expected the OUT of `python -m vitrine convert FOLDER OUT`: a folder, or an address of one"


@dataclass
class StreamingSettings(DataSettings):
    """Files are decoded as `vitrine convert` was told. With `image_size=0` all images have to be squares of
    one size; by default there is no augmentation."""

    root: str | None = setting(None, "OUT of `vitrine convert`: a folder, or an address such as s3://...")
    resize: int = setting(0, "shorter side before the center crop, pixels; 0: image_size", least=0)
    fit: str = setting(
        "crop",
        "what makes squares of images: crop their middle, letterbox (the background around them), stretch",
        choices=("crop", "letterbox", "stretch"),
    )
    channels: int = setting(3, "3 for colour, 1 for grayscale, or as many as were converted", least=1)
    show: list[int] | None = setting(
        None, "channels that pictures show where there are neither 1 nor 3; null: the first three"
    )
    window: int = setting(8, "chunks whose images are shuffled together", least=1)
    download_dir: str | None = setting(
        None,
        "folder for chunks downloaded from an object store; null: litdata's default",
        renamed_from="fetched",
    )
    cache: str = setting(
        "never",
        "keep decoded images in memory: auto (up to 2 GiB), always, never",
        choices=("auto", "always", "never"),
    )


class Streaming(ImageDataModule):
    """Images in litdata's chunks, shuffled by chunk, sharded by rank, read by worker processes."""

    Settings = StreamingSettings
    settings: StreamingSettings

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        settings = self.settings
        if not settings.root:
            raise SettingError("data.root", f"is not set; {_EXPECTED}")
        if not is_address(settings.root):
            settings.root = str(absolute_path(settings.root))  # found again from everywhere
        if settings.download_dir is not None:
            settings.download_dir = str(absolute_path(settings.download_dir))
        root = settings.root
        index = read_index(root)
        self.classes, self.channels = index["classes"], settings.channels
        self.image_size = settings.image_size or index["side"] or 0
        if not self.image_size:
            problem = "is 0, but the images are not squares of one size; expected pixels a side"
            raise SettingError("data.image_size", problem)
        if str(settings.channels) not in index["statistics"]:
            problem = (
                f"is {settings.channels}, but {root} was converted for {' or '.join(index['statistics'])}"
            )
            raise SettingError("data.channels", problem)
        check_shown(settings.show, settings.channels, "data.")
        self.mean, self.std = (tuple(values) for values in index["statistics"][str(settings.channels)])
        self.has_test, self._index, self._root = "test" in index["splits"], index, root
        return self._split("train"), self._split("val")

    def load_test(self) -> ImageDataset:
        return self._split("test", cache=False)

    def chunks(self, split: ImageDataset) -> list[int] | None:
        return split.chunks if isinstance(split, ChunkedImages) else None

    def _split(self, name: str, cache: bool = True) -> ImageDataset:
        settings, entry = self.settings, self._index["splits"][name]
        split = ChunkedImages(
            f"{self._root}/{name}",
            torch.tensor(entry["labels"], dtype=torch.int64),
            entry["chunks"],
            self.image_size,
            resize=settings.resize,
            fit=settings.fit,
            decoding=_decoding(self._index, settings.channels),
            min_scale=settings.augment.random_resized_crop,
            download_dir=settings.download_dir and f"{settings.download_dir}/{name}",
        )
        return split.load(f"reading {name}") if cache and should_cache(settings.cache, [split]) else split


def _decoding(index: dict[str, Any], channels: int) -> Decoding:
    """As the chunks were converted; those of before it was recorded, by default."""
    recorded = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in index.get("decoding", {}).items()
    }
    return Decoding(**{**recorded, "channels": channels})


class ChunkedImages(ImageFiles):
    """A split whose images are in litdata's chunks; otherwise like `ImageFiles`.

    Args:
        source: folder or address of the split.
        labels: int64, [N].
        chunks: how many images each chunk has, in order.
        download_dir: folder for chunks from an object store.
    """

    def __init__(
        self,
        source: str,
        labels: Tensor,
        chunks: list[int],
        image_size: int,
        *,
        download_dir: str | None = None,
        **options: Any,
    ):
        super().__init__([], labels, image_size, **options)
        self.source, self.chunks, self.download_dir = source, chunks, download_dir
        self._opened: tuple[int, Any, threading.Lock] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read_item(self, index: int) -> dict[str, Any]:
        """An image as it was converted: `image` (the file's bytes), `label`, `name`.

        Raises:
            UnreadableImage: its chunk is missing, or cannot be read; the message names it.
        """
        try:
            source, lock = self._open()
            with lock:  # litdata has one chunk open at a time
                return source[index]
        except Exception as error:  # litdata's own, those of a file, of a store, of a broken pickle
            chunk = bisect.bisect(list(itertools.accumulate(self.chunks)), index)
            where = f"{self.source}: chunk {chunk} (of image {index})"
            raise UnreadableImage(f"{where} cannot be read ({_problem(error)})") from error

    @property
    def storage(self) -> str:
        return f"streamed from {self.source.rpartition('/')[0]}"

    def path(self, index: int) -> str | None:
        return None  # the names are in the chunks, among the images

    def encoded(self, index: int) -> tuple[BinaryIO, str]:
        item = self.read_item(index)
        return io.BytesIO(item["image"]), f"{self.source}: {item['name']}"

    def _open(self) -> tuple[Any, threading.Lock]:
        """litdata's data set, opened in each process: its files and threads do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            open_source, options = import_litdata().StreamingDataset, _store_options(self.source)
            with _opening(self.source, self.download_dir) if is_address(self.source) else nullcontext():
                source = open_source(self.source, cache_dir=self.download_dir, storage_options=options)
                if is_address(self.source):
                    _allow_http()
                    source[0:0]  # from now on it downloads and keeps whole chunks: their images come next
            self._opened = os.getpid(), source, threading.Lock()
        return self._opened[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def _opening(address: str, download_dir: str | None) -> FileLock:
    """A lock held while an address is opened: litdata deletes a cache that another process just begins."""
    from litdata.utilities.dataset_utilities import get_default_cache_dir

    folder = Path(download_dir or get_default_cache_dir())
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.lock")


def is_address(root: str) -> bool:
    """Whether a root is an address that litdata downloads from, and no folder."""
    return "://" in root or root.startswith("local:")


def read_index(root: str) -> dict[str, Any]:
    """The content of images.json.

    Raises:
        SettingError: it is missing, or cannot be read.
    """
    file = Path(root, INDEX)
    try:
        text = _download_index(root) if is_address(root) else file.read_text(encoding="utf-8")
        index = json.loads(text)
        complete = {"classes", "splits", "statistics", "side"} <= set(index)
    except FileNotFoundError:
        raise SettingError("data.root", f"{root} has no {INDEX}; {_EXPECTED}") from None
    except Exception as error:  # each kind of store has its own
        problem = f"{root}/{INDEX} cannot be read ({_problem(error)})"
        raise SettingError("data.root", f"{problem}; {_EXPECTED}") from error
    if not complete:
        raise SettingError("data.root", f"{root}/{INDEX} is of another kind; {_EXPECTED}")
    return index


def _download_index(root: str) -> str:
    import_litdata()
    from litdata.streaming.downloader import get_downloader

    with tempfile.TemporaryDirectory() as folder:
        downloader, file = get_downloader(root, folder, [], _store_options(root)), Path(folder) / INDEX
        with open(file, "wb") as opened:  # with the store's own client: obstore must not start before a fork
            downloader.download_fileobj(f"{root}/{INDEX}", opened)
        if not file.stat().st_size:  # a kind that has none
            file.unlink()
            downloader.download_file(f"{root}/{INDEX}", str(file))
        return file.read_text(encoding="utf-8")


def _store_options(address: str) -> dict[str, Any] | None:
    """Options for litdata, which asks an S3 store that does not answer 1000 times, for hours."""
    if not address.startswith("s3://"):
        return None
    from botocore.config import Config

    return {"config": Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10)}


def _allow_http() -> None:
    """Let litdata read chunks from stores at http://, as it reads its index: obstore refuses unless told."""
    from litdata.streaming import downloader

    getattr(downloader, "_OBSTORE_CLIENT_OPTIONS", {}).setdefault("allow_http", True)


def _problem(error: Exception) -> str:
    """What an error of a store says, without the details that obstore puts below it."""
    text = str(error).partition("\n\nDebug source:")[0]
    return " ".join(text.split()) or type(error).__name__


def import_litdata() -> Any:
    """The module litdata, with warnings and errors only.

    Raises:
        SettingError: it is not installed.
    """
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")  # else it asks PyPI at every start
    try:
        import litdata
    except ImportError as error:
        problem = f'streaming needs litdata: pip install -e ".[streaming]" ({error})'
        raise SettingError("data.name", problem) from None
    logging.getLogger("litdata").setLevel(logging.WARNING)
    return litdata
