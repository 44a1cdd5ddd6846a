"""What counts as a split, a class and an image, in folders as people and programs leave them."""

import logging
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from vitrine.core.settings import SettingError
from vitrine.datamodules.folder import divide_folder
from vitrine.datamodules.splitting import SplitSettings

CLASSES = ("cat", "dog")


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name, "PNG")  # the name says nothing


def put_classes(folder, count=3, classes=CLASSES):
    for name in classes:
        put(folder / name, *(f"{i}.png" for i in range(count)))


def found(root, **options):
    """Class names, and the paths of training and validation images below the root."""
    classes, splits = found_splits(root, **options)
    return classes, splits["train"], splits["val"]


def normal(name):
    return unicodedata.normalize("NFC", name)


def found_splits(root, **options):
    """Class names, and the paths of the images of each split below the root."""
    classes, splits = divide_folder(str(root), SplitSettings(**{"val_fraction": 0.5} | options))
    for split in splits.values():
        for file, label in split:
            assert unicodedata.normalize("NFC", classes[label]) in unicodedata.normalize(
                "NFC", str(file)
            ).split("/")
    return classes, {
        name: [str(file.relative_to(root)) for file, _ in split] for name, split in splits.items()
    }


# hidden folders and files


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".git", ".cache", "__MACOSX", "@eaDir", "lost+found"])
def test_folders_of_programs_are_no_classes(tmp_path, name):
    put_classes(tmp_path)
    put(tmp_path / name, "x.png")
    put(tmp_path / "cat" / name, "x.png")
    put(tmp_path / "cat" / "more" / name / "deep", "x.png")
    classes, train, val = found(tmp_path)
    assert classes == ["cat", "dog"] and len(train + val) == 6
    for split in ("train", "val"):
        put_classes(tmp_path / "splits" / split)
        put(tmp_path / "splits" / split / name, "x.png")
    classes, train, val = found(tmp_path / "splits")
    assert classes == ["cat", "dog"] and (len(train), len(val)) == (6, 6)


def test_hidden_files_are_no_images(tmp_path):
    put_classes(tmp_path)
    put(tmp_path / "cat", "._0.png", ".thumbnail.png")  # as other systems write beside every file
    assert sum(map(len, found(tmp_path)[1:])) == 6


# links


def test_a_loop_of_links_multiplies_nothing(tmp_path):
    put_classes(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "dog" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "all").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dog" / "gone").symlink_to(tmp_path / "nowhere")
    classes, train, val = found(tmp_path)
    assert classes == ["cat", "dog"] and len(train + val) == 6


def test_images_and_folders_elsewhere_may_be_linked(tmp_path):
    put_classes(tmp_path / "store")
    root = tmp_path / "root"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "first.png").symlink_to(tmp_path / "store" / "cat" / "0.png")
    (root / "cat" / "others").symlink_to(tmp_path / "store" / "cat", target_is_directory=True)
    (root / "cat" / "others again").symlink_to(tmp_path / "store" / "cat", target_is_directory=True)
    (root / "dog").symlink_to(tmp_path / "store" / "dog", target_is_directory=True)
    classes, train, val = found(root)
    assert classes == ["cat", "dog"]
    assert sorted(train + val) == [
        "cat/first.png",
        *(f"cat/others/{i}.png" for i in range(3)),
        *(f"dog/{i}.png" for i in range(3)),
    ]


# splits


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize(
    "val", ["val", "Val", "valid", "validation", "Validation", "dev", "test", "TEST", "testing"]
)
def test_splits_are_known_by_their_usual_names(tmp_path, train, val):
    put_classes(tmp_path / train, 4)
    put_classes(tmp_path / val, 2)
    classes, training, validation = found(tmp_path, val_from="test")
    assert classes == ["cat", "dog"]
    assert all(path.startswith(f"{train}/") for path in training) and len(training) == 8
    assert all(path.startswith(f"{val}/") for path in validation) and len(validation) == 4


def test_validation_comes_before_test(tmp_path):
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        put_classes(tmp_path / split, count)
    for val_from in ("train", "test"):  # which is for folders without val/
        splits = found_splits(tmp_path, val_from=val_from)[1]
        assert {name: len(files) for name, files in splits.items()} == {"train": 6, "val": 4, "test": 2}
        assert all(path.startswith("test/") for path in splits["test"])


def test_a_test_folder_is_not_validated_on_unasked(tmp_path, caplog):
    put_classes(tmp_path / "Train", 10)
    put_classes(tmp_path / "TEST", 4)
    splits = found_splits(tmp_path, val_fraction=0.3)[1]
    assert {name: len(files) for name, files in splits.items()} == {"train": 14, "val": 6, "test": 8}
    assert all(path.startswith("Train/") for path in splits["train"] + splits["val"])
    (line,) = caplog.messages
    assert "6 of 20 training images are held out for it; data.val_from=test validates" in line


def test_a_test_folder_of_other_classes_is_no_test_split_and_said(tmp_path, caplog):
    for split in ("train", "val"):
        put_classes(tmp_path / split, 2)
    put(tmp_path / "test" / "unknown", "0.png")  # as competitions have them
    assert list(found_splits(tmp_path)[1]) == ["train", "val"]
    (line,) = caplog.messages
    assert line.startswith("there is no test split: ") and "test has class 'unknown', which train/" in line


