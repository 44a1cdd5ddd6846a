"""Hugging Face's `datasets` from a folder or the hub, as images by number."""

from __future__ import annotations

import bisect
import io
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import UnreadableImage

EXPECTED = "expected a folder of save_to_disk, a folder of parquet files or images, or a name on the hub"
_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk writes


class HFStore:
    """The images of several data sets, by number; their files stay mapped into memory, and undecoded.

    Args:
        tables: data sets whose image column is not decoded, by the name of their split.
        column: the image column.
        root: where they are from, for messages.
    """

    def __init__(self, tables: Mapping[str, Any], column: str, root: str):
        self.splits, self.tables = list(tables), list(tables.values())
        self.ends = list(itertools.accumulate(len(table) for table in self.tables))
        self.column, self.root = column, root
        self.description = f"read from {root}"

    def name(self, number: int) -> str:
        """The data set, split and row of an image."""
        return f"{self.root}: {self.path(number)}"

    def path(self, number: int) -> str:
        """The split and row of an image."""
        table, row = self._find(number)
        return f"{self.splits[table]}, row {row}"

    def read(self, number: int) -> tuple[Path | BinaryIO, str]:
        table, row = self._find(number)
        name = self.name(number)
        try:
            image = self.tables[table][row][self.column]
        except Exception as error:  # pyarrow's
            raise UnreadableImage(f"{name} cannot be read as an image ({error})") from error
        if isinstance(image, Mapping):
            path, image = image.get("path"), image.get("bytes")
            if image is None and path:
                return Path(path), f"{name} ({path})"
        if image is None:
            raise UnreadableImage(f"{name} cannot be read as an image (there is none)")
        return io.BytesIO(image), name

    def _find(self, number: int) -> tuple[int, int]:
        table = bisect.bisect(self.ends, number)
        return table, number - (self.ends[table - 1] if table else 0)


def import_datasets() -> Any:
    """The module datasets, with progress bars on a terminal only.

    Raises:
        SettingError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        problem = f"hf needs datasets: pip install 'vitrine[hf]' ({error})"
        raise SettingError("data.name", problem) from None
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def open_tables(root: str, config: str | None) -> dict[str, Any]:
    """The data sets of a folder or of a name on the hub, by split; code that comes with them is never run.

    Raises:
        SettingError: of `data.root` or `data.config`, if there are none, or they cannot be had.
    """
    datasets = import_datasets()
    folder = Path(root)
    if folder.is_file():
        raise SettingError("data.root", f"{root} is a file; {EXPECTED}")
    if not folder.is_dir() and (root.count("/") > 1 or root[:1] in "./~"):
        raise SettingError("data.root", f"{root} is missing; {EXPECTED}")
    try:
        if any((folder / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(root)
        else:
            found = datasets.load_dataset(root, config)
    except Exception as error:  # of the library, of the hub, of the network, of pyarrow
        raise _as_setting_error(root, config, error) from error
    tables = found if isinstance(found, Mapping) else {"train": found}
    # some are saved with a format for training: tensors, of a few columns
    return {split: table.with_format(None) for split, table in tables.items()}


def _as_setting_error(root: str, config: str | None, error: Exception) -> SettingError:
    text = " ".join(str(error).split()) or type(error).__name__
    if ("onfig" in text and "pick one" in text) or "BuilderConfig" in text:
        return SettingError("data.config", f"is {config or 'not set'}: {text}")
    if os.path.isdir(root):
        return SettingError("data.root", f"{root} cannot be read as a data set ({text}); {EXPECTED}")
    return SettingError("data.root", f"{root} is no folder, nor could it be had from the hub: {text}")


def find_image_column(table: Any, wanted: str | None) -> str:
    """The column of a data set that has images.

    Raises:
        SettingError: of `data.image`, if there is no such column, none, or several.
    """
    features = table.features
    known = [name for name, feature in features.items() if _is_image(feature)]
    if wanted is not None:
        if wanted in known or (wanted in features and getattr(features[wanted], "dtype", "") == "binary"):
            return wanted
        raise SettingError("data.image", f"is {wanted!r}, expected a column of images; {_columns(features)}")
    if len(known) != 1:
        problem = f"say which column: {', '.join(known)} have images" if known else "no column has images"
        raise SettingError("data.image", f"{problem}; {_columns(features)}")
    return known[0]


def undecoded(table: Any, column: str) -> Any:
    """The data set with the files of its images in place of their pixels."""
    from datasets import Image

    table = table.select_columns([column])
    is_image = isinstance(table.features[column], Image)
    return table.cast_column(column, Image(decode=False)) if is_image else table


def _is_image(feature: Any) -> bool:
    kind = type(feature).__name__
    return kind == "Image" or (isinstance(feature, Mapping) and {"bytes", "path"} <= set(feature))


def _columns(features: Mapping[str, Any]) -> str:
    def kind(feature: Any) -> str:
        name = type(feature).__name__
        return str(getattr(feature, "dtype", name)) if name == "Value" else name

    return "there are " + ", ".join(f"{name} ({kind(feature)})" for name, feature in features.items())


def find_label_column(table: Any, wanted: str | None, usual: Sequence[str]) -> str:
    """The column of a data set that has labels: class labels, or one with a usual name.

    Raises:
        SettingError: of `data.label`, if there is no such column, none, or several.
    """
    features = table.features
    if wanted is not None:
        if wanted in features:
            return wanted
        raise SettingError("data.label", f"is {wanted!r}, expected a column of labels; {_columns(features)}")
    known = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    named = [name for name in usual if name in features and not _is_image(features[name])]
    if len(known) > 1 and (named[:1] or [""])[0] not in known:
        raise SettingError("data.label", f"say which column: {', '.join(known)} have class labels")
    if len(known) == 1:
        return known[0]
    if not named:
        raise SettingError("data.label", f"no column has class labels; {_columns(features)}")
    return named[0]
