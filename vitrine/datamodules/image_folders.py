"""Which files of a folder are images, of which class and of which split."""

import logging
import os
import unicodedata
from collections import Counter
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import missing_codec

log = logging.getLogger(__name__)

Samples = list[tuple[Path, int]]
SUFFIXES = frozenset((*IMG_EXTENSIONS, ".jfif", ".jpe", ".gif", ".jp2", ".j2k", ".avif", ".npy"))
_SPLITS = {  # the usual names, in any case
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# what systems and programs leave, beside hidden files and folders
_IGNORED = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "__pycache__")
_IGNORED += ("thumbs.db", "desktop.ini")
_LAYOUT = "expected ROOT/train/CLASS/*.jpg with ROOT/val or ROOT/test, or ROOT/CLASS/*.jpg"


def split_of(name: str) -> str | None:
    """The split ("train", "val" or "test") that usually has this name, in any case; None: it names none."""
    return next((split for split, usual in _SPLITS.items() if name.lower() in usual), None)


def list_images(root: str | None) -> tuple[list[str], dict[str, Samples]]:
    """Class names, and the images of the splits of a folder, each image a file and its label.

    Hidden files and folders do not count. Files that are no images by their names, images outside of the
    class folders, and folders beside the splits are counted in a warning. Links are followed, but each folder
    is visited once in a class. Names that differ in their Unicode normalisation alone are one.

    Args:
        root: ROOT/train/CLASS with ROOT/val or ROOT/test, or ROOT/CLASS alone. The splits may also be called
            Train, training, valid, validation, dev, ...

    Returns:
        The classes of training, sorted, and the images of "train", "val" and "test", of those that there are;
        all are "train" where there are no splits.

    Raises:
        SettingError: `data.root` is missing, empty, or has another layout.
    """
    if not root:
        raise SettingError("data.root", f"is not set; {_LAYOUT}")
    path = Path(root).expanduser()
    if not path.is_dir():
        problem = "not a folder" if path.exists() else "missing"
        raise SettingError("data.root", f"{path} is {problem}; {_LAYOUT}")
    places = _find_splits(path)
    train_dir = places["train"]
    names: dict[str, str] = {}
    for name in _subfolders(train_dir):
        names.setdefault(_normal(name), name)
    if not (classes := list(names.values())):
        raise SettingError("data.root", f"{train_dir} holds no folder a class; {_LAYOUT}")
    others: Counter[str] = Counter()
    found = {"train": _list_samples(train_dir, classes, others)}
    if empty := set(range(len(classes))) - {label for _, label in found["train"]}:
        problem = f"class {classes[min(empty)]!r} has no images"
        raise SettingError("data.root", f"{problem} in {train_dir} ({', '.join(sorted(SUFFIXES))})")
    for split in places.keys() - {"train"}:
        try:
            _check_classes(places[split], train_dir, classes)
            found[split] = _list_samples(places[split], classes, others)
        except SettingError as error:
            if split == "val" or "val" not in places:
                raise
            log.warning("there is no test split: %s", error.problem)  # training needs none
    outside = sum(_is_image(name) for folder in {path, *places.values()} for name in os.listdir(folder))
    beside = sorted(set(_subfolders(path)) - {place.name for place in places.values()})
    _warn_of_ignored(path, outside, others, [] if train_dir == path else beside)
    return classes, found


def _check_classes(folder: Path, train_dir: Path, classes: list[str]) -> None:
    """Raise SettingError if a split has a class that training has not."""
    known = set(map(_normal, classes))
    if unknown := [name for name in _subfolders(folder) if _normal(name) not in known]:
        raise SettingError("data.root", f"{folder} has class {unknown[0]!r}, which {train_dir.name}/ has not")


def _normal(name: str) -> str:
    """A name in one of the two ways in which Unicode writes an accent: macOS writes the other."""
    return unicodedata.normalize("NFC", name)


