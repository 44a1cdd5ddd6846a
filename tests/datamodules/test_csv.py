"""Labels in tables, as people have them, and what is answered to tables that will not do."""

import csv

import pandas
import pytest
import torch
from tiny_images import picture, pixels

from vitrine.core.settings import SettingError
from vitrine.datamodules.csv_source import CSV, CSVSettings


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for i in range(8):
        picture(root / "pictures" / f"{i}.png", i)
    return root


@pytest.fixture
def table(images, tmp_path):
    """Writes a table beside the folder of pictures."""

    def write(text, name=f"{tmp_path.name}.csv", encoding="utf-8"):
        file = images / name
        file.write_bytes(text.encode(encoding))
        return file

    return write


def opened(file, **how):
    data = CSV(CSVSettings(file=str(file), **{"batch_size": 2, "workers": 0} | how))
    data.setup()
    return data


ROWS = [(i, "cat" if i % 2 else "a dog", "val" if i > 5 else "train") for i in range(8)]


def text_of(delimiter=",", header=("file", "label", "split"), rows=ROWS):
    lines = [header, *((f"pictures/{i}.png", label, split) for i, label, split in rows)]
    return "\n".join(delimiter.join(line[: len(header)]) for line in lines) + "\n"


def seeds_of(split):
    """Which pictures a split has, told by their pixels."""
    known = {pixels(i).numpy().tobytes(): i for i in range(8)}
    return [known[split[i][0].numpy().tobytes()] for i in range(len(split))]


