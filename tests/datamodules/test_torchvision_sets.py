"""Each set is written as it lies on disk, a few images long, and read through torchvision."""

import pickle
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from vitrine.core.settings import SettingError
from vitrine.datamodules import DATA

TRAIN, VAL = 7, 4
DRAW = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch):
    for module in ("cifar", "svhn", "stl10"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: path is not None
        )


def pixels(count, *shape):
    return DRAW.integers(0, 256, (count, *shape), dtype=np.uint8)


def write_idx(root, folder):
    expected = []
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", TRAIN), ("t10k", VAL)):
        images, labels = pixels(count, 28, 28), np.arange(count, dtype=np.uint8) % 10
        header = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes()
        )
        expected.append((images[:, None], labels))
    return expected


def write_cifar(root, folder, key, meta, batches):
    expected = []
    (root / folder).mkdir()
    names = [f"class {i}" for i in range(10)]
    for split in batches:
        images, labels = pixels(TRAIN * len(split), 3, 32, 32), np.arange(TRAIN * len(split)) % 10
        for i, name in enumerate(split):
            part = slice(i * TRAIN, (i + 1) * TRAIN)
            entry = {"data": images[part].reshape(TRAIN, -1), key: labels[part].tolist()}
            (root / folder / name).write_bytes(pickle.dumps(entry))
        expected.append((images, labels))
    (root / folder / meta[0]).write_bytes(pickle.dumps({meta[1]: names}))
    return expected


def write_svhn(root):
    from scipy.io import savemat

    expected = []
    for name, count in (("train", TRAIN), ("test", VAL)):
        images, labels = pixels(count, 3, 32, 32), np.arange(count) % 10
        stored = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]}
        savemat(root / f"{name}_32x32.mat", stored)
        expected.append((images, labels))
    return expected


