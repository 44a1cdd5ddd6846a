"""Where in images that is which a network should look at: masks in files, or boxes of COCO or Pascal VOC."""

from __future__ import annotations

import json
import logging
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from vitrine.core.home import absolute_path
from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.image_folders import SUFFIXES
from vitrine.datamodules.number_files import load_array

log = logging.getLogger(__name__)

EXPECTED = "expected a folder of masks, or of Pascal VOC's .xml, named as the images, or a .json of COCO"
OBJECT = "object"  # what masks are of, by name
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")  # which does not keep zeros


@dataclass
class MaskSettings:
    """Where it should look, of sources whose images are files."""

    masks: str | None = setting(
        None,
        "what a network should look at: a folder of images with the images' names, in which it is not zero, "
        "or of Pascal VOC's .xml, or a .json of COCO; null: unknown",
    )


def open_masks(settings: MaskSettings, root: str | Path, files: Sequence[Path]) -> MaskFiles | None:
    """The masks of these images, whose names are relative to `root`; None where none are set.

    None is read yet. `settings.masks` becomes absolute.

    Raises:
        SettingError: as `MaskFiles` and its `check`.
    """
    if settings.masks is None:
        return None
    masks = MaskFiles(settings.masks, root)
    settings.masks = str(masks.place)  # a run is found again from everywhere
    masks.check(files)
    return masks


@dataclass(frozen=True)
class Boxes:
    """Boxes in an image, and where they were read."""

    corners: Sequence[Sequence[float]]  # left, top, right, bottom, in pixels
    names: Sequence[str]  # what each is of
    size: tuple[int, int]  # width and height of the image
    source: object

    def of(self, name: str) -> Boxes:
        """Those of this name, in any case; all where there is none of it."""
        own = [i for i, other in enumerate(self.names) if other.lower() == name.lower()]
        kept = own or range(len(self.names))
        corners, names = [self.corners[i] for i in kept], [self.names[i] for i in kept]
        return Boxes(corners, names, self.size, self.source)

    def draw(self) -> Image.Image:
        """The mask of the pixels that a box covers or touches, 255 in mode L.

        Raises:
            UnreadableImage: a box is empty, or reaches more than a pixel out of the image.
        """
        (width, height), mask = self.size, np.zeros(self.size[::-1], np.uint8)
        for left, top, right, bottom in self.corners:
            inside = -1 <= left < right <= width + 1 and -1 <= top < bottom <= height + 1
            if not inside:
                came = f"a box from ({left:g}, {top:g}) to ({right:g}, {bottom:g})"
                raise UnreadableImage(f"{self.source} has {came} in an image of {width} x {height}")
            rows = slice(max(0, math.floor(top)), math.ceil(bottom))
            mask[rows, max(0, math.floor(left)) : math.ceil(right)] = 255
        return Image.fromarray(mask)


class MaskFiles:
    """The masks of images, found by the images' names relative to a folder; see `MaskSettings.masks`.

    Of boxes those count that are called as the image's class, or all where none is.

    Raises:
        SettingError: there is no such folder or file, it holds no masks, or several of one name.
    """

    def __init__(self, place: str | Path, root: str | Path):
        self.place, self.root = absolute_path(place), absolute_path(root)
        self._found: dict[str, Path | Boxes] = {}
        if self.place.is_dir():
            for file in _files_below(self.place):
                self._add(_key(file, self.place), file)
            tables = sorted(self.place.glob("*.json"))
        elif self.place.suffix.lower() == ".json" and self.place.is_file():
            tables = [self.place]
        else:
            problem = "is neither a folder nor a .json" if self.place.exists() else "is missing"
            raise SettingError("data.masks", f"{self.place} {problem}; {EXPECTED}")
        for table in tables:
            for name, boxes in _read_coco(table).items():
                self._add(_normal(os.path.splitext(name)[0]), boxes)
        if not self._found:
            raise SettingError("data.masks", f"{self.place} holds no masks; {EXPECTED}")

    def find(self, file: Path) -> Path | Boxes | None:
        """Where the mask of an image is; None: it has none. COCO's names may lack the folders."""
        key = _key(file, self.root)
        found = self._found.get(key)
        if found is None and isinstance(other := self._found.get(key.rpartition("/")[2]), Boxes):
            found = other
        return found

    def read(
        self, file: Path, image_size: Callable[[], tuple[int, int]], class_name: str
    ) -> Image.Image | None:
        """The mask of an image: mode L, 0 or 255; None: it has none.

        Args:
            image_size: gives the image's width and height; not called where there is no mask.

        Raises:
            UnreadableImage: it cannot be read, or has another size than the image.
        """
        found = self.find(file)
        if found is None:
            return None
        boxes = _read_voc(found) if isinstance(found, Path) and found.suffix.lower() == ".xml" else found
        name = boxes.source if isinstance(boxes, Boxes) else found
        shown = boxes.of(class_name).draw() if isinstance(boxes, Boxes) else _read_mask(found)
        if shown.size != (size := image_size()):
            hint = "; data.exif=false reads it as stored" if shown.size == size[::-1] else ""
            came, expected = (f"{width} x {height}" for width, height in (shown.size, size))
            raise UnreadableImage(f"{name} is of {came} pixels, but the image {file} of {expected}{hint}")
        return shown

    def check(self, files: Sequence[Path]) -> None:
        """Log how many of the images have masks.

        Raises:
            SettingError: none has, or a name in COCO's table is that of several images.
        """
        found = [self.find(file) for file in files]
        missing = [file for file, one in zip(files, found) if one is None]
        if len(missing) == len(files):
            expected, (came, *_) = _key(files[0], self.root), self._found
            close = nearest(expected, list(self._found)[:2000], most=1)
            problem = f"{self.place} has no mask of the {len(files):,} images"
            hint = f"the first would be {expected}.*, there is {(close or [came])[0]}"
            raise SettingError("data.masks", f"{problem}: {hint}")
        self._refuse_ambiguous(files, found)
        used = {id(one) for one in found}
        unused = sum(id(one) not in used for one in self._found.values())
        rest = f"; {len(missing):,} have none, the first is {missing[0]}" if missing else ""
        rest += f"; {unused:,} masks are of none of these images" if unused else ""
        level = logging.WARNING if rest else logging.INFO
        count = f"{len(files) - len(missing):,} of {len(files):,}"
        log.log(level, "masks: %s images have one%s", count, rest)

    def _add(self, key: str, found: Path | Boxes) -> None:
        if (other := self._found.setdefault(key, found)) is not found:
            names = " and ".join(str(one.source if isinstance(one, Boxes) else one) for one in (other, found))
            raise SettingError("data.masks", f"{key} has two masks, {names}; expected one")

    def _refuse_ambiguous(self, files: Sequence[Path], found: Sequence[Path | Boxes | None]) -> None:
        by_boxes = Counter(id(one) for one in found if isinstance(one, Boxes))
        for file, one in zip(files, found):
            if by_boxes[id(one)] > 1:
                problem = f"{one.source} is of {by_boxes[id(one)]} images, one of them {file}"
                expected = f"expected names with the folders below {self.root}"
                raise SettingError("data.masks", f"{problem}; {expected}")


