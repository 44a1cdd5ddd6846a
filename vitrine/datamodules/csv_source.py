"""Images that a table (CSV) lists, with their labels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from vitrine.core.home import absolute_path
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.class_labels import number_labels
from vitrine.datamodules.files import ImageFiles
from vitrine.datamodules.image_folders import split_of
from vitrine.datamodules.image_source import ImageSource, ImageSourceSettings, Labelled
from vitrine.datamodules.label_table import EXPECTED, Row, drop_repeated, find_files, read_table
from vitrine.datamodules.mask_files import MaskFiles, MaskSettings, open_masks


@dataclass
class CSVSettings(MaskSettings, ImageSourceSettings):
    """The table has a header; its delimiter (comma, semicolon, tab, bar) is found."""

    file: str | None = setting(None, "the table, labels.csv: a row an image, with columns file and label")
    root: str | None = setting(None, "folder that the files' paths are relative to; null: the table's")
    file_column: str = setting("file", "column of the images' paths")
    label_column: str = setting("label", "column of the labels: class names, or integers")
    split_column: str | None = setting(
        None, "column that says train, val or test; null: split, if there is such a column"
    )
    suffix: str = setting("", "appended to each path, e.g. .jpg where the table has names without it")


class CSV(ImageSource):
    """Images in files, of which a table says the labels and, if it has such a column, the splits."""

    Settings = CSVSettings
    settings: CSVSettings
    key = "data.file"
    _masks: MaskFiles | None = None

    def images(self, found: Labelled, image_size: int, **options: Any) -> ImageFiles:
        files = super().images(found, image_size, **{**options, "root": self.folder})
        files.mask_files, files.class_names = self._masks, self.classes
        return files

    def find(self) -> dict[str, Labelled]:
        settings = self.settings
        if not settings.file:
            raise SettingError("data.file", f"is not set; {EXPECTED}")
        place = absolute_path(settings.file)
        settings.file = str(place)  # a run is found again from everywhere
        columns = {kind: getattr(settings, f"{kind}_column") for kind in ("file", "label", "split")}
        table = read_table(place, columns)
        folder = place.parent
        if settings.root is not None:
            folder = absolute_path(settings.root)
            settings.root = str(folder)
        if not folder.is_dir():
            raise SettingError("data.root", f"{folder} is no folder, to which the files' paths are relative")
        self.folder = folder
        files = find_files(table, folder, settings.suffix)
        kept = drop_repeated(table, files, place)
        rows = [table[i] for i in kept]
        self.classes, labels = number_labels(
            [row.label for row in rows], "data.file", lambda i: f"line {rows[i].line}", settings.classes
        )
        self._masks = open_masks(settings, folder, [files[i] for i in kept])
        divided = settings.split_column is not None or any(row.split for row in rows)
        splits = defaultdict(list)
        for i, row in enumerate(rows):
            splits[_split_of(row) if divided else "train"].append(i)
        return {
            name: Labelled([files[kept[i]] for i in indices], labels[indices])
            for name, indices in splits.items()
        }


def _split_of(row: Row) -> str:
    split = split_of(row.split)
    if split is None:
        came = f"split {row.split!r}" if row.split else "no split"
        raise SettingError("data.file", f"line {row.line} has {came}, expected train, val or test")
    return split
