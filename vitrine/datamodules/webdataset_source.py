"""Images in webdataset's shards, tar files, read by place and without that library.

Files only: an object store is what `data.name=streaming` is for.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.class_labels import number_labels
from vitrine.datamodules.files import map_in_threads, progress_bar
from vitrine.datamodules.image_folders import SUFFIXES
from vitrine.datamodules.image_source import ImageSource, ImageSourceSettings, Labelled, StoredImages
from vitrine.datamodules.shard_files import EXPECTED, find_shards, group_by_split, refuse_address
from vitrine.datamodules.tar_index import Sample, read_shard
from vitrine.datamodules.tar_store import TarStore

LABELS = ("cls", "class", "label", "json", "txt")  # extensions, in this order
FIELDS = ("label", "class", "cls", "target", "category", "class_name", "label_name")  # of a .json


@dataclass
class WebDatasetSettings(ImageSourceSettings):
    root: str | None = setting(
        None, "training shards, DIR/train-{000..099}.tar, or a folder of .tar files, of one split or several"
    )
    val: str | None = setting(None, "shards for validation; null: those of root whose names say so")
    test: str | None = setting(None, "shards for the final test; null: likewise")
    image: str | None = setting(None, "extension of the images, e.g. jpg; null: found")
    label: str | None = setting(
        None, "extension of the labels; null: of cls, class, label, json, txt the first"
    )
    field: str | None = setting(None, "where a .json has the label; null: label, class, cls, target, ...")
    window: int = setting(8, "shards whose images are shuffled together", least=1)


class WebDataset(ImageSource):
    """Images in shards, shuffled by shard, sharded by rank, indexed once: resumed at any step like files."""

    Settings = WebDatasetSettings
    settings: WebDatasetSettings

    def find(self) -> dict[str, Labelled]:
        shards = self._shards()
        every = [shard for files in shards.values() for shard in files]
        if len(set(every)) < len(every):
            twice = next(shard for shard in every if every.count(shard) > 1)
            raise SettingError("data.root", f"{twice} is in two splits, expected one")
        read = map_in_threads(self._read_shard, every)
        samples = list(progress_bar(read, "indexing shards", len(every), unit="shard"))
        self.store = TarStore(every, samples)
        texts = [text for shard in samples for _, _, _, text in shard]
        self.classes, labels = number_labels(texts, "data.label", self.store.name, self.settings.classes)
        found, start = {}, 0
        counts = iter(map(len, samples))
        for split, files in shards.items():
            end = start + sum(next(counts) for _ in files)
            if start == end:
                problem = f"the shards for {split} hold no samples, the first is {files[0]}"
                raise SettingError("data.root", problem)
            found[split], start = Labelled(range(start, end), labels[start:end]), end
        return found

    def images(self, found: Labelled, image_size: int, **options: Any) -> StoredImages:
        return StoredImages(found.files, found.labels, image_size, store=self.store, **options)

    def chunks(self, split: ImageDataset) -> list[int] | None:
        if not isinstance(split, StoredImages):
            return None
        shards = self.store.shard_of(split.files)
        return torch.unique_consecutive(shards, return_counts=True)[1].tolist()

    def _shards(self) -> dict[str, list[Path]]:
        """The shards of each split."""
        settings = self.settings
        for key in ("root", "val", "test"):
            if value := getattr(settings, key):
                refuse_address(f"data.{key}", value)
                paths = (os.path.abspath(os.path.expanduser(part)) for part in value.split("::"))
                setattr(settings, key, "::".join(paths))  # a run is found again from everywhere
        if not settings.root:
            raise SettingError("data.root", f"is not set; {EXPECTED}")
        shards = group_by_split(settings.root)
        for split in ("val", "test"):
            if pattern := getattr(settings, split):
                if split in shards:
                    problem = f"is given, but data.root has shards for {split}, too: {shards[split][0]}"
                    raise SettingError(f"data.{split}", problem)
                shards[split] = find_shards(f"data.{split}", pattern)
        return shards

    def _read_shard(self, shard: Path) -> list[tuple[str, int, int, str]]:
        """Of each sample of a shard: its key, its image's place and size, and its label's text."""
        found = []
        samples = read_shard(shard, whole=not self.settings.skip_corrupt)
        with open(shard, "rb") as file:
            for sample in samples:
                place, size = sample.places[self._image_extension(shard, sample)]
                found.append((sample.key, place, size, self._label(shard, sample, file)))
        return found

    def _image_extension(self, shard: Path, sample: Sample) -> str:
        wanted = self.settings.image and self.settings.image.lower().lstrip(".")
        if wanted is not None:
            extensions = [wanted] if wanted in sample.places else []
        else:
            extensions = [name for name in sample.places if f".{name.rpartition('.')[2]}" in SUFFIXES]
            extensions = [name for name in extensions if "." not in name] or extensions
        if len(extensions) == 1:
            return extensions[0]
        where = f"{shard}: sample {sample.key} has"
        if extensions:
            raise SettingError("data.image", f"{where} {' and '.join(extensions)}: say which is the image")
        raise SettingError("data.image", f"{where} no {wanted or 'image'}, but {_listed(sample)}")

    def _label(self, shard: Path, sample: Sample, file: BinaryIO) -> str:
        wanted = self.settings.label and self.settings.label.lower().lstrip(".")
        extension = wanted or next((name for name in LABELS if name in sample.places), None)
        if extension not in sample.places:
            expected = f"no .{wanted}" if wanted else f"no label (.{', .'.join(LABELS)})"
            problem = f"{shard}: sample {sample.key} has {expected}, but {_listed(sample)}"
            raise SettingError("data.label", problem)
        place, size = sample.places[extension]
        file.seek(place)
        where = f"{shard}: sample {sample.key}.{extension}"
        try:
            text = file.read(size).decode("utf-8")
        except UnicodeDecodeError:
            raise SettingError("data.label", f"{where} is no text, expected a class") from None
        return _field(text, self.settings.field, where) if extension.endswith("json") else text


def _field(text: str, field: str | None, where: str) -> str:
    """The label in a JSON text."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SettingError("data.label", f"{where} is no JSON ({error})") from None
    if isinstance(content, dict):
        name = field or next((name for name in FIELDS if name in content), None)
        if name not in content:
            came = f"has no {field!r}" if field else "does not say which field is the label"
            raise SettingError("data.field", f"{where} {came}; it has {', '.join(content) or 'none'}")
        content = content[name]
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if isinstance(content, dict):
        raise SettingError("data.field", f"{where} has {content!r} as label, expected a name or an integer")
    return "" if content is None else str(content)


def _listed(sample: Sample) -> str:
    return ", ".join(f".{name}" for name in sample.places)
