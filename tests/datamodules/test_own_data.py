"""LightningDataModules of people's own as sources: what their loaders yield, as pixels; what will not do."""

import json

import pytest
import torch
from tiny_images import pixels

from vitrine import config
from vitrine.core.settings import SettingError
from vitrine.datamodules import source
from vitrine.datamodules.decoding import UnreadableImage

CODE = """
import random
import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import *
from torchvision.transforms import v2
from tiny_images import pixels

MEAN, STD = [0.5, 0.25, 0.5], [0.5, 0.25, 0.125]

class Pictures(Dataset):
    def __init__(self, count, normalize=True, jitter=False, **attributes):
        steps = [v2.ToDtype(torch.float32, scale=True)] + [v2.Normalize(MEAN, STD)] * normalize
        self.count, self.transform, self.jitter = count, v2.Compose(steps), jitter
        vars(self).update(attributes)
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        if index in getattr(self, "lost", ()):
            raise FileNotFoundError(f"{index}.png is gone")
        image = pixels(index)
        if self.jitter:
            by = int(torch.randint(8, ())), random.randrange(8), np.random.randint(8)
            image = image.roll(by, (0, 1, 2))
        return self.transform(image), index % getattr(self, "modulo", 3)

class Data(LightningDataModule):
    def __init__(self, batch_size: int = 4, workers: int = 0, jitter: bool = False, **more):
        super().__init__()
        self.options, self.loading = more, {"batch_size": batch_size, "num_workers": workers}
        self.jitter = jitter
    def setup(self, stage):
        self.pictures = Pictures(13, jitter=self.jitter, **self.options)
    def train_dataloader(self):
        return DataLoader(self.pictures, shuffle=True, **self.loading)
    def val_dataloader(self):
        return DataLoader(Pictures(5, **self.options), **self.loading)

class Plain(Data):
    num_classes = 4
    def setup(self, stage):
        self.pictures = Pictures(13, normalize=False, **self.options)
    def val_dataloader(self):
        return DataLoader(Pictures(5, normalize=False), **self.loading)
    def test_dataloader(self):
        return DataLoader(Pictures(3, normalize=False), **self.loading)

def named(batch):
    return {"pixel_values": torch.stack([x for x, _ in batch]), "labels": torch.tensor([y for _, y in batch])}

class Dicts(Data):
    class_names = ("cat", "dog/..", "bird")
    def train_dataloader(self):
        weights = [1.0] * 12 + [0.0]
        sampler = WeightedRandomSampler(weights, 20, generator=torch.Generator().manual_seed(3))
        return DataLoader(self.pictures, sampler=sampler, collate_fn=named, **self.loading)

class Subsets(Data):
    def train_dataloader(self):
        sampler = SubsetRandomSampler([12, 3, 5, 7, 1, 0, 11, 9])
        return DataLoader(self.pictures, sampler=sampler, **self.loading)
    def val_dataloader(self):
        return DataLoader(self.pictures, sampler=SubsetRandomSampler([10, 2, 4]), **self.loading)

def of_one_class(worker):
    pictures = get_worker_info().dataset
    pictures.modulo = 1 if len(pictures) == pictures.count == 13 else None

class Started(Subsets):
    def __init__(self, half):
        super().__init__(workers=1)
        self.loading["worker_init_fn"], self.half = of_one_class, half
    def train_dataloader(self):
        return super().train_dataloader() if self.half else DataLoader(self.pictures, **self.loading)

class Stream(IterableDataset):
    def __init__(self, pictures):
        self.pictures = pictures
    def __len__(self):
        return len(self.pictures)
    def __iter__(self):
        for index in torch.randperm(len(self)).tolist():
            yield self.pictures[index]

class Streamed(Data):
    def train_dataloader(self):
        return DataLoader(Stream(self.pictures), **self.loading)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    file = tmp_path_factory.mktemp("code") / "mine.py"
    file.write_text(CODE)
    return file


@pytest.fixture(autouse=True)
def here(code, monkeypatch):
    monkeypatch.chdir(code.parent)


def opened(name="mine.py:Data", seed=0, **how):
    values = {key: json.dumps(value) for key, value in how.items()}
    settings = config.load([f"data.name={name}", *(f"data.{k}={v}" for k, v in values.items())]).data
    data = source(name)(settings, seed=seed)
    data.prepare_data()
    data.setup()
    return data


def options(**how):
    return {"options": how}


def epoch(data, number=0, train=True):
    loader = data.train_dataloader() if train else data.val_dataloader()
    loader.sampler.set_epoch(number)
    return [data.on_after_batch_transfer(batch) for batch in loader]


def are_pictures(images, indices):
    expected = torch.stack([pixels(i) / 255 for i in indices.tolist()])
    return torch.allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize("name, classes", [("Data", ["0", "1", "2"]), ("Plain", ["0", "1", "2", "3"])])
def test_batches_are_theirs_as_pixels(name, classes):
    data = opened(f"mine.py:{name}")
    assert data.classes == classes and (data.channels, data.image_size) == (3, 8)
    batches = epoch(data)
    assert [len(batch.labels) for batch in batches] == [4, 4, 4, 1]
    assert sorted(i for batch in batches for i in batch.indices.tolist()) == list(range(13))
    assert all(are_pictures(batch.images, batch.indices) for batch in batches)
    assert all(batch.labels.tolist() == (batch.indices % 3).tolist() for batch in batches)
    val = epoch(data, train=False)
    assert torch.cat([batch.indices for batch in val]).tolist() == list(range(5))
    assert are_pictures(data.val.batch(torch.arange(5))[0], torch.arange(5))
    assert epoch(data, 1)[0].indices.tolist() != batches[0].indices.tolist()


def test_the_network_is_normalised_as_the_data_were():
    assert opened().mean == (0.5, 0.25, 0.5) and opened().std == (0.5, 0.25, 0.125)
    images = torch.stack([pixels(i) / 255 for i in range(13)])
    plain = opened("mine.py:Plain")
    torch.testing.assert_close(torch.tensor(plain.mean), images.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(plain.std), images.std((0, 2, 3), correction=0))
    assert opened("mine.py:Plain", mean=[0.4] * 3, std=[0.2] * 3).mean == (0.4,) * 3


def test_dicts_and_a_sampler_of_theirs():
    data = opened("mine.py:Dicts")
    assert data.classes == ["cat", "dog/..", "bird"]
    batches = epoch(data)
    drawn = torch.cat([batch.indices for batch in batches])
    assert len(drawn) == 20 and 12 not in drawn and len(drawn.unique()) < 13
    assert all(are_pictures(batch.images, batch.indices) for batch in batches)
    assert torch.cat([batch.indices for batch in epoch(data, 1)]).tolist() != drawn.tolist()
    assert opened("mine.py:Dicts", classes=["a", "b", "c"]).classes == ["a", "b", "c"]


def test_subset_samplers_are_splits():
    data = opened("mine.py:Subsets")
    assert len(data.train) == 8 and len(data.val) == 3 and data.val.labels.tolist() == [2, 1, 1]
    used = torch.tensor([0, 1, 3, 5, 7, 9, 11, 12])
    for batch in epoch(data):
        assert are_pictures(batch.images, used[batch.indices])


@pytest.mark.parametrize("half", [False, True])
def test_workers_begin_with_their_function_of_their_data_set(half):
    data = opened("mine.py:Started", **options(half=half))
    assert len(data.train) == (8 if half else 13) and data.train.labels.unique().tolist() == [0, 1, 2]
    assert {label for batch in epoch(data) for label in batch.labels.tolist()} == {0}


@pytest.mark.parametrize("name", ["Data", "Streamed"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_goes_on_where_it_stopped_with_the_images_it_would_have_had(name, workers):
    how = options(jitter=True, workers=workers)
    whole = epoch(opened(f"mine.py:{name}", **how), 2)
    loader = opened(f"mine.py:{name}", **how).train_dataloader()
    loader.sampler.set_epoch(2)
    begun = iter(loader)
    for _ in range(2):
        next(begun)
        torch.rand(3)  # training draws as well
    again = opened(f"mine.py:{name}", **how).train_dataloader()
    again.sampler.set_epoch(2)
    again.load_state_dict(loader.state_dict())
    torch.manual_seed(77)
    rest = list(again)
    assert len(rest) == len(whole) - 2 > 0
    for batch, expected in zip(rest, whole[2:]):
        assert torch.equal(batch.indices, expected.indices) and torch.equal(batch.images, expected.images)
    assert not torch.equal(epoch(opened(f"mine.py:{name}", seed=1, **how), 2)[0].images, whole[0].images)


def test_reading_leaves_the_random_numbers_as_they_were():
    data = opened(**options(jitter=True))
    before = torch.get_rng_state()
    epoch(data)
    data.train.batch(torch.arange(3))
    assert torch.equal(torch.get_rng_state(), before)
    first, again = (data.train.batch(torch.arange(3))[0] for _ in range(2))
    assert torch.equal(first, again)


def test_ranks_take_batches_in_turn_and_streams_are_for_one():
    data = opened(**options(batch_size=2))
    order = [data._order(data.train, True, rank=rank, world_size=2).batches(1) for rank in range(2)]
    drawn = torch.cat([*order[0], *order[1]]).tolist()
    assert [len(some) for some in order] == [3, 3] and len(set(drawn)) == len(drawn) in (11, 12)
    assert data.epoch_size(train=True, world_size=2) == (3, 2)
    with pytest.raises(SettingError, match="gives a DataLoader that cannot be divided among 2 ranks"):
        opened("mine.py:Streamed").epoch_size(train=True, world_size=2)


def test_the_test_split_is_read_when_asked():
    data = opened("mine.py:Plain")
    assert data.has_test and not opened().has_test
    assert torch.cat([b.indices for b in data.test_dataloader()]).tolist() == [0, 1, 2]
    assert are_pictures(data.test_split().batch(torch.arange(3))[0], torch.arange(3))


@pytest.mark.parametrize(
    "name, how, message",
    [
        ("mine.py:Dta", {}, r"data.name: .*has no 'Dta'; did you mean Data"),
        ("min.py:Data", {}, r"data.name: min.py: there is no such file; did you mean mine.py:Data\?"),
        ("mine.py:Pictures", {"options": {"count": 3}}, "gave a Pictures, expected a LightningDataModule"),
        ("mine.py:MEAN", {}, "is of type list, expected a class"),
        ("mine.py:Data:", {}, "names no class or function after the colon"),
    ],
)
def test_a_reference_that_will_not_do_is_answered_in_one_line(name, how, message):
    with pytest.raises(SettingError, match=message) as caught:
        opened(name, **how)
    assert "\n" not in str(caught.value)


BODIES = {  # more of a data module -> the answer
    "no val": (
        "def train_dataloader(self): pass",
        {},
        "has no val_dataloader, expected a",
    ),
    "options": (
        "def __init__(self, width): pass",
        {},
        r"data.options: width: .* needs one; give data.op",
    ),
    "raises": ("def __init__(self): 1 / 0", {}, r"data.name: .*raised ZeroDivisionError: .*\(other.py, line"),
    "setup": ("def setup(self, stage): open('no/file')", {}, "setup raised FileNotFoundError"),
    "several": ("VAL [loader(), loader()]", {}, "gave 2 loaders, expected one"),
    "hook": (
        "def on_after_batch_transfer(self, b, i): pass",
        {},
        "has on_after_batch_transfer, which",
    ),
    "bytes": (
        "VAL loader(lambda x: x * 255)",
        {},
        r"data.mean: .*images run from",
    ),
    "oblong": (
        "VAL loader(lambda x: x[:, 1:])",
        {},
        "images are 3 x 7 x 8, exp",
    ),
    "sizes": (
        "VAL loader(lambda x: x[:, 1:, 1:])",
        {},
        "3 x 8 x 8 in training, 3 x 7 x",
    ),
    "vectors": (
        "VAL loader(lambda x: x.flatten())",
        {},
        "images are a Tensor of shape",
    ),
    "multi-label": (
        "VAL loader(y=torch.tensor([1, 1, 0]))",
        {},
        r"labels are of shape \(\d, 3\), expected \[N\]",
    ),
    "fractions": ("VAL loader(y=0.9)", {}, r"labels are fractions, the first is 0\.9, expected whole"),
    "fractions in a column": (
        "VAL loader(y=torch.tensor([1.5]))",
        {},
        "labels are fractions, the first is 1.5",
    ),
    "no number": ("VAL loader(y=float('nan'))", {}, "labels are fractions, the first is nan"),
    "label": (
        "num_classes = 2",
        {},
        "Own: label 2 is out of range: expected 0 to 1 for 2 classes",
    ),
    "names": ("", {"classes": ["a"]}, "is out of range: expected 0 to 0"),
    "no length": ("VAL iter([])", {}, "gave a loader without a length"),
    "twice": (
        "VAL DataLoader([(n(n(x)), y) for x, y in data], 2)",
        {"mean": [9.0] * 3, "std": [0.1] * 3},
        "data.mean: .*un-normalised with them images run from",
    ),
    "only mean": ("", {"mean": [0.5] * 3}, "data.mean: mean and std come together"),
}
VAL = "def val_dataloader(self): return"
OTHER = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from torchvision.transforms import v2
data = [(torch.rand(3, 8, 8), i % 3) for i in range(6)]
n = v2.Normalize([0.5] * 3, [0.1] * 3)
def loader(f=lambda x: x, y=None):
    return DataLoader([(f(x), label if y is None else y) for x, label in data], 2)
class Base(LightningDataModule):
    def train_dataloader(self): return loader()
    def val_dataloader(self): return loader()
class Own({base}):
    {body}
"""


