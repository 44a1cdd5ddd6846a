"""Shards that webdataset's own writer has written, read by place; and shards that will not do."""

import io
import json
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from tiny_images import pixels

from vitrine.core.settings import SettingError
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.files import UnreadableImage
from vitrine.datamodules.shard_files import expand
from vitrine.datamodules.webdataset_source import WebDataset, WebDatasetSettings

webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")


def encoded(seed, kind="PNG"):
    content = io.BytesIO()
    Image.fromarray(pixels(seed).permute(1, 2, 0).numpy()).save(content, kind)
    return content.getvalue()


def write(file, samples):
    file.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(file)) as writer:
        for sample in samples:
            writer.write(sample)
    return file


def numbered(start, count):
    return [{"__key__": f"sub/{i:04d}", "png": encoded(i), "cls": i % 3} for i in range(start, start + count)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Five shards for training of 6 images each, one for validation."""
    root = tmp_path_factory.mktemp("shards")
    for i in range(5):
        write(root / f"birds-train-{i:03d}.tar", numbered(6 * i, 6))
    write(root / "birds-val-000.tar", numbered(30, 5))
    return root


def opened(root, **how):
    how = {"batch_size": 4, "workers": 0, "window": 2, "cache": "never"} | how
    data = WebDataset(WebDatasetSettings(root=root and str(root), **how))
    data.setup()
    return data


@pytest.mark.parametrize("cache", ["always", "never"])
@pytest.mark.parametrize(
    "how",
    [
        {"root": ""},
        {"root": "birds-{train-{000..004},val-000}.tar"},
        {"root": "*.tar"},
        {"root": "birds-train-{000..004}.tar", "val": "birds-val-000.tar"},
        {"root": "birds-train-{000..002}.tar::{root}/birds-train-00[34].tar", "val": "birds-v*.tar"},
    ],
    ids=["folder", "braces", "jokers", "two patterns", "parts"],
)
def test_samples_and_labels_are_those_of_webdatasets_reader(shards, how, cache):
    patterns = {key: str(shards / value).replace("{root}", str(shards)) for key, value in how.items()}
    data = opened(**patterns, cache=cache)
    assert data.classes == ["0", "1", "2"] and data.image_size == 8
    for split, files in (("train", "birds-train-{000..004}.tar"), ("val", "birds-val-000.tar")):
        reader = webdataset.WebDataset(str(shards / files), shardshuffle=False)
        expected = list(reader.decode("rgb8").to_tuple("png", "cls"))
        ours = getattr(data, split)
        assert len(ours) == len(expected) > 4
        images, labels = ours.batch(torch.arange(len(ours)))
        for image, (theirs, _) in zip(images, expected):
            assert torch.equal(image.permute(1, 2, 0), torch.tensor(theirs))
        assert labels.tolist() == ours.labels.tolist() == [label for _, label in expected]
    assert data.train.path(7) == "birds-train-001.tar: sub/0007"


@pytest.mark.parametrize(
    "label, how, classes",
    [
        ({"cls": 10}, {}, ["10"]),
        ({"txt": "a café/..\\"}, {}, ["a café/..\\"]),
        ({"json": {"id": 3, "label": "dog"}}, {}, ["dog"]),
        ({"json": {"kind": [4]}}, {"field": "kind"}, ["4"]),
        ({"cls": 1, "txt": "a caption"}, {}, ["1"]),
        ({"cls": 1, "Class.TXT": "cat"}, {"label": "class.txt"}, ["cat"]),
        ({"cls": 1, "seg.png": encoded(7)}, {}, ["1"]),
        ({"cls": 1}, {"classes": ["cat", "dog"]}, ["cat", "dog"]),
    ],
)
def test_labels_are_found_or_named(tmp_path, label, how, classes):
    write(tmp_path / "a.tar", [{"__key__": f"{i}", "png": encoded(i), **label} for i in range(4)])
    data = opened(tmp_path / "a.tar", val_fraction=0.5, **how)
    assert data.classes == classes
    seen = {pixels(i).numpy().tobytes() for i in range(4)}
    assert {image.numpy().tobytes() for split in (data.train, data.val) for image, _ in split} == seen


def without_end(file):
    content = file.read_bytes().rstrip(b"\0")
    file.write_bytes(content + b"\0" * (-len(content) % 512))  # the last block is whole, the end mark is gone


SHARDS = {  # what is done to a shard of good samples -> the answer
    "cut in a header": (lambda f: f.write_bytes(f.read_bytes()[:3000]), "a.tar is cut off, or no tar file"),
    "cut in an image": (lambda f: f.write_bytes(f.read_bytes()[:4200]), "a.tar is cut off, or no tar file"),
    "no end mark": (without_end, r"\(it has no end mark\); data.skip_corrupt=true reads what is whole"),
    "damaged": (
        lambda f: f.write_bytes(f.read_bytes()[:6144] + b"x" * 512 + f.read_bytes()[6656:]),
        "(damaged at byte|bad checksum|invalid header)",
    ),
    "two archives in one": (lambda f: f.write_bytes(f.read_bytes() * 2), "damaged at byte"),
    "empty": (lambda f: f.write_bytes(b""), r"no tar file \(empty file\)"),
    "no tar": (lambda f: f.write_bytes(b"<html>" * 900), "cut off, or no tar file"),
    "gzip": (lambda f: write(f.with_name("b.tar.gz"), numbered(0, 2)).rename(f), "is compressed, but"),
    "missing": (lambda f: f.unlink(), r"1 of 1 shards are not there: \S+a.tar; expected shards such as"),
}


@pytest.mark.parametrize("kind", SHARDS)
def test_a_shard_that_will_not_do_is_named_before_training(tmp_path, kind):
    damage, message = SHARDS[kind]
    damage(write(tmp_path / "a.tar", numbered(0, 8)))
    with pytest.raises(SettingError, match=message) as caught:
        opened(tmp_path / "a.tar")
    assert caught.value.key == "data.root" and "\n" not in str(caught.value)


def test_what_is_whole_of_a_shard_is_read_when_asked(tmp_path):
    file = write(tmp_path / "a.tar", numbered(0, 8))
    file.write_bytes(file.read_bytes()[:20000])
    data = opened(file, skip_corrupt=True, val_fraction=0.2)
    assert 2 < len(data.train) + len(data.val) < 8


SAMPLES = {
    "no label": (
        {"png": encoded(0)},
        {},
        r"data.label: \S+a.tar: sample 1 has no label \(.cls, .+\), but .p",
    ),
    "no such label": ({"png": encoded(0), "cls": 1}, {"label": "cat"}, "has no .cat, but .*.cls"),
    "no image": ({"cls": 1}, {}, "data.image: .* sample 1 has no image, but .cls"),
    "two images": (
        {"png": encoded(0), "jpg": b"", "cls": 1},
        {},
        "has (jpg and png|png and jpg): say",
    ),
    "empty label": ({"png": encoded(0), "txt": " \n"}, {"label": "txt"}, "a.tar: sample 1 has no label"),
    "no text": ({"png": encoded(0), "txt": b"\xff\xfe\x00"}, {}, "1.txt is no text, expected a class"),
    "no JSON": ({"png": encoded(0), "json": b"{"}, {}, "1.json is no JSON"),
    "no field": (
        {"png": encoded(0), "json": {"a": 1}},
        {},
        "data.field: .*which field is the label; it has a",
    ),
    "no such field": ({"png": encoded(0), "json": {"a": 1}}, {"field": "b"}, "has no 'b'; it has a"),
    "several": ({"png": encoded(0), "json": {"label": ["a", "b"]}}, {}, r"several labels.*\(multi-label\)"),
    "range": (
        {"png": encoded(0), "cls": 5},
        {"classes": ["a", "b"]},
        "sample 1 has label 5.*range: expected 0 to 1",
    ),
    "unknown": (
        {"png": encoded(0), "txt": "catt"},
        {"classes": ["cat", "b"]},
        "'catt', .*did you mean 'cat'",
    ),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_sample_that_will_not_do_is_named_before_training(tmp_path, kind):
    sample, how, message = SAMPLES[kind]
    write(tmp_path / "a.tar", [{"__key__": "1", **sample}])
    with pytest.raises(SettingError, match=message) as caught:
        opened(tmp_path / "a.tar", **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "how, message",
    [
        ({"root": None}, "data.root: is not set; expected shards such as"),
        (
            {"root": "https://host/train-{000..099}.tar"},
            "is no file: shards are read from disks; download them",
        ),
        ({"root": "pipe:curl -s there"}, "is no file"),
        ({"root": "birds-{train,val}-{000..004}.tar"}, r"4 of 10 shards are not there: \S+val-001.tar, "),
        ({"root": "birds-train-{000..004.tar"}, "a brace too many"),
        ({"root": "birds-train-{000}.tar"}, r"\{000\} lists nothing"),
        ({"root": "cats-*.tar"}, "cats-\\*.tar: there is none"),
        ({"root": "birds-val-000.tar"}, "images for val, but none to train on"),
        (
            {"root": "", "val": "birds-val-000.tar"},
            r"data.val: is given, but data.root has shards for val, too",
        ),
        ({"root": "birds-train-000.tar", "val": "birds-train-00*.tar"}, "000.tar is in two splits"),
    ],
)
def test_patterns_that_will_not_do(shards, monkeypatch, how, message):
    monkeypatch.chdir(shards)
    how = {key: value if value != "" else str(shards) for key, value in how.items()}
    with pytest.raises(SettingError, match=message):
        opened(**how)


def test_two_files_of_an_extension_and_names_of_one_split_only(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("1.png", "1.cls", "1.CLS"):
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(SettingError, match=r"sample 1 has two files \.cls"):
        opened(tmp_path / "a.tar")
    write(tmp_path / "more" / "train-0.tar", numbered(0, 2))
    write(tmp_path / "more" / "rest.tar", numbered(2, 2))
    with pytest.raises(SettingError, match=r"train-0.tar is of one split by its name, \S+rest.tar of none"):
        opened(tmp_path / "more")


def test_braces_are_those_of_the_library():
    braceexpand = pytest.importorskip("braceexpand").braceexpand
    for pattern in ("a{000..012}.tar", "{a,b{1..3}}-{9..11}", "x{3..1}", "{01..3}{,z}", "plain", "{-1..1}"):
        assert expand(pattern) == list(braceexpand(pattern)), pattern


def epoch(data, number=0, **how):
    order = data.sampler(data.train, 4, **({"seed": 0, "train": True} | how))
    return torch.cat(order.batches(number))


def test_an_epoch_keeps_few_shards_open_and_ranks_have_shards_of_their_own(shards):
    data = opened(shards, batch_size=2)
    shard_of = torch.arange(30) // 6
    order = epoch(data, 3)
    assert sorted(order.tolist()) != order.tolist() and len(set(order.tolist())) == 28
    for shard in range(5):
        places = (shard_of[order] == shard).nonzero().flatten()
        assert len(shard_of[order[places[0] : places[-1] + 1]].unique()) <= 2
    ranks = [epoch(data, rank=rank, world_size=2) for rank in (0, 1)]
    assert not set(ranks[0].tolist()) & set(ranks[1].tolist())
    common = set(shard_of[ranks[0]].tolist()) & set(shard_of[ranks[1]].tolist())
    assert len(common) <= 2


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_goes_on_where_it_stopped_whatever_the_number_of_workers(shards, workers):
    def batches(loader):
        loader.sampler.set_epoch(1)
        return [(batch.indices.tolist(), batch.images) for batch in loader]

    whole = batches(opened(shards).train_dataloader())
    loader = opened(shards).train_dataloader()
    loader.sampler.set_epoch(1)
    begun = iter(loader)
    for _ in range(3):
        next(begun)
    again = opened(shards, workers=workers).train_dataloader()
    again.load_state_dict(loader.state_dict())
    rest = batches(again)
    assert [i for i, _ in rest] == [i for i, _ in whole[3:]]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(rest, whole[3:], strict=True))


def test_images_are_read_where_the_system_cannot_read_from_a_place(shards, monkeypatch):
    """Windows, where threads move one place in the file."""
    expected = [image for image, _ in opened(shards).train]
    monkeypatch.delattr(os, "pread")
    found = opened(shards).train
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: found[i][0], range(len(found))))
    assert all(torch.equal(a, b) for a, b in zip(read, expected, strict=True))


@pytest.fixture
def few_files():
    """The process may open about 80 files more than it has open."""
    resource = pytest.importorskip("resource", reason="Windows has none")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as first_free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free.fileno() + 80, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_more_shards_are_read_than_files_may_be_open(tmp_path, few_files):
    for name in [*(f"train-{i:03d}" for i in range(100)), "val-000"]:
        write(tmp_path / f"{name}.tar", [{"__key__": name, "png": encoded(0), "cls": 0}])
    train = opened(tmp_path).train
    assert len([image for image, _ in train]) == 100
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(train.__getitem__, range(100)))) == 100


def test_a_shard_that_vanishes_or_changes_is_named(tmp_path):
    file = write(tmp_path / "a.tar", numbered(0, 8))
    data = opened(file, val_fraction=0.2)
    store = pickle.loads(pickle.dumps(data.train))  # as a worker gets it
    assert torch.equal(store[0][0], data.train[0][0])
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(
        UnreadableImage, match=r"a.tar: sample sub/\d+ cannot be read as an image \(No such file"
    ):
        pickle.loads(pickle.dumps(data.train))[0]
    file.write_bytes(content + b"\0" * 512)
    with pytest.raises(UnreadableImage, match="the shard is another one than at the start"):
        pickle.loads(pickle.dumps(data.train))[0]


def test_a_corrupt_image_is_named_or_left_out(tmp_path):
    samples = [*numbered(0, 6), {"__key__": "bad", "png": b"no image", "cls": 0}]
    write(tmp_path / "train-0.tar", samples)
    write(tmp_path / "val-0.tar", numbered(6, 3))
    with pytest.raises(
        SettingError, match=r"data.root: \S+train-0.tar: sample bad cannot be read as an image"
    ):
        opened(tmp_path, cache="always")
    data = opened(tmp_path, skip_corrupt=True)
    assert len(data.train) == 6 and sum(map(len, data.train_dataloader().sampler.batches(0))) == 4
    assert json.dumps(data.describe()).count("read from 2 tar files") == 1


def test_sampling_and_copies_are_those_of_the_settings_or_are_refused(shards):
    with pytest.raises(SettingError, match=r"data\.sampler: is balanced, but these images are read chunk by"):
        opened(shards, cache="never", sampler="balanced").train_dataloader()
    in_memory = opened(shards, cache="always", sampler="balanced").train_dataloader()
    assert type(in_memory.sampler).__name__ == "BalancedBatchSampler"
    for cache in ("never", "always"):
        data = opened(shards, cache=cache, batch_size=4, augment=Augment(repeats=2))
        for batch in data.train_dataloader().sampler.batches(0):
            assert {batch.tolist().count(index) for index in batch.tolist()} == {2}
        assert data.val_dataloader().sampler.copies == 1
