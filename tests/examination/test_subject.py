"""What analyses are given: the same at every checkpoint."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn

from vitrine.analyses.base import Probes
from vitrine.core.settings import SettingError
from vitrine.datamodules.memory import InMemory
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.subject import choose_units, make_subject, pick_probes

IMAGES = torch.rand(1, 3, 8, 8)


def split(labels: list[int]) -> InMemory:
    shade = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return InMemory(shade.expand(-1, 3, 2, 2).clone(), torch.tensor(labels))


@pytest.mark.parametrize(
    ("labels", "classes", "n", "expected"),
    [
        ([0, 0, 0, 1, 1, 2], "abc", 3, [0, 3, 5]),
        ([0, 0, 0, 1, 1, 2], "abc", 5, [0, 3, 5, 1, 4]),
        ([0, 0, 0, 1, 1, 2], "abc", 99, [0, 3, 5, 1, 4, 2]),
        ([3, 2, 1, 0], "abcd", 2, [3, 1]),  # classes a and c
        ([1, 1, 1], "ab", 2, [0, 1]),  # a class without images
        ([0, 0, 0], "abc", 2, [0, 1]),
    ],
)
def test_probes_are_the_first_of_each_class_in_turn(labels, classes, n, expected):
    probes = pick_probes(split(labels), list(classes), n)
    assert probes.indices.tolist() == expected
    assert probes.labels.tolist() == [labels[i] for i in expected]
    assert torch.equal(probes.images[:, 0, 0, 0], torch.tensor(expected) / 255)
    assert probes.masks is None


def test_probes_bring_their_masks_where_the_data_set_knows_them():
    class Masked(InMemory):
        def masks(self, indices):
            return {"sign": torch.stack([torch.full((2, 2), bool(i % 2)) for i in indices])}

    dataset = Masked(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    probes = pick_probes(dataset, ["a", "b"], 2)
    assert isinstance(probes, Probes)
    assert probes.masks["sign"].float().mean((1, 2)).tolist() == [0, 1]


def test_a_data_set_without_a_list_of_labels_is_walked():
    pairs = [(torch.zeros(3, 2, 2), 1), (torch.ones(3, 2, 2), 0)]
    assert pick_probes(pairs, ["a", "b"], 2).indices.tolist() == [1, 0]


def test_the_subject_is_frozen_in_eval_mode_and_from_the_split_asked_for():
    data = tiny.TinyData(steps=3)
    data.setup()
    network = tiny.tiny_network().train()
    subject = make_subject(network, data, AnalysisSettings(probes=4, units=2, split="train"), 7)
    assert not any(module.training for module in subject.network.modules())
    assert not any(p.requires_grad for p in subject.network.parameters())
    assert subject.dataset is data.train
    assert subject.step == 7
    assert sorted(subject.probes.labels.tolist()) == [0, 0, 1, 1]
    assert all(len(shown) == 2 for shown in subject.units.values())
    assert subject.units


@pytest.mark.parametrize(("side", "given", "expected"), [(64, None, 256), (224, None, 20), (224, 256, 256)])
def test_a_batch_is_smaller_where_images_are_large_unless_its_size_is_set(side, given, expected):
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    data = SimpleNamespace(val=InMemory(images, torch.tensor([0, 1])), train=[], classes=["a", "b"])
    network = nn.Sequential(
        nn.AdaptiveAvgPool2d(2), nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    settings = AnalysisSettings(layers=["1"], batch_size=given)
    assert make_subject(network, data, settings).batch_size == expected


def test_two_classes_of_one_name_are_told_apart():
    data = tiny.TinyData(steps=3)
    data.setup()
    data.classes = ["crane", "crane"]
    settings = AnalysisSettings(units=1, probes=2)
    assert make_subject(tiny.tiny_network(), data, settings).classes == ["crane (0)", "crane (1)"]


def test_layers_and_units_that_are_not_there_are_answered():
    network = tiny.tiny_network().eval()
    assert {k: list(v) for k, v in choose_units(network, IMAGES, ["0", "2"], [3, 1]).items()} == {
        "0": [3, 1],
        "2": [3, 1],
    }
    for layers, units, key in [
        (["conv"], 2, "analysis.layers"),
        (["0"], [4], "analysis.units"),
        (["0"], 0, "analysis.units"),
        (["0"], "many", "analysis.units"),
    ]:
        with pytest.raises(SettingError) as caught:
            choose_units(network, IMAGES, layers, units)
        assert caught.value.key == key