def _files_below(folder: Path) -> Iterable[Path]:
    """The masks and .xml in a folder and below it, in order of their names."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in (*SUFFIXES, ".xml"):
                yield Path(parent, name)


def _key(file: Path, root: Path) -> str:
    """What an image and its mask have in common: the path below their folders, without the extension."""
    path, root = Path(os.path.abspath(file)), Path(os.path.abspath(root))  # without `..`
    name = path.relative_to(root) if path.is_relative_to(root) else path
    return _normal(name.with_suffix("").as_posix())


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.removeprefix("./"))


def _read_mask(file: Path) -> Image.Image:
    try:
        if file.suffix.lower() == ".npy":
            with open(file, "rb") as opened:
                numbers = load_array(opened)
            if numbers.ndim != 2:
                raise ValueError(f"it has shape {numbers.shape}, expected rows and columns")
        else:
            with Image.open(file) as image:
                numbers = _numbers(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        raise UnreadableImage(f"{file} cannot be read as a mask ({error})") from error
    inside = numbers >= 128 if file.suffix.lower() in _JPEG else numbers != 0
    return Image.fromarray(inside.astype(np.uint8) * 255)


def _numbers(image: Image.Image) -> np.ndarray:
    """The numbers of a mask, [H, W]: of colours the largest, 0 where it is transparent; of a palette the
    index."""
    if len(image.getbands()) == 1:
        return _opaque(np.array(image), image.info.get("transparency"))
    levels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    largest = levels[..., :3].max(-1)
    return largest if levels.shape[-1] == 3 else largest * (levels[..., 3] > 0)


def _opaque(numbers: np.ndarray, transparency: bytes | int | None) -> np.ndarray:
    """The numbers of one band, 0 where they are transparent: a number, or as the alpha of each index says."""
    if transparency is None:
        return numbers
    if isinstance(transparency, bytes):
        transparent = np.flatnonzero(np.frombuffer(transparency, np.uint8) == 0)
    else:  # Pillow calls the 1 of one bit 255
        transparent = [transparency > 0 if numbers.dtype == bool else transparency]
    return np.where(np.isin(numbers, transparent), 0, numbers)


def _read_voc(file: Path) -> Boxes:
    """The boxes in a file of Pascal VOC (Everingham 2010), whose corners are pixels counted from 1."""
    try:
        root = ElementTree.parse(file).getroot()
        size = int(root.findtext("size/width")), int(root.findtext("size/height"))
        corners, names = [], []
        for found in root.iter("object"):
            left, top, right, bottom = (
                float(found.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            corners.append((left - 1, top - 1, right, bottom))
            names.append((found.findtext("name") or "").strip())
    except (ElementTree.ParseError, OSError, TypeError, ValueError) as error:
        raise UnreadableImage(f"{file} cannot be read as boxes of Pascal VOC ({error})") from error
    return Boxes(corners, names, size, file)


def _read_coco(file: Path) -> dict[str, Boxes]:
    """The boxes in a file of COCO (Lin 2014), [left, top, width, height] from 0, by the image's file name."""
    try:
        table: Any = json.loads(file.read_text(encoding="utf-8"))
        called = {one["id"]: str(one["name"]) for one in table.get("categories", ())}
        boxes: dict[str, Boxes] = {}
        of: dict[Any, Boxes] = {}
        for image in table["images"]:
            source = f"{file}, {image['file_name']}"
            of[image["id"]] = Boxes([], [], (int(image["width"]), int(image["height"])), source)
            if boxes.setdefault(image["file_name"], of[image["id"]]) is not of[image["id"]]:
                raise ValueError(f"{image['file_name']} occurs twice among its images")
        for one in table["annotations"]:
            left, top, width, height = map(float, one["bbox"])
            of[one["image_id"]].corners.append((left, top, left + width, top + height))
            of[one["image_id"]].names.append(called.get(one.get("category_id"), ""))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SettingError("data.masks", f"{file} cannot be read as boxes of COCO ({what})") from error
    return {name: found for name, found in boxes.items() if found.corners}
