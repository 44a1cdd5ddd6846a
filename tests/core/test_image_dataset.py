"""Data sets of others, and what a data set of ours need not define."""

import torch

from vitrine.core.image_dataset import ImageDataset, MapDataset, as_image_dataset


class Squares(ImageDataset):
    """Four images, each as bright as its index."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.full((3, 2, 2), index / 4), index % 2


def test_length_and_items_are_enough():
    dataset = Squares()
    assert torch.equal(dataset.labels, torch.tensor([0, 1, 0, 1]))
    images, labels = dataset.batch(torch.tensor([3, 1]))
    assert images[:, 0, 0, 0].tolist() == [0.75, 0.25] and labels.tolist() == [1, 1]
    assert torch.equal(dataset.training_item(2, seed=5)[0], dataset[2][0])
    assert dataset.masks(torch.tensor([0])) == {} and dataset.with_stickers() is None
    assert not dataset.in_memory and dataset.storage


def test_one_of_ours_is_taken_as_it_is():
    dataset = Squares()
    assert as_image_dataset(dataset) is dataset


def test_any_map_style_data_set_becomes_one():
    pairs = [(torch.zeros(3, 2, 2), torch.tensor(1)), (torch.ones(3, 2, 2), 0, "and more")]
    dataset = as_image_dataset(pairs)
    assert isinstance(dataset, MapDataset) and len(dataset) == 2
    assert dataset.labels.tolist() == [1, 0] and dataset[0][1] == 1
    assert torch.equal(dataset.batch(torch.tensor([1]))[0], torch.ones(1, 3, 2, 2))


def test_labels_that_the_data_set_has_spare_reading_its_images():
    class Labelled:
        labels = (1, 0, 1)

        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise AssertionError("read")

    assert as_image_dataset(Labelled()).labels.tolist() == [1, 0, 1]