def test_what_lies_beside_the_splits_is_named(tmp_path, caplog):
    for split in ("train", "val"):
        put_classes(tmp_path / split, 2)
    put(tmp_path / "test", "0.png")  # without labels
    put_classes(tmp_path / "unlabelled", 1)
    assert list(found_splits(tmp_path)[1]) == ["train", "val"]
    (line,) = caplog.messages
    assert "left out what lies beside the splits with a folder a class (test/, unlabelled/)" in line


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_classes_that_a_split_lacks_are_counted_and_named(tmp_path, caplog, held_out):
    names = tuple("abcdefgh")
    put_classes(tmp_path / "train", 1, names)
    put_classes(tmp_path / "val", 1, names[:2] if held_out == "val" else names)
    put_classes(tmp_path / "test", 1, names[:2] if held_out == "test" else names)
    found(tmp_path)
    kind = {"val": "validation", "test": "test"}[held_out]
    assert caplog.messages == [
        f"{tmp_path}: there are no {kind} images of 6 of 8 classes (c, d, e, f, g, ...)"
    ]


# names


def test_the_two_ways_to_write_an_accent_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    put_classes(tmp_path / "train", 2, (composed, "cat"))
    put_classes(tmp_path / "val", 1, (decomposed, "cat"))
    put_classes(tmp_path / "test", 1, (composed, decomposed, "cat"))
    classes, splits = found_splits(tmp_path)
    assert classes == sorted([composed, "cat"])
    assert {name: len(files) for name, files in splits.items()} == {"train": 4, "val": 2, "test": 3}


def test_a_class_may_be_called_train(tmp_path):
    put_classes(tmp_path, classes=("bicycle", "train", "test"))
    assert found(tmp_path)[0] == ["bicycle", "test", "train"]


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        (("train",), "has train/ but neither val/ nor test/"),
        (("val", "test"), "has test/ and val/ but no train/"),
        (("Validation",), "has Validation/ but no train/"),
        (("train", "Training", "val"), "has Training/ and train/, expected one"),
        (("train", "val", "validation"), "has val/ and validation/, expected one"),
    ],
)
def test_splits_that_are_missing_or_there_twice_are_named(tmp_path, splits, problem):
    for split in splits:
        put_classes(tmp_path / split)
    with pytest.raises(SettingError, match=rf"^data\.root: .*{problem}"):
        found(tmp_path)


def test_the_folder_above_the_right_one_is_answered_with_the_right_one(tmp_path):
    for split in ("train", "val"):
        put_classes(tmp_path / "archive" / split)
    with pytest.raises(SettingError, match=rf"did you mean {tmp_path}/archive\?"):
        found(tmp_path)


@pytest.mark.parametrize("folder", [".", "train"])
def test_a_class_without_images_is_named(tmp_path, folder):
    put_classes(tmp_path / folder)
    (tmp_path / folder / "logs").mkdir()
    (tmp_path / folder / "logs" / "training.log").touch()
    put_classes(tmp_path / "val") if folder == "train" else None
    with pytest.raises(SettingError, match=r"class 'logs' has no images"):
        found(tmp_path)


# files


@pytest.mark.parametrize(
    "suffix",
    [
        ".jpg",
        ".JPG",
        ".jpeg",
        ".jfif",
        ".png",
        ".gif",
        ".bmp",
        ".webp",
        ".tif",
        ".TIFF",
        ".jp2",
        ".avif",
        ".ppm",
        ".pgm",
    ],
)
def test_images_count_by_the_names_that_they_have(tmp_path, suffix):
    put_classes(tmp_path)
    put(tmp_path / "cat", f"more{suffix}")
    assert sum(map(len, found(tmp_path)[1:])) == 7


def test_files_that_do_not_count_are_counted_out_loud(tmp_path, caplog):
    put_classes(tmp_path)
    for name in ("cat/a.heic", "cat/b.HEIC", "dog/labels.txt", "dog/README"):
        (tmp_path / name).touch()
    (tmp_path / "outside.png").touch()  # of no class
    (tmp_path / "cat" / "Thumbs.db").touch()
    with caplog.at_level(logging.WARNING):
        found(tmp_path)
    outside = "1 image outside of the class folders"
    others = "4 files that are no images by name (2 .heic, 1 .txt, 1 without)"
    assert caplog.messages == [f"{tmp_path}: left out {outside}, {others}"]


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    put_classes(tmp_path)
    put(tmp_path / "cat" / "locked", "x.png")
    (tmp_path / "cat" / "locked").chmod(0)
    try:
        with pytest.raises(SettingError, match=r"^data\.root: .*cat/locked cannot be read"):
            found(tmp_path)
    finally:
        (tmp_path / "cat" / "locked").chmod(0o700)


def test_the_order_is_that_of_torchvision(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in (
        "b/2.png",
        "b/10.png",
        "b/a/1.png",
        "b/a.png",
        "b/a b/3.png",
        "a/1.png",
        "Z/1.PNG",
        "é/1.png",
    ):
        put(tmp_path / os.path.dirname(name), os.path.basename(name))
    classes, splits = divide_folder(str(tmp_path), SplitSettings(val_fraction=1))
    expected = ImageFolder(tmp_path)
    assert not splits["train"] and classes == expected.classes
    assert [(str(file), label) for file, label in splits["val"]] == expected.samples