@pytest.mark.parametrize("cache", ["always", "never"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_pixels_labels_and_splits_are_those_of_the_table(table, delimiter, encoding, cache):
    data = opened(table(text_of(delimiter), encoding=encoding), cache=cache)
    assert data.classes == ["a dog", "cat"] and data.image_size == 8
    assert seeds_of(data.train) == [0, 1, 2, 3, 4, 5] and seeds_of(data.val) == [6, 7]
    assert data.train.labels.tolist() == [0, 1] * 3 and data.val.labels.tolist() == [0, 1]
    assert [data.val.path(i) for i in range(2)] == ["pictures/6.png", "pictures/7.png"]


def test_a_test_split_is_held_out(table):
    names = ("train", "train", "Val", "testing")
    data = opened(table(text_of(rows=[(i, "ab"[i % 2], names[i // 2]) for i in range(8)])))
    assert data.has_test and seeds_of(data.train) + seeds_of(data.val) == list(range(6))
    assert seeds_of(data.test_split()) == [6, 7]
    rows = text_of(rows=[(i, "ab"[i % 2], "train" if i < 6 else "test") for i in range(8)])
    data = opened(table(rows), val_fraction=0.3)
    assert (len(data.train), seeds_of(data.test_split())) == (4, [6, 7])
    assert data.val.labels.tolist() == [0, 1]
    data = opened(table(rows), val_from="test")
    assert seeds_of(data.val) == [6, 7] and not data.has_test


def test_what_pandas_and_csv_write_is_read(images):
    frame = pandas.DataFrame(
        {"file": [f"pictures/{i}.png" for i in range(4)], "label": [3.0, 10.0, 3.0, 10.0]}
    )
    frame["remark"] = ['a "quoted" one', "two\nlines", "a, comma", "; and\ttab"]
    frame.to_csv(images / "pandas.csv", index=False)
    data = opened(images / "pandas.csv", val_fraction=0.5)
    assert data.classes == ["3", "10"] and len(data.train) == len(data.val) == 2
    with open(images / "own.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";", quoting=csv.QUOTE_ALL).writerows(
            [["label", "file"], ["x;y", "pictures/1.png"], ['"', "pictures/2.png"], ["x;y", "pictures/3.png"]]
        )
    assert opened(images / "own.csv", val_fraction=0.3).classes == ['"', "x;y"]


def test_columns_paths_and_class_names_may_be_said(table, images, tmp_path):
    rows = text_of(header=("id", "breed", "set")).replace("pictures/", "").replace(".png", "")
    names = {"file_column": "id", "label_column": "breed", "split_column": "set"}
    data = opened(
        table(rows), root=str(images / "pictures"), suffix=".png", classes=["cat", "a dog"], **names
    )
    assert data.classes == ["cat", "a dog"] and data.val.labels.tolist() == [1, 0]
    numbered = text_of(rows=[(i, str(i % 2), "") for i in range(8)], header=("file", "label"))
    data = opened(table(numbered), classes=["naïve", "con/..\\"], val_fraction=0.5)
    assert data.classes == ["naïve", "con/..\\"] and sorted(data.train.labels.tolist()) == [0, 0, 1, 1]


def test_paths_may_be_absolute_or_windows(table, images):
    text = f"file,label\n{images}/pictures/0.png,a\npictures\\1.png,b\n./pictures/2.png,b\n"
    assert sorted(seeds_of(opened(table(text), val_fraction=1).val)) == [0, 1, 2]


def test_integers_are_in_numerical_order_and_keep_their_names(table):
    rows = text_of(rows=[(i, str([2, 10, 9][i % 3]), "") for i in range(8)], header=("file", "label"))
    assert opened(table(rows), val_fraction=0.4).classes == ["2", "9", "10"]


@pytest.mark.parametrize(
    ("low", "high"),
    [("9007199254740992", "9007199254740993"), ("1", "1" * 400), ("7.0", "9007199254740993.0")],
)
def test_integers_of_any_size_are_classes_of_their_own(table, low, high):
    rows = text_of(rows=[(i, high if i % 2 else low, "") for i in range(8)], header=("file", "label"))
    data = opened(table(rows), val_fraction=0.5)
    assert data.classes == [low.partition(".")[0], high.partition(".")[0]]


def test_nan_is_a_name_beside_names(table):
    rows = text_of(rows=[(i, ("nan", "chapati")[i % 2], "") for i in range(8)], header=("file", "label"))
    assert opened(table(rows), val_fraction=0.5).classes == ["chapati", "nan"]


@pytest.mark.parametrize(
    "name", ["a;b", "x|y", "con", "-dash", "../up", "<b>", "猫", "q" * 240, "'", "1.5.2"]
)
def test_odd_names_are_names(table, name):
    rows = text_of(
        "\t", rows=[(i, name if i % 2 else "other", "") for i in range(8)], header=("file", "label")
    )
    assert opened(table(rows), val_fraction=0.5).classes == sorted([name, "other"])


def test_rows_that_repeat_themselves_count_once(table, caplog):
    data = opened(table(text_of() + "pictures/../pictures/3.png,cat,train\n"), cache="never")
    assert seeds_of(data.train) == [0, 1, 2, 3, 4, 5] and "1 rows count for nothing" in caplog.text


HEADER = "file,label,split\n"


@pytest.mark.parametrize(
    "text, how, message",
    [
        (
            text_of(header=("filename", "label")),
            {},
            r"file_column: .* did you mean data.file_column=f",
        ),
        (
            text_of(header=("file", "species")),
            {},
            r"label_column: .*no column 'label', but file, species; ",
        ),
        (text_of(), {"split_column": "sets"}, r"split_column: .* did you mean data.split_column=split"),
        (text_of(header=("file", "file")), {}, "column 'file' twice"),
        ("", {}, "is empty; expected a table with a header"),
        (HEADER, {}, "a header but no rows"),
        ("pictures/1.png,cat\npictures/2.png,dog\n", {}, "no column 'file', but pictures/1.png, cat"),
        (HEADER + "pictures/1.png,cat\n", {}, r"line 2 of .* has 2 fields, expected 3"),
        (HEADER + 'pictures/1.png,"cat,train\n', {}, r"line 2 of .* is no CSV: unexpected end of data"),
        (HEADER + "pictures/1.png,,train\n", {}, "line 2 has no label"),
        (HEADER + ",cat,train\n", {}, "line 2 names no file"),
        (
            HEADER + "pictures/1.png,cat,train\npictures/2.png,cat,holdout\n",
            {},
            "line 3 has split 'holdout',",
        ),
        (
            HEADER + "pictures/1.png,cat,train\npictures/2.png,cat,\n",
            {},
            "line 3 has no split, exp",
        ),
        (HEADER + "pictures/1.png,cat,val\n", {}, "images for val, but none to train on"),
        (HEADER + "pictures/1.png,cat,train\npictures/2.png,dog,val\n", {}, "'dog' has images in validation"),
        (
            HEADER + "".join(f"no/{i}.png,cat,train\n" for i in range(7)),
            {},
            r"7 of 7 files are not there: \S+no/0.png, (\S+, ){4}\.\.\.; paths are relative to the table's",
        ),
        (
            HEADER + "pictures/1.png,cat,train\n./pictures/1.png,dog,train\n",
            {},
            r"label 'cat' in line 2 and 'dog' in line 3: .*multi-label",
        ),
        (
            HEADER + "pictures/1.png,cat,train\npictures/1.png,cat,val\n",
            {},
            "split 'train' in line 2 and 'val' in line 3: it would be learned and measured",
        ),
        (
            "file,label\npictures/1.png,cat;dog\npictures/2.png,cat\n",
            {},
            r"line 2 has several labels, 'cat;dog': .*\(multi-label\) are not supported, expected one",
        ),
        ("file,label\npictures/1.png,a|b\npictures/2.png,b|c\n", {}, "several labels"),
        ("file,label\npictures/1.png,\"['a', 'b']\"\n", {}, "several labels"),
        ("file,label\npictures/1.png,0.25\npictures/2.png,1\n", {}, "label 0.25: a measurement is no class"),
        ("file,label\npictures/1.png,-1\npictures/2.png,1\n", {}, "label -1, which is out of range"),
        (
            "file,label\npictures/1.png,0\npictures/2.png,2\n",
            {"classes": ["a", "b"]},
            "line 3 has label 2, which is out of range: expected 0 to 1, as data.classes has 2 names",
        ),
        (
            text_of(),
            {"classes": ["cat", "dog"]},
            r"label 'a dog', which is none of data.classes; did you mean 'dog'",
        ),
        (text_of(), {"classes": ["cat", "cat"]}, "has a name twice"),
        (
            text_of(rows=[(i, ("nan", "1.0", "2.0")[i % 3], "") for i in range(8)]),
            {},
            "line 2 has no label, but nan, nor have 2 others",
        ),
        (
            text_of(rows=[(i, ("0", "9007199254740993")[i % 2], "") for i in range(8)]),
            {"classes": ["a", "b"]},
            "label 9007199254740993, which is out of range",
        ),
        (text_of(), {"root": "nowhere"}, "data.root: .*nowhere is no folder"),
    ],
)
def test_a_table_that_will_not_do_is_answered_in_one_line(table, text, how, message):
    with pytest.raises(SettingError, match=message) as caught:
        opened(table(text), **how)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_missing_or_no_text(table, images):
    table(text_of(), "labels.csv")
    with pytest.raises(SettingError, match=r"lables.csv is missing; did you mean .*/labels.csv\?"):
        opened(images / "lables.csv")
    with pytest.raises(SettingError, match=r"data.file: is not set; expected a table with a header"):
        CSV().setup()
    with pytest.raises(SettingError, match="is not UTF-8 in line 2: save it as UTF-8"):
        opened(table("file,label\npictures/1.png,naïve\n", encoding="latin-1"))
    with pytest.raises(SettingError, match="is a folder"):
        opened(images)


@pytest.mark.slow
def test_workers_and_ranks_read_the_same_images(table):
    file = table(text_of())
    alone = [batch.images for batch in opened(file, cache="never").train_dataloader()]
    shared = [batch.images for batch in opened(file, cache="never", workers=2).train_dataloader()]
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
