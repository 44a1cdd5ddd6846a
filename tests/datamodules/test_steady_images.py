"""Training images of people's own data sets: as they are, the same at each reading, or none."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2

from vitrine.datamodules.foreign import ForeignData, ForeignSplit
from vitrine.datamodules.steady_images import SteadyImages, examined_split, foreign_training

MEAN, STD = (0.5, 0.25, 0.75), (0.5, 0.125, 0.25)
STEPS = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]


def pictures(*steps, count=20):
    return FakeData(count, (3, 8, 8), 3, v2.Compose([*STEPS, *steps]), random_offset=7)


def mixed(batch):
    """Images that are mixed with one another, as mixup does in a collate function."""
    images, labels = torch.utils.data.default_collate(batch)
    return images.lerp(images[torch.randperm(len(images))], float(torch.rand(()))), labels


def states():
    return random.getstate()[1][:9], np.random.get_state()[1][:9].tolist(), torch.get_rng_state().tolist()


def test_images_that_are_not_random_are_the_data_sets_own_in_pixels():
    before = states()
    train, note = foreign_training(DataLoader(pictures(v2.Normalize(MEAN, STD)), 4, shuffle=True))
    assert type(train) is ForeignSplit and note == "" and len(train) == 20 and states() == before
    images, labels = train.batch(torch.tensor([3, 19]))
    expected = [pictures()[i] for i in (3, 19)]
    torch.testing.assert_close(images, torch.stack([image for image, _ in expected]))
    assert labels.tolist() == [int(label) for _, label in expected]


@pytest.mark.parametrize(
    "step", [v2.RandomHorizontalFlip(), v2.RandomCrop(8, padding=2), v2.GaussianNoise(), v2.RandomErasing(1)]
)
def test_random_images_are_the_same_at_each_reading_in_any_batch_and_that_is_said(step):
    torch.manual_seed(1)
    before = states()
    train, note = foreign_training(DataLoader(pictures(step), 4, shuffle=True))
    assert isinstance(train, SteadyImages) and "at random" in note
    images, labels = train.batch(torch.arange(20))
    again = torch.cat([train.batch(some)[0] for some in torch.arange(20).split(3)])
    assert torch.equal(images, again) and torch.equal(images[5], train[5][0]) and states() == before
    plain = [pictures()[i] for i in range(20)]
    assert not torch.equal(images, torch.stack([image for image, _ in plain]))
    assert labels.tolist() == train.labels.tolist() == [int(label) for _, label in plain]


class OwnGenerator:
    def __init__(self, kind):
        self.random = kind

    def __call__(self, image):
        raise AssertionError("read, which training would notice")


class Unsteady:
    count = 0

    def __call__(self, image):
        Unsteady.count += 1
        return image * (1 / Unsteady.count)


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("read")


@pytest.mark.parametrize(
    ("loader", "problem"),
    [
        (None, "none were given"),
        (DataLoader(Stream(), 4), "a Stream cannot be read image by image"),
        (iter([]), "a list_iterator cannot be read image by image"),
        (pictures(OwnGenerator(np.random.default_rng(0))), "a random number generator of its own"),
        (Subset(pictures(OwnGenerator(random.Random(0))), [1, 2]), "a random number generator of its own"),
        (pictures(OwnGenerator(torch.Generator())), "a random number generator of its own"),
        (pictures(Unsteady()), "at random, whatever the seed"),
        (pictures(lambda image: image / 0), "they cannot be read (ValueError: mean: images run"),
        (pictures(lambda image: image * 3), "they cannot be read (ValueError: mean: images run from 0"),
        (pictures(lambda image: Path("/gone").read_bytes()), "they cannot be read (FileNotFoundError"),
        (TensorDataset(torch.rand(4, 3, 8, 8)), "they cannot be read (ValueError: data: a batch is"),
    ],
)
def test_where_there_are_none_the_reason_is_said(loader, problem):
    train, note = foreign_training(loader)
    assert train is None and problem in note and "\n" not in note


def test_images_mixed_among_a_batch_are_said_to_be_random():
    train, note = foreign_training(DataLoader(pictures(), 4, collate_fn=mixed))
    assert isinstance(train, SteadyImages) and "at random" in note


def test_generators_of_the_process_are_nobodys_own():
    def jitter(image, rng=random._inst, other=np.random.mtrand._rand):
        return image.roll(rng.randrange(8), 2)

    assert isinstance(foreign_training(pictures(jitter))[0], SteadyImages)


def test_a_sampler_of_a_part_leaves_the_rest_out():
    loader = DataLoader(pictures(), 4, sampler=SubsetRandomSampler([7, 3, 5]))
    train, _ = foreign_training(loader)
    assert torch.equal(train[1][0], pictures()[5][0]) and len(train) == 3


def test_files_are_named_relative_to_the_data_sets_root(tmp_path):
    for name in ("a/one.png", "b/two.png"):
        (tmp_path / name).parent.mkdir()
        v2.functional.to_pil_image(torch.rand(3, 4, 4)).save(tmp_path / name)
    folder = ImageFolder(tmp_path, v2.Compose(STEPS))
    train, _ = foreign_training(torch.utils.data.ConcatDataset([folder, Subset(folder, [1])]))
    assert [train.path(i) for i in range(3)] == ["a/one.png", "b/two.png", "b/two.png"]
    assert foreign_training(pictures())[0].path(0) is None


class Drawing:
    """Draws from a generator of its own; or has one that it leaves alone."""

    def __init__(self, draws):
        self.random, self.draws = np.random.default_rng(0), draws

    def __call__(self, image):
        return image.roll(int(self.random.integers(8)), 2) if self.draws else image


class DrawingStream(IterableDataset):
    def __init__(self):
        self.random = torch.Generator()

    def __iter__(self):
        for label in range(3):
            yield torch.rand(3, 8, 8, generator=self.random), label


@pytest.mark.parametrize("collate", [None, mixed])
def test_random_images_that_are_examined_are_the_same_at_each_reading_and_that_is_said(collate):
    split = examined_split(DataLoader(pictures(v2.GaussianNoise()), 4, collate_fn=collate))
    before = states()
    images, labels = split.batch(torch.arange(20))
    assert torch.equal(split.raw([5, 3])[0], images[[5, 3]]) and torch.equal(split[5][0], images[5])
    assert states() == before and torch.equal(split.labels, labels)
    assert "at random" in ForeignData(split, ["a", "b", "c"]).facts()["images"]
    plain = ForeignData(examined_split(pictures()), ["a", "b", "c"])
    assert type(plain.split) is ForeignSplit and "images" not in plain.facts()


def test_images_that_a_generator_of_their_own_draws_are_not_examined():
    with pytest.raises(ValueError, match=r"a random number generator of its own.*or a validation loader"):
        examined_split(DataLoader(pictures(Drawing(True))))
    assert len(examined_split(DataLoader(pictures(Drawing(False))))) == 20  # nothing is drawn from it
    stream = DrawingStream()
    before = stream.random.get_state()
    split = examined_split(DataLoader(stream, 2))
    assert len(split) == 3 and torch.equal(stream.random.get_state(), before)