def _find_splits(path: Path) -> dict[str, Path]:
    """The folders of the splits; `path` itself is "train" where classes are not divided into splits."""
    folders = _subfolders(path)
    splits = _splits_among(path, folders)
    for names in splits.values():
        if len(names) > 1:
            raise SettingError("data.root", f"{path} has {_listed(names)}, expected one")
    held_out = [*splits["val"], *splits["test"]]
    if splits["train"]:
        if not held_out:
            problem = f"{path} has {_listed(splits['train'])} but neither val/ nor test/"
            alone = f"; to train on {splits['train'][0]}/ alone, data.root={path / splits['train'][0]}"
            raise SettingError("data.root", f"{problem} with a folder a class{alone}")
        return {split: path / names[0] for split, names in splits.items() if names}
    if held_out and set(folders) == set(held_out):
        raise SettingError("data.root", f"{path} has {_listed(sorted(held_out))} but no train/; {_LAYOUT}")
    for name in folders[:3]:
        if _splits_among(path / name, _subfolders(path / name))["train"]:
            raise SettingError("data.root", f"{path} holds no folder a class; did you mean {path / name}?")
    return {"train": path}


def _splits_among(path: Path, folders: list[str]) -> dict[str, list[str]]:
    """The folders with the usual names of each split, if they hold folders: a class may be called train."""
    return {
        split: [name for name in folders if name.lower() in usual and _subfolders(path / name)]
        for split, usual in _SPLITS.items()
    }


def _subfolders(folder: Path) -> list[str]:
    """The folders in a folder that may be classes, sorted, without links to the folder or those above it."""
    above = _with_parents(folder)
    folders = (path for path in folder.iterdir() if _counts(path.name) and os.path.isdir(path))
    return sorted(path.name for path in folders if not (path.is_symlink() and path.resolve() in above))


def _list_samples(folder: Path, classes: list[str], others: Counter[str]) -> Samples:
    """The images of all classes with their labels, in torchvision's order: by class, folder and name."""
    samples: Samples = []
    places: dict[str, list[Path]] = {}
    for name in _subfolders(folder):
        places.setdefault(_normal(name), []).append(folder / name)
    for label, name in enumerate(classes):
        files = [file for place in places.get(_normal(name), ()) for file in _list_files(place)]
        samples += [(file, label) for file in files if _is_image(file.name)]
        others.update(file.suffix.lower() for file in files if not _is_image(file.name))
    if not samples:
        problem = f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})"
        raise SettingError("data.root", f"{problem}; {_LAYOUT}")
    return samples


def _list_files(folder: Path) -> list[Path]:
    """The files in a folder and below it that count; each folder, however it is reached, is visited once."""
    visited, found = _with_parents(folder), []

    def is_new(parent: str, name: str) -> bool:
        target = Path(parent, name).resolve()
        return target not in visited and not visited.add(target)

    for parent, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _counts(name) and is_new(parent, name)]
        found.append((parent, sorted(filter(_counts, files))))
    return [Path(parent, name) for parent, names in sorted(found) for name in names]


def _with_parents(folder: Path) -> set[Path]:
    return {folder.resolve(), *folder.resolve().parents}


def _refuse(error: OSError) -> None:
    raise SettingError("data.root", f"{error.filename} cannot be read: {error.strerror}") from None


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _IGNORED


def _is_image(name: str) -> bool:
    return _counts(name) and os.path.splitext(name)[1].lower() in SUFFIXES and not missing_codec(name)


def _described(suffix: str) -> str:
    codec = missing_codec(suffix)
    return f"{suffix}, as Pillow here has no {codec}" if codec else suffix or "without"


def _warn_of_ignored(path: Path, outside: int, others: Counter[str], beside: list[str]) -> None:
    ignored = [f"{outside} image{'s' * (outside > 1)} outside of the class folders"] if outside else []
    if total := others.total():
        kinds = sorted(others.items(), key=lambda item: (-item[1], item[0] or "~"))
        shown = ", ".join(f"{count} {_described(suffix)}" for suffix, count in kinds[:5])
        files = "file that is no image" if total == 1 else "files that are no images"
        ignored.append(f"{total} {files} by name ({shown})")
    if beside:
        shown = [f"{name}/" for name in beside[:5]] + ["..."] * (len(beside) > 5)
        ignored.append(f"what lies beside the splits with a folder a class ({', '.join(shown)})")
    if ignored:
        log.warning("%s: left out %s", path, ", ".join(ignored))


def _listed(names: list[str]) -> str:
    return " and ".join(f"{name}/" for name in names)
