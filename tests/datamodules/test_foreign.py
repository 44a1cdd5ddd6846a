import functools

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision import transforms as v1
from torchvision.transforms import v2

from vitrine.datamodules.foreign import ForeignSplit, foreign_split
from vitrine.datamodules.normalization_search import find_normalizations

MEAN, STD = (0.5, 0.25, 0.75), (0.5, 0.125, 0.25)


class Images(torch.utils.data.Dataset):
    def __init__(self, transform=None, **attributes):
        self.transform = transform
        vars(self).update(attributes)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image = torch.full((3, 4, 4), index / 4)
        return (self.transform(image) if self.transform else image), index % 2


class Processor:
    """As Hugging Face's image processors."""

    do_normalize, image_mean, image_std = True, list(MEAN), list(STD)

    def __call__(self, image):
        return v2.Normalize(MEAN, STD)(image)


def closure():
    inner = v2.Normalize(MEAN, STD)
    return lambda image: inner(image)


GLOBAL = v1.Normalize(MEAN, STD)


class OfClass(Images):
    normalise = v2.Normalize(MEAN, STD)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return self.normalise(image), label


class InMethod(Images):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return GLOBAL(image), label


def by_global(image):
    return GLOBAL(image)


@pytest.mark.parametrize(
    "transform",
    [
        v1.Normalize(MEAN, STD),
        v1.Compose([v1.RandomHorizontalFlip(), v1.Normalize(MEAN, STD)]),
        v2.Compose([v2.Compose([v2.Normalize(mean=list(MEAN), std=list(STD))])]),
        Processor(),
        closure(),
        by_global,
        functools.partial(lambda f, image: f(image), v2.Normalize(MEAN, STD)),
    ],
    ids=["v1", "Compose", "nested", "processor", "closure", "global", "partial"],
)
def test_a_normalisation_is_found_wherever_the_transform_keeps_it(transform):
    assert find_normalizations(Images(transform)) == [(MEAN, STD)]
    for data in (Images(transform), Subset(Images(transform), [0, 3])):
        split = foreign_split(DataLoader(data, 2))
        expected = torch.stack([Images()[i][0] for i in (0, 3)])
        torch.testing.assert_close(
            split.batch(torch.tensor([0, len(split) - 1 if len(split) == 2 else 3]))[0], expected
        )


@pytest.mark.parametrize("data", [OfClass(), InMethod()], ids=["class", "method"])
def test_a_normalisation_of_the_data_sets_class_is_found(data):
    assert find_normalizations(data) == [(MEAN, STD)]


def test_two_normalisations_are_refused_and_none_is_none():
    both = v2.Compose([v2.Normalize(MEAN, STD), v2.Normalize([0.0] * 3, [1.0] * 3)])
    with pytest.raises(ValueError, match=r"several normalisations.*give mean="):
        foreign_split(Images(both))
    assert foreign_split(Images()).of_images is None


@pytest.mark.parametrize(
    "data",
    [
        Images(targets=[0, 1, 0, 1, 0]),
        Images(targets=[1, 1, 1, 1, 1]),  # not those of the items
        Images(targets="no labels"),
        TensorDataset(torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 0])),
        Subset(Images(targets=torch.tensor([0, 1, 0, 1, 0])), [0, 1, 2, 3, 4]),
    ],
)
def test_labels_are_those_of_the_items(data):
    assert ForeignSplit(data).labels.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32])
def test_one_hot_labels_are_those_of_the_ones(kind):
    rows = torch.eye(3)[[2, 0, 1, 1]].to(kind)
    loader = DataLoader(TensorDataset(torch.rand(4, 3, 4, 4), rows), 2)
    assert foreign_split(loader).labels.tolist() == [2, 0, 1, 1]
    two = torch.ones(4, 2).to(kind)
    with pytest.raises(ValueError, match=r"labels are of shape \(\d, 2\), expected \[N\]"):
        foreign_split(DataLoader(TensorDataset(torch.rand(4, 3, 4, 4), two), 2))


def test_the_memory_of_a_data_set_is_left_as_it_is():
    images, labels = torch.linspace(-0.01, 1.01, 5 * 48).reshape(5, 3, 4, 4), torch.arange(5)
    data = [(images[:3], labels[:3]), (images[3:], labels[3:])]
    before = images.clone()
    shown, _ = foreign_split(DataLoader(data, 1, collate_fn=lambda items: items[0])).batch(torch.tensor([0]))
    assert shown.min() == 0 and torch.equal(images, before)


def test_data_that_can_be_read_only_once_are_refused_and_left_unread():
    batches = iter(DataLoader(Images(), 2))
    with pytest.raises(ValueError, match="can be read only once"):
        foreign_split(batches)
    assert len(next(batches)[0]) == 2
