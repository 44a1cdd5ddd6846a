"""Folders of images as people, programs and systems leave them: what is hidden, foreign or a loop counts for
nothing, each image is of the class that its path says, or one message names what is wrong."""

from __future__ import annotations

import io
import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from cases import run_cases, time_limit
from hypothesis import strategies as st
from PIL import Image

from vitrine.core.settings import SettingError
from vitrine.datamodules.folder import divide_folder
from vitrine.datamodules.image_folders import SUFFIXES
from vitrine.datamodules.splitting import SplitSettings

SPLITS = ["train", "Train", "training", "val", "VAL", "valid", "validation", "dev", "test", "Testing"]
HIDDEN = [".ipynb_checkpoints", ".git", ".cache", "__MACOSX", "@eaDir", "__pycache__"]
CLASSES = ["cat", "dog", "a b", "train", "no", "007", "é", "x.jpg", "-", "Ⅷ"]
NAMES = ["0.png", "1.PNG", "2.jpeg", "3.jfif", "4.webp", "5.tif", "_.gif"]
OTHERS = [".0.png", "._1.png", "Thumbs.db", "labels.txt", "a.heic", "noext", "b.png.part", "desktop.ini"]

files = st.sampled_from(NAMES) | st.sampled_from(OTHERS)
folder_names = st.sampled_from(CLASSES + HIDDEN + SPLITS)
paths = st.lists(folder_names, max_size=3).flatmap(
    lambda parts: files.map(lambda name: "/".join([*parts, name]))
)
classes = st.sampled_from(CLASSES[:3])
images = st.sampled_from(NAMES)
flat = st.lists(st.builds("{}/{}".format, classes, images), min_size=2, max_size=9)
split = st.tuples(st.sampled_from(SPLITS[:3]), st.sampled_from(SPLITS[3:])).flatmap(
    lambda pair: st.lists(
        st.builds("{}/{}/{}".format, st.sampled_from(pair), classes, images), min_size=2, max_size=12
    )
)
links = st.tuples(
    st.builds("{}/{}".format, folder_names, st.sampled_from(["again.x", "up.x"])) | paths,
    st.sampled_from(["", "..", "train", "cat", "dog", "nowhere", "train/cat"]),
)
trees = st.tuples(flat | split, st.lists(paths, max_size=4), st.lists(links, max_size=3))
BYTES = io.BytesIO()
Image.new("RGB", (2, 2)).save(BYTES, "PNG")


def build(root: Path, tree: tuple[Any, ...]) -> None:
    for path in (*tree[0], *tree[1]):
        file = root / path
        if any(parent.is_file() for parent in file.parents if root in parent.parents) or file.is_dir():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(BYTES.getvalue())
    for path, target in tree[2]:
        link = (root / path).with_suffix("")
        if link.parent.is_dir() and not link.exists() and not link.is_symlink():
            link.symlink_to(root / target, target_is_directory=True)


def check_in(place: Path) -> Any:
    def check(tree: tuple[Any, ...]) -> str:
        shutil.rmtree(place, ignore_errors=True)
        root = place / "root"
        root.mkdir(parents=True)
        build(root, tree)
        try:
            with time_limit(10):
                names, splits = divide_folder(str(root), SplitSettings(val_fraction=0.5))
        except SettingError as refusal:
            assert refusal.key == "data.root" and "\n" not in str(refusal)
            return "refused by name"
        assert names == sorted(set(names)) and names
        seen = [file for split in splits.values() for file, _ in split]
        assert len(set(seen)) == len(seen) and seen
        for file, label in itertools.chain(*splits.values()):
            inside = file.relative_to(root).parts
            assert not any(part.startswith(".") or part in HIDDEN for part in inside), file
            assert file.suffix.lower() in SUFFIXES
            assert file.is_file() or file.is_symlink()  # a link to nothing is named when it is read
            assert names[label] in inside[:-1] and inside.index(names[label]) <= 1, (file, names[label])
        for split in splits.values():  # a loop of links multiplies nothing within a class
            resolved = [(file.resolve(), label) for file, label in split]
            assert len(set(resolved)) == len(resolved), "an image counts twice in its class"
        return "read"

    return check


def run(count: int, seed: int, folder: Path) -> Counter:
    """So many trees: how many are data sets, and how many are refused."""
    return run_cases(count, seed, trees, check_in(folder / "tree"))
