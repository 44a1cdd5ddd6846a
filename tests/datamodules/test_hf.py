"""Data sets of Hugging Face's `datasets` with known pixels, and those that will not do."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_images import picture, pixels

from vitrine.core.settings import SettingError
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.hf_source import HF, HFSettings
from vitrine.datamodules.image_source import StoredImages

datasets = pytest.importorskip("datasets", reason="datasets is not installed")
Value = datasets.Value
NAMES = ["a dog", "猫/.."]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing is asked of the hub, and the library's cache is the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    return [str(picture(root / f"{i}.png", i)) for i in range(8)]


def table(files, labels=None, label=None, **columns):
    """A data set of these files; by default their number is the label, even or odd."""
    labels = [int(file.rpartition("/")[2][0]) % 2 for file in files] if labels is None else labels
    features = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=NAMES)}
    content = {"image": files, "label": labels}
    made = datasets.Dataset.from_dict(content, datasets.Features(features))
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def saved(folder, **splits):
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def opened(root, **how):
    how = {"batch_size": 2, "workers": 0, "cache": "never"} | how
    data = HF(HFSettings(root=root and str(root), **how))
    data.prepare_data()
    data.setup()
    return data


def seeds_of(split):
    """Which pictures a split has, told by their pixels, with their labels."""
    known = {pixels(i).numpy().tobytes(): i for i in range(8)}
    images, labels = split.batch(torch.arange(len(split)))
    assert labels.tolist() == split.labels.tolist()
    return [(known[image.numpy().tobytes()], label) for image, label in zip(images, labels.tolist())]


TRAIN, VAL = [(i, i % 2) for i in range(6)], [(6, 0), (7, 1)]


@pytest.mark.parametrize("cache", ["always", "never"])
def test_a_saved_data_set_has_its_pixels_labels_and_names(files, tmp_path, cache):
    root = saved(tmp_path / "s", train=table(files[:6]), validation=table(files[6:]), test=table(files[:2]))
    data = opened(root, cache=cache)
    assert data.classes == NAMES and data.image_size == 8
    assert (seeds_of(data.train), seeds_of(data.val)) == (TRAIN, VAL)
    assert (data.train.path(3), data.val.path(1)) == ("train, row 3", "val, row 1")


def test_one_table_alone_is_divided_by_us(files, tmp_path):
    table(files).save_to_disk(str(tmp_path / "s"))
    data = opened(tmp_path / "s", val_fraction=0.25)
    assert len(data.train) == 6 and sorted(seeds_of(data.train) + seeds_of(data.val)) == TRAIN + VAL


@pytest.mark.parametrize("kind", ["parquet", "images"])
def test_folders_that_the_library_reads_are_read(files, tmp_path, kind):
    if kind == "parquet":
        table(files[:6]).to_parquet(tmp_path / "d" / "train-00000-of-00001.parquet")
        table(files[6:]).to_parquet(tmp_path / "d" / "validation-00000-of-00001.parquet")
    else:
        for i in range(8):
            picture(tmp_path / "d" / ("train" if i < 6 else "validation") / f"class{i % 2}" / f"{i}.png", i)
    data = opened(tmp_path / "d")
    assert data.classes == (NAMES if kind == "parquet" else ["class0", "class1"])
    assert sorted(seeds_of(data.train)) == TRAIN and sorted(seeds_of(data.val)) == VAL


def test_the_classes_of_a_column_may_be_put_in_another_order(files, tmp_path):
    table(files).save_to_disk(str(tmp_path / "s"))
    data = opened(tmp_path / "s", val_fraction=0.25, classes=NAMES[::-1])
    assert data.classes == NAMES[::-1]
    assert sorted(seeds_of(data.train) + seeds_of(data.val)) == [(i, 1 - i % 2) for i in range(8)]


@pytest.mark.parametrize(
    "labels, label, how, classes",
    [
        ([3, 10] * 4, Value("int32"), {}, ["3", "10"]),
        (["x", "a/b"] * 4, Value("string"), {}, ["a/b", "x"]),
        ([0, 1] * 4, Value("int64"), {"classes": ["no", "yes"]}, ["no", "yes"]),
        ([0, 1] * 4, Value("bool"), {}, ["False", "True"]),
        ([0, 1] * 4, None, {"classes": ["no", "yes"]}, ["no", "yes"]),
    ],
)
def test_labels_of_other_types(files, tmp_path, labels, label, how, classes):
    table(files, labels, label).save_to_disk(str(tmp_path / "s"))
    data = opened(tmp_path / "s", val_fraction=0.5, **how)
    assert data.classes == classes and len(data.train.labels.unique()) > 0


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("columns", [None, ["image"]])
def test_the_format_that_a_data_set_was_saved_with_is_none_of_ours(files, tmp_path, kind, columns):
    made = [table(files[:6], label=Value("int64")), table(files[6:], label=Value("int64"))]
    train, val = (some.with_format(kind, columns=columns) for some in made)
    data = opened(saved(tmp_path / "s", train=train, validation=val))
    assert data.classes == ["0", "1"] and (seeds_of(data.train), seeds_of(data.val)) == (TRAIN, VAL)


def test_columns_and_splits_may_be_said(files, tmp_path):
    both = table(files[:6]).rename_columns({"image": "left", "label": "fine"})
    both = both.add_column("coarse", ["x"] * 6).cast_column("coarse", datasets.ClassLabel(names=["x"]))
    both = both.add_column("right", files[:6]).cast_column("right", datasets.Image())
    root = saved(tmp_path / "s", first=both, second=both.select([4, 5]))
    with pytest.raises(SettingError, match=r"data.train: say which split is for training: there are first"):
        opened(root)
    with pytest.raises(SettingError, match=r"data.image: say which column: left, right have images"):
        opened(root, train="first")
    with pytest.raises(SettingError, match=r"data.label: say which column: fine, coarse have class labels"):
        opened(root, train="first", image="left")
    data = opened(root, train="first", val="second", image="right", label="fine")
    assert seeds_of(data.train) == TRAIN and seeds_of(data.val) == TRAIN[4:]
    with pytest.raises(SettingError, match=r"data.val: is 'secnd', but the splits are first, second; did"):
        opened(root, train="first", val="secnd")
    with pytest.raises(SettingError, match=r"data.val: a split serves twice: data.train=first, data.v"):
        opened(root, train="first", val="first")


def test_files_are_decoded_as_everywhere_here(files, tmp_path):
    photograph = io.BytesIO()
    upright = Image.new("RGB", (8, 8), "white")
    upright.paste("black", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    upright.rotate(180).save(photograph, "PNG", exif=exif)
    rows = [{"bytes": photograph.getvalue(), "path": None}, {"bytes": None, "path": files[1]}]
    table(rows, [0, 1]).save_to_disk(str(tmp_path / "s"))
    data = opened(tmp_path / "s", val_fraction=1)
    assert data.val[0][0][:, :4].max() == 0 and data.val[0][0][:, 4:].min() == 255
    assert torch.equal(data.val[1][0], pixels(1))


def test_bytes_without_the_librarys_types(files, tmp_path):
    raw = [Path(file).read_bytes() for file in files]
    features = datasets.Features({"image": {"bytes": Value("binary"), "path": Value("string")}})
    made = datasets.Dataset.from_dict({"image": [{"bytes": b, "path": None} for b in raw]}, features)
    made.add_column("raw", raw).add_column("label", [0, 1] * 4).save_to_disk(str(tmp_path / "s"))
    for image in (None, "raw"):
        assert sorted(seeds_of(opened(tmp_path / "s", val_fraction=1, image=image).val)) == TRAIN + VAL


WRONG = {  # a table -> the answer
    "several": (
        lambda f: table(f, [[0, 1]] * 8, datasets.List(Value("int64"))),
        {},
        r"\(multi-label\)",
    ),
    "measured": (lambda f: table(f, [0.5] * 8, Value("float32")), {}, "a measurement is no class"),
    "no labels": (
        lambda f: table(f).remove_columns("label"),
        {},
        r"no column has class labels; there are",
    ),
    "no images": (
        lambda f: table(f).remove_columns("image"),
        {},
        "data.image: no column has images; there",
    ),
    "no such image": (
        lambda f: table(f),
        {"image": "img"},
        r"is 'img', expected a column of images; the",
    ),
    "text as image": (lambda f: table(f, names=f), {"image": "names"}, r"names \(string\)"),
    "no such label": (
        lambda f: table(f),
        {"label": "cls"},
        "data.label: is 'cls', expected a column",
    ),
    "unlabelled": (
        lambda f: table(f, [0, -1] * 4),
        {},
        "train, row 1 has label -1, which is out of range",
    ),
    "no label": (
        lambda f: table(f, ["a", None] * 4, Value("string")),
        {},
        "row 1 has no label, nor",
    ),
    "swapped names": (
        lambda f: table(f),
        {"classes": [NAMES[1], "cat"]},
        f"renames 'a dog' to {NAMES[1]!r}, which is the name of another class",
    ),
    "names": (
        lambda f: table(f),
        {"classes": ["one"]},
        "label 1, which is out of range: expected 0 to 0",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_table_that_will_not_do_is_answered_in_one_line(files, tmp_path, kind):
    make, how, message = WRONG[kind]
    make(files).save_to_disk(str(tmp_path / "s"))
    with pytest.raises(SettingError, match=message) as caught:
        opened(tmp_path / "s", **how)
    assert "\n" not in str(caught.value)


def test_places_that_hold_none(files, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('was run')")
    broken = saved(tmp_path / "broken", train=table(files))
    next((broken / "train").glob("*.arrow")).write_bytes(b"nothing")
    for root, message in (
        (None, "data.root: is not set; expected a folder of save_to_disk"),
        (tmp_path / "none", "none is missing; expected a folder"),
        (tmp_path / "empty", "cannot be read as a data set .*doesn't contain any data files"),
        (tmp_path / "script", "scripts are no longer supported"),
        (broken, "broken cannot be read as a data set"),
        (files[0], "is a file; expected a folder"),
        ("somebody/something", "is no folder, nor could it be had from the hub"),
    ):
        with pytest.raises(SettingError, match=message) as caught:
            opened(root)
        assert "\n" not in str(caught.value)


def test_a_test_split_whose_labels_are_kept_secret_is_none(files, tmp_path, caplog):
    root = saved(tmp_path / "s", train=table(files[:6]), test=table(files[6:], [-1, -1]), extra=table(files))
    data = opened(root, val_fraction=0.5)
    assert len(data.train) == len(data.val) == 3 and not data.has_test
    assert "no test split, as its images have no labels" in caplog.text and "splits extra" in caplog.text


def test_it_goes_to_workers_and_a_file_that_vanishes_is_named(files, tmp_path):
    own = [str(picture(tmp_path / f"{i}.png", i)) for i in range(4)]
    rows = datasets.Dataset.from_dict({"image": own, "label": [0, 1] * 2})
    rows.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "s"))
    paths = [{"bytes": None, "path": file} for file in own]
    struct = {"bytes": Value("binary"), "path": Value("string")}
    rows = datasets.Dataset.from_dict(
        {"image": paths, "label": ["a", "b"] * 2},
        datasets.Features({"image": struct, "label": Value("string")}),
    )
    rows.save_to_disk(str(tmp_path / "p"))
    data = opened(tmp_path / "p", val_fraction=0.25)
    assert isinstance(data.train, StoredImages)
    sent = pickle.loads(pickle.dumps(data.train))
    assert all(torch.equal(sent[i][0], data.train[i][0]) for i in range(2))
    for file in own:
        picture(tmp_path / file, 0).unlink()
    with pytest.raises(UnreadableImage, match=r"train, row \d \(\S+png\) cannot be read .*No such"):
        data.train[0]


@pytest.mark.slow
def test_workers_read_the_same_images(files, tmp_path):
    root = saved(tmp_path / "s", train=table(files[:6]), validation=table(files[6:]))
    alone = [batch.images for batch in opened(root).train_dataloader()]
    shared = [batch.images for batch in opened(root, workers=2).train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