def test_whole_labels_may_be_floats(tmp_path):
    body = "def val_dataloader(self): return DataLoader([(x, float(y)) for x, y in data], 2)"
    (tmp_path / "other.py").write_text(OTHER.format(base="Base", body=body))
    assert opened(f"{tmp_path}/other.py:Own").val.labels.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("kind", BODIES)
def test_a_data_module_that_will_not_do_is_answered_in_one_line(tmp_path, kind):
    body, how, message = BODIES[kind]
    base = "LightningDataModule" if kind == "no val" else "Base"
    (tmp_path / "other.py").write_text(OTHER.format(base=base, body=body.replace("VAL", VAL) or "pass"))
    with pytest.raises(SettingError, match=message) as caught:
        opened(f"{tmp_path}/other.py:Own", **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_their_data_set_raises_within_an_epoch_is_one_line(workers):
    data = opened(**options(workers=workers))
    data.module.pictures.lost = [7]
    with pytest.raises(
        UnreadableImage, match=r"^Data: images .*7.* cannot be read: .*FileNotFoundError: 7.png is"
    ) as e:
        epoch(data)
    assert "\n" not in str(e.value)


def test_a_name_without_a_colon_is_one_of_ours():
    with pytest.raises(SettingError, match=r"data.name: unknown data set 'foldr': did you mean folder\?"):
        config.load(["data.name=foldr"])


def test_training_images_for_analyses_are_the_same_at_each_reading():
    plain = opened("mine.py:Data")
    assert plain.training_split() == (plain.train, "")
    jittered = opened("mine.py:Data", **options(jitter=True))
    steady, note = jittered.training_split()
    assert "at random" in note and jittered.training_split()[0] is steady
    images, labels = steady.batch(torch.arange(13))
    assert torch.equal(images[9], steady.batch(torch.tensor([9]))[0][0])
    assert labels.tolist() == [i % 3 for i in range(13)]
    part, _ = opened("mine.py:Subsets").training_split()
    assert len(part) == 8
    streamed, note = opened("mine.py:Streamed").training_split()
    assert streamed is None and "streams them" in note