def write_stl10(root):
    expected = []
    folder = root / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)) + "\n")
    for name, count in (("train", TRAIN), ("test", VAL)):
        images, labels = pixels(count, 3, 96, 96), np.arange(count, dtype=np.uint8) % 10
        (folder / f"{name}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (folder / f"{name}_y.bin").write_bytes((labels + 1).tobytes())
        expected.append((images, labels))
    return expected


SETS = {
    "mnist": lambda root: write_idx(root, "MNIST"),
    "fashion_mnist": lambda root: write_idx(root, "FashionMNIST"),
    "cifar10": lambda root: write_cifar(
        root,
        "cifar-10-batches-py",
        "labels",
        ("batches.meta", "label_names"),
        ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"]),
    ),
    "cifar100": lambda root: write_cifar(
        root, "cifar-100-python", "fine_labels", ("meta", "fine_label_names"), (["train"], ["test"])
    ),
    "svhn": write_svhn,
    "stl10": write_stl10,
}


def opened(name, root, **how):
    kind = DATA[name]
    data = kind(kind.Settings(root=str(root), **{"download": False, "batch_size": 3} | how))
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("name", SETS)
def test_images_and_labels_are_those_on_disk(name, tmp_path):
    expected = SETS[name](tmp_path)
    data = opened(name, tmp_path)
    for split, (images, labels) in zip((data.train, data.val), expected):
        assert torch.equal(split.images, torch.from_numpy(images))
        assert split.labels.dtype == torch.int64 and split.labels.tolist() == labels.tolist()
    assert data.channels == data.train.images.shape[1] == len(data.mean) == len(data.std)
    assert data.image_size == data.train.images.shape[-1]
    assert len(data.classes) == 10 and all(isinstance(label, str) for label in data.classes)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (3, data.channels, data.image_size, data.image_size)


@pytest.mark.parametrize("name", SETS)
def test_the_official_test_split_is_validated_on_and_said_or_held_out(name, tmp_path, monkeypatch):
    (images, _), (held_out, _) = SETS[name](tmp_path)
    data = opened(name, tmp_path)
    assert not data.has_test and data.test_split() is None
    assert "validation images (the official test split)" in data.describe()
    assert data.describe().endswith("no test split")
    # two images a class, so that one can be held out
    monkeypatch.setattr(DATA[name], "_in_memory", halved_labels(DATA[name]._in_memory))
    read, opening = [], DATA[name]._open
    monkeypatch.setattr(
        DATA[name], "_open", lambda self, **split: read.append(split) or opening(self, **split)
    )
    data = opened(name, tmp_path, val_fraction=0.4)
    assert len(data.train) + len(data.val) == len(images) and len(data.val) == round(0.4 * len(images))
    assert data.has_test and read.count(DATA[name].splits[1]) == 0 and "official" not in data.describe()
    assert torch.equal(data.test_split().images, torch.from_numpy(held_out))
    assert read.count(DATA[name].splits[1]) == 1 and list(data.test_dataloader())
    assert read.count(DATA[name].splits[1]) == 1
    with pytest.raises(SettingError, match=r"data\.test_fraction: is 0.1 beside data.val_fraction"):
        opened(name, tmp_path, val_fraction=0.4, test_fraction=0.1)


def halved_labels(in_memory):
    def read(self, source):
        split = in_memory(self, source)
        split.labels = split.labels // 2
        return split

    return read


def test_a_test_set_may_be_held_out_of_training_beside_the_official_split(tmp_path, monkeypatch):
    (images, _), (official, _) = SETS["mnist"](tmp_path)
    monkeypatch.setattr(DATA["mnist"], "_in_memory", halved_labels(DATA["mnist"]._in_memory))
    data = opened("mnist", tmp_path, test_fraction=0.4)
    assert data.has_test and torch.equal(data.val.images, torch.from_numpy(official))
    assert (len(data.train), len(data.test_split())) == (TRAIN - 3, 3)
    together = torch.cat([data.train.images, data.test_split().images]).flatten(1)
    assert len(together.unique(dim=0)) == TRAIN == len(images)


def test_a_set_is_found_again_from_everywhere(tmp_path, monkeypatch):
    SETS["mnist"](tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert opened("mnist", tmp_path.name).settings.root == str(tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_written_where_nothing_has_to_be_downloaded(name, tmp_path, monkeypatch):
    SETS[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert len(opened(name, tmp_path, download=True).val) and sorted(tmp_path.rglob("*")) == before
    (tmp_path / ".lock").mkdir()  # somebody else's, which cannot be taken
    monkeypatch.setattr("os.access", lambda *_: False)
    assert len(opened(name, tmp_path, download=True).val)


def test_a_set_that_another_process_downloads_is_waited_for(tmp_path):
    from torchvision.datasets import Imagenette

    first, *others = sorted(Imagenette._WNID_TO_CLASS)
    how = {"download": True, "image_size": 8}
    with ThreadPoolExecutor() as pool:
        with FileLock(tmp_path / ".lock"):
            write_photographs(tmp_path / "imagenette2/train", [first], 1)
            write_photographs(tmp_path / "imagenette2/val", [first, *others], 1)
            opening = pool.submit(opened, "imagenette", tmp_path, **how)
            time.sleep(0.3)
            write_photographs(tmp_path / "imagenette2/train", others, 1)
        assert len(opening.result().train) == 10


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_not_there_is_answered_by_its_key(name, tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(SettingError, match=r"data.root: .* cannot be read from .*(download|corrupted)"):
        opened(name, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_digits_are_not_mirrored(name):
    assert not DATA[name].Settings().augment.flip
    assert DATA["cifar10"].Settings().augment.flip


def test_images_are_resized_when_asked(tmp_path):
    SETS["mnist"](tmp_path)
    data = opened("mnist", tmp_path, image_size=32)
    assert data.image_size == 32 and data.train.images.shape == (TRAIN, 1, 32, 32)
    coarse = torch.nn.functional.avg_pool2d(data.train.images / 255, 8)
    assert coarse.std() > 0 and abs(data.train.images.float().mean() - 127) < 10


def write_photographs(folder, wnids, count):
    for wnid in wnids:
        (folder / wnid).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(pixels(1, 40, 50, 3)[0]).save(folder / wnid / f"{wnid}_{i}.JPEG")


def test_imagenette_is_read_from_its_folders(tmp_path):
    from torchvision.datasets import Imagenette

    wnids = sorted(Imagenette._WNID_TO_CLASS)
    write_photographs(tmp_path / "imagenette2" / "train", wnids, 2)
    write_photographs(tmp_path / "imagenette2" / "val", wnids, 1)
    data = opened("imagenette", tmp_path, image_size=28)
    assert data.classes[:2] == ["tench", "English springer"]
    assert data.train.in_memory and data.train.images.shape == (20, 3, 28, 28)
    assert data.train.labels.tolist() == [i // 2 for i in range(20)] and len(data.val) == 10
    assert data.mean == (0.485, 0.456, 0.406)
    assert "10 validation images (the official validation split)" in data.describe()
    held_out = opened("imagenette", tmp_path, image_size=28, val_fraction=0.5)
    assert (len(held_out.train), len(held_out.val), held_out.has_test) == (10, 10, True)
    assert torch.equal(held_out.test_split().batch(torch.arange(10))[0], data.val.images)


def test_imagenet_is_read_from_its_folders_by_workers_when_large(tmp_path, monkeypatch):
    wnids = ["n01440764", "n01443537"]
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    torch.save((names, ["n01440764"]), tmp_path / "meta.bin")
    write_photographs(tmp_path / "train", wnids, 3)
    write_photographs(tmp_path / "val", wnids, 2)
    monkeypatch.setattr("vitrine.datamodules.cache_limit.MAX_CACHE_BYTES", 1000)
    data = opened("imagenet", tmp_path, image_size=32, workers=1)
    assert data.classes == ["tench", "goldfish"] and not data.train.in_memory
    batches = list(data.train_dataloader())
    assert len(batches) == 2 and batches[0].images.shape == (3, 3, 32, 32)
    assert "read from disk" in data.describe()


def test_imagenet_that_is_not_there_is_answered_by_its_key(tmp_path):
    with pytest.raises(SettingError, match=r"data.root: ImageNet cannot be read from"):
        opened("imagenet", tmp_path)
