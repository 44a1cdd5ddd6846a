import dataclasses

import pytest
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_confusion_matrix

from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.confusion import Confusion, confusion_matrix, confusion_order
from vitrine.analyses.examples import dataset_examples, top_examples
from vitrine.datamodules.memory import InMemory

NAMES = ["stop", "give way", "a/b" * 80, "con", "-dash", 'quote "q"', "", "été", "no images"]


class OfPixel(nn.Module):
    """Says the class that stands in the first pixel, in tenths."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        said = (images[:, 0, 0, 0] * 255 / 2).round().long() % self.classes
        return nn.functional.one_hot(said, self.classes).float()


def subject(said, labels, names, **more):
    images = torch.zeros(len(said), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = 2 * said
    data = InMemory(images, labels)
    probes = Probes(images[:2] / 255, labels[:2], torch.arange(2))
    return Subject(OfPixel(len(names)), probes, data, names, {}, batch_size=7, **more)


def draw(count, classes, right=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    other = torch.randint(classes, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < right, labels, other), labels


def results(one, **settings):
    found = list(Confusion(**settings)(one))
    return {f.key: f for f in found if isinstance(f, Figure)}, {
        s.key: s.value for s in found if isinstance(s, Scalar)
    }


def test_the_matrix_is_that_of_torchmetrics():
    said, labels = draw(100, 8)
    one = subject(said, labels, NAMES)
    matrix = confusion_matrix(one.network, one.batches(), 9)
    assert torch.equal(matrix, multiclass_confusion_matrix(said, labels, 9))


def test_the_predictions_come_with_the_pass_that_finds_the_examples():
    torch.manual_seed(0)
    pixels = torch.randint(256, (30, 3, 16, 16), dtype=torch.uint8)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 14 * 14, 4)).eval()
    images, data = pixels / 255, InMemory(pixels, torch.arange(30) % 4)
    read = []
    data.batch = lambda indices: (read.extend(indices.tolist()), InMemory.batch(data, indices))[1]
    probes = Probes(images[:2], data.labels[:2], torch.arange(2))
    one = Subject(network, probes, data, list("abcd"), {"1": [0, 3]}, batch_size=7)
    figures, _ = results(one)
    assert read == list(range(30))
    top = dataset_examples(one)["1"]
    assert len(read) == 30
    accuracy = (network(images).argmax(1) == data.labels).float().mean().item()
    assert figures["confusion"].values["accuracy"] == pytest.approx(accuracy)
    alone = top_examples(network, one.batches(), ["1"])["1"]
    assert torch.equal(top.values, alone.values) and torch.equal(top.indices, alone.indices)


def test_the_table_and_the_scalars_are_of_the_matrix():
    said, labels = draw(200, 8)
    figures, scalars = results(subject(said, labels, NAMES))
    assert list(figures) == ["confusion"]
    table = figures["confusion"].table.columns
    assert table["class"] == NAMES and table["images"] == [*labels.bincount(minlength=9).tolist()]
    for label in range(8):
        own, claimed = labels == label, said == label
        assert table["recall"][label] == pytest.approx((said[own] == label).float().mean().item())
        assert table["precision"][label] == pytest.approx((labels[claimed] == label).float().mean().item())
        others = said[own & (said != label)].bincount(minlength=9)
        assert table["so often"][label] == others.max()
        assert table["taken for"][label] in [NAMES[i] for i in (others == others.max()).nonzero()[:, 0]]
    assert table["recall"][8] is None and table["precision"][8] is None and table["taken for"][8] == ""
    assert figures["confusion"].values["accuracy"] == pytest.approx((said == labels).float().mean().item())
    assert scalars["worst_class_accuracy"] == pytest.approx(min(table["recall"][:8]))


def test_mistakes_are_red_and_what_is_right_is_blue():
    said, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 0])
    picture = results(subject(said, labels, ["a", "b"]))[0]["confusion"].image.int()
    red, blue = picture[..., 0] - picture[..., 2] > 60, picture[..., 2] - picture[..., 0] > 60
    rows = [mask.nonzero().float().mean(0) for mask in (red, blue)]
    assert red.any() and blue.any()
    assert rows[0][1] > rows[1][1]  # the mistake is in the first row, second column


def test_classes_that_are_taken_for_each_other_stand_together():
    """Three groups of classes, dealt out in turn, which are confused among themselves only."""
    group = torch.arange(12) % 3
    matrix = (group[:, None] == group).long() * 3 + 20 * torch.eye(12, dtype=torch.int64)
    order = confusion_order(matrix)
    assert sorted(order) == list(range(12))
    assert [int(g) for g in torch.unique_consecutive(group[order])] in [
        [a, b, c] for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3
    ]
    assert confusion_order(torch.eye(5, dtype=torch.int64)) == [0, 1, 2, 3, 4]


def test_of_many_classes_those_with_most_mistakes_are_named():
    said, labels = torch.arange(70).repeat(3), torch.arange(70).repeat(3)
    said[:4], said[70:74] = torch.tensor([3, 2, 1, 0]), torch.tensor([3, 2, 1, 0])
    figures, _ = results(subject(said, labels, [f"class {i}" for i in range(70)]), named=4)
    assert list(figures) == ["confusion", "most confused"]
    assert "4 of 70 classes" in figures["most confused"].caption
    assert len(figures["confusion"].table.columns["class"]) == 70


def test_ranks_together_count_each_image_once():
    said, labels = draw(50, 4)
    whole = results(subject(said, labels, list("abcd")))
    parts = [
        confusion_matrix(one.network, one.batches(part=one.shard(50)), 4)
        for rank in range(3)
        for one in [subject(said, labels, list("abcd"), rank=rank, world_size=3)]
    ]
    shared = subject(said, labels, list("abcd"), rank=0, world_size=3, all_gather=lambda value: parts)
    one, two = whole[0]["confusion"], results(shared)[0]["confusion"]
    assert dataclasses.replace(one, image=None) == dataclasses.replace(two, image=None)
    assert torch.equal(one.image, two.image)
