"""Images of Hugging Face's `datasets`: saved on disk, parquet files, or from the hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitrine.core.class_names import first_moved
from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.class_labels import NO_MULTI_LABEL, number_labels
from vitrine.datamodules.foreign_batches import LABEL_KEYS
from vitrine.datamodules.hf_store import (
    EXPECTED,
    HFStore,
    find_image_column,
    find_label_column,
    open_tables,
    undecoded,
)
from vitrine.datamodules.image_folders import split_of
from vitrine.datamodules.image_source import ImageSource, ImageSourceSettings, Labelled, StoredImages

log = logging.getLogger(__name__)

UNKNOWN = -1  # the label of images that have none, in the test splits of competitions


@dataclass
class HFSettings(ImageSourceSettings):
    root: str | None = setting(
        None, "folder of save_to_disk, folder of parquet files or images, or name on the hub"
    )
    config: str | None = setting(None, "which part, of a data set that has several")
    train: str | None = setting(None, "its split for training; null: train, or the only one")
    val: str | None = setting(None, "its split for validation; null: validation, valid, val or dev, if any")
    test: str | None = setting(None, "its split for the final test; null: test, if any")
    image: str | None = setting(None, "column of the images; null: the one that has some")
    label: str | None = setting(None, "column of the labels; null: the one that has class labels")


class HF(ImageSource):
    """Images that `datasets` knows; files are decoded as everywhere here, class names are those it has."""

    Settings = HFSettings
    settings: HFSettings

    def prepare_data(self) -> None:
        """Downloads, and converts, what is not in the cache of `datasets` yet."""
        self._open()

    def find(self) -> dict[str, Labelled]:
        tables = self._by_split(self._open())
        some = next(iter(tables.values()))
        image = find_image_column(some, self.settings.image)
        label = find_label_column(some, self.settings.label, LABEL_KEYS)
        if label == image:
            raise SettingError("data.label", f"is {label!r}, the column of the images")
        for split, table in tables.items():
            if missing := {image, label} - set(table.column_names):
                problem = f"split {split} has no column {min(missing)!r}, but {', '.join(table.column_names)}"
                raise SettingError("data.root", problem)
        values = {split: table.select_columns([label])[:][label] for split, table in tables.items()}
        if "test" in values and all(value in (UNKNOWN, None) for value in values["test"]):
            log.warning("%s: there is no test split, as its images have no labels", self.settings.root)
            del values["test"], tables["test"]
        self.store = HFStore(
            {split: undecoded(table, image) for split, table in tables.items()}, image, self.settings.root
        )
        every = [value for split in tables for value in values[split]]
        self.classes, labels = self._labels(some.features[label], label, every)
        parts = labels.split([len(values[split]) for split in tables])
        starts = dict(zip(tables, [0, *self.store.ends]))
        return {
            split: Labelled(range(starts[split], starts[split] + len(part)), part)
            for split, part in zip(tables, parts)
        }

    def images(self, found: Labelled, image_size: int, **options: Any) -> StoredImages:
        return StoredImages(found.files, found.labels, image_size, store=self.store, **options)

    def _open(self) -> dict[str, Any]:
        if not hasattr(self, "_opened"):
            settings = self.settings
            if not settings.root:
                raise SettingError("data.root", f"is not set; {EXPECTED}")
            place = Path(settings.root).expanduser()
            if place.exists():
                settings.root = str(place.absolute())  # a run is found again from everywhere
            self._opened = open_tables(settings.root, settings.config)
        return self._opened

    def _by_split(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """The data sets for training, validation and test; others are named in a warning."""
        found, names = {}, {}
        for split in ("train", "val", "test"):
            wanted = getattr(self.settings, split)
            if wanted is not None and wanted not in tables:
                close = nearest(wanted, tables, most=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                problem = f"is {wanted!r}, but the splits are {', '.join(tables)}{hint}"
                raise SettingError(f"data.{split}", problem)
            usual = [name for name in tables if split_of(name) == split]
            if split == "train" and not usual and len(tables) == 1:
                usual = list(tables)
            if wanted is None and len(usual) > 1:
                problem = f"say which is for it: the splits are {', '.join(tables)}"
                raise SettingError(f"data.{split}", problem)
            if wanted is not None or usual:
                names[split] = wanted if wanted is not None else usual[0]
                found[split] = tables[names[split]]
        if len(set(names.values())) < len(names):
            shown = ", ".join(f"data.{split}={name}" for split, name in names.items())
            raise SettingError("data.val", f"a split serves twice: {shown}")
        if "train" not in found:
            problem = f"say which split is for training: there are {', '.join(tables)}"
            raise SettingError("data.train", problem)
        if left := [name for name in tables if name not in names.values()]:
            log.warning("%s: left out the splits %s", self.settings.root, ", ".join(left))
        return found

    def _labels(self, feature: Any, column: str, values: list[Any]) -> tuple[list[str], torch.Tensor]:
        """Class names and labels of a column."""
        if any(isinstance(value, (list, dict)) for value in values[:1]):
            came = f"column {column!r} has {values[0]!r} in a row"
            raise SettingError("data.label", f"{came}: {NO_MULTI_LABEL}, expected one class")
        if type(feature).__name__ != "ClassLabel":
            texts = ["" if value is None else str(value) for value in values]
            return number_labels(texts, "data.label", self.store.name, self.settings.classes)
        names = [str(name) for name in self.settings.classes or feature.names]
        for number, value in enumerate(values):
            if value is None or not 0 <= value < len(names):
                came = f"{self.store.name(number)} has label {value}"
                expected = f"expected 0 to {len(names) - 1}, as there are {len(names)} class names"
                raise SettingError("data.label", f"{came}, which is out of range: {expected}")
        labels = torch.tensor(values, dtype=torch.int64)
        own = [str(name) for name in feature.names]
        if len(set(names)) < len(set(own)) == len(own) == len(names):
            raise SettingError("data.classes", "has a name twice")
        if names != own and set(names) == set(own):  # the same in another order
            return names, torch.tensor([names.index(name) for name in own])[labels]
        if len(names) == len(own) and (moved := first_moved(names, own)) is not None:
            came = f"renames {own[moved]!r} to {names[moved]!r}, which is the name of another class"
            raise SettingError("data.classes", f"{came} there: expected {', '.join(own[:8])} in any order")
        return names, labels
