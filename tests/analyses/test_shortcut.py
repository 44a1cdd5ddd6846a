"""Networks that are right for the wrong reason are caught, those that are right for the right one are not."""

import dataclasses
import logging

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ttest_1samp
from sklearn.metrics import cohen_kappa_score
from torch import nn

from vitrine.analyses.base import Figure, Probes, Scalar, Subject, as_float
from vitrine.analyses.shortcut import Shortcut
from vitrine.analyses.shortcut_tests import (
    Evidence,
    agreement,
    class_samples,
    lies_below,
    looks_outside,
    p_below,
)
from vitrine.analyses.shortcut_texts import text_of_maps
from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.signs import CLASSES, SignImages

OBJECT, STICKER = (slice(0, 3), slice(0, 3)), (slice(5, 8), slice(5, 8))


class Toys(ImageDataset):
    """Images of two classes: object and sticker are patches in a channel of the class's own."""

    labels = torch.arange(24) % 2

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.batch(torch.tensor([index]))[0][0], int(self.labels[index])

    def batch(self, indices):
        return self.draw(indices), self.labels[indices]

    def draw(self, indices, less=(), other=()):
        images = torch.full((len(indices), 3, 8, 8), 0.5)
        for i, label in enumerate(self.labels[indices].tolist()):
            for name, (rows, columns) in (("object", OBJECT), ("sticker", STICKER)):
                if name not in less:
                    images[i, 1 - label if name in other else label, rows, columns] = 1
        return images

    def masks(self, indices):
        masks = {name: torch.zeros(len(indices), 8, 8, dtype=torch.bool) for name in ("object", "sticker")}
        for name, (rows, columns) in (("object", OBJECT), ("sticker", STICKER)):
            masks[name][:, rows, columns] = True
        return masks


class Scenes(Toys):
    parts = class_parts = ("object", "sticker")
    shortcuts = ("sticker",)

    def without_parts(self, indices, left_out):
        return self.draw(indices, less=[n for n, out in zip(self.parts, left_out[0]) if out])

    def with_other_parts(self, indices, replaced):
        return self.draw(indices, other=[n for n, out in zip(self.parts, replaced[0]) if out])


class OwnImages(Toys):
    """As from files with masks of the objects."""

    def masks(self, indices):
        return {"object": super().masks(indices)["object"]}


def reads(place, constant=False):
    """A network whose logits are sums of two channels over a place: 9 of the class's own, else 4.5."""
    linear = nn.Linear(3 * 8 * 8, 2)
    weight = torch.zeros(2, 3, 8, 8)
    for label in () if constant else (0, 1):
        weight[label, label, place[0], place[1]] = 1
    linear.weight.data, linear.bias.data = weight.flatten(1), torch.tensor([float(constant), 0.0])
    return nn.Sequential(nn.Flatten(), linear)


def run(network, dataset, **settings):
    images, labels = dataset.batch(torch.arange(2))
    probes = Probes(as_float(images), labels, torch.arange(2))
    subject = Subject(network.eval(), probes, dataset, ["cat", "dog"], {})
    found = list(Shortcut(**{"maps": ["gradient", "integrated_gradients"]} | settings)(subject))
    scalars = {o.key: o for o in found if isinstance(o, Scalar)}
    return (
        {key: o.value for key, o in scalars.items()},
        {o.key: o for o in found if isinstance(o, Figure)},
        scalars,
    )


@pytest.mark.slow
def test_a_network_that_reads_the_sticker_is_caught_by_leaving_it_out():
    values, figures, scalars = run(reads(STICKER), Scenes())
    assert values["effect/sticker"] == pytest.approx(4.5) and values["effect/object"] == 0
    assert values["flips/sticker"] == 1 and values["flips/object"] == 0
    assert values["outside/gradient"] == 1 and values["outside/chance"] == pytest.approx(1 - 9 / 64)
    assert values["alarm/shortcut"] == 1
    said = scalars["alarm/shortcut"].text
    assert "falls by 4.50 ± 0.00, without the object by 0.00 ± 0.00" in said
    assert "2 maps 2 are denser on the sticker than on the object" in said
    assert list(figures) == ["classes", "outside", "scenes"]


def test_a_network_that_reads_the_object_is_not():
    values, figures, _ = run(reads(OBJECT), Scenes())
    assert values["effect/object"] == pytest.approx(4.5) and values["effect/sticker"] == 0
    assert values["alarm/shortcut"] == 0 == values["classes_outside"] and values["outside/gradient"] == 0
    assert all(f.image.dtype == torch.uint8 and f.image.shape[2] == 3 for f in figures.values())


def test_of_images_of_ones_own_the_classes_that_look_outside_are_named():
    values, figures, scalars = run(reads(STICKER), OwnImages())
    assert values["classes_outside"] == 2 and values["alarm/shortcut"] == 1
    assert scalars["alarm/shortcut"].text.endswith(
        "2 of 2 classes examined are recognised by what lies outside of the object: cat, dog"
    )
    assert list(figures) == ["classes", "outside"] and len(figures["outside"].indices) == 6
    table = figures["classes"].table.columns
    assert table["looks"] == ["outside"] * 2 and table["recognised"] == [8, 8]
    assert run(reads(OBJECT), OwnImages())[0]["alarm/shortcut"] == 0


def test_a_threshold_takes_the_place_of_chance():
    half = (slice(0, 3), slice(0, 6))  # gradients lie to one half on the object
    for threshold, alarmed in ((0.4, 0), (0.6, 1)):
        values, *_ = run(reads(half), OwnImages(), threshold=threshold, maps=["gradient"])
        assert values["outside/gradient"] == pytest.approx(0.5) and values["alarm/shortcut"] == alarmed


def test_a_network_that_has_learned_nothing_raises_no_alarm():
    values, *_ = run(reads(STICKER, constant=True), OwnImages())
    assert values["alarm/shortcut"] == 0


def test_without_masks_there_is_nothing_to_say():
    class Bare(OwnImages):
        def masks(self, indices):
            return {}

    assert run(reads(STICKER), Bare()) == ({}, {}, {})


def test_where_no_map_can_be_made_interventions_are_all_that_is_said():
    convolutions = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert run(convolutions, OwnImages(), maps=["chefer"]) == ({}, {}, {})
    values, figures, scalars = run(reads(STICKER), Scenes(), maps=["chefer"])
    effects = {f"{kind}/{what}" for kind in ("effect", "flips") for what in ("object", "sticker")}
    assert set(values) == effects | {"alarm/shortcut"} and list(figures) == ["scenes"]
    assert values["alarm/shortcut"] == 1 and "map" not in scalars["alarm/shortcut"].text


def test_images_without_a_mask_are_not_counted():
    class Half(OwnImages):
        def masks(self, indices):
            (masks,) = super().masks(indices).values()
            return {"object": masks & (indices < 12)[:, None, None]}

    values, figures, _ = run(reads(STICKER), Half(), per_class=12)
    assert figures["classes"].table.columns["images"] == [6, 6] and values["alarm/shortcut"] == 1


def test_agreement_is_cohens_kappa():
    draw = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 4, (2, 50), generator=draw)
    predicted = torch.where(torch.rand(50, generator=draw) < 0.5, labels, predicted)
    assert agreement(predicted, labels) == pytest.approx(cohen_kappa_score(labels, predicted))
    assert agreement(torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)) == 0


def test_below_is_said_of_what_a_t_test_says_and_of_no_few_images():
    draw = torch.Generator().manual_seed(0)
    samples = 0.1 * torch.randn(60, 5, generator=draw) - 0.3 * torch.rand(60, 1, generator=draw)
    oracle = ttest_1samp(samples, 0, axis=1, alternative="less").pvalue
    found = [p_below(values, torch.zeros(5)) for values in samples]
    assert found == pytest.approx(oracle.tolist(), rel=1e-4)
    said = [lies_below(values, torch.zeros(5)) for values in samples]
    assert said == (oracle < 0.05).tolist() and 5 < sum(said) < 55
    assert not lies_below(torch.full((3,), -1.0), torch.zeros(3))
    assert lies_below(torch.full((4,), -1.0), torch.zeros(4))


def test_of_networks_that_look_nowhere_few_raise_an_alarm():
    """Shares that have the mean of a random map, of 12 classes of 8 images: all maps agree."""
    labels, draw = torch.arange(12).repeat_interleave(8), torch.Generator().manual_seed(0)
    areas, alarms = {"object": torch.full((96,), 0.3)}, 0
    for _ in range(200):
        shares = {"gradient": {"object": 0.3 + 0.1 * torch.randn(96, generator=draw)}}
        found = looks_outside(Evidence(labels, labels, torch.zeros(96), areas, shares), "object")
        alarms += found.overall or bool(found.classes)
    assert alarms <= 20  # 5 % would be 10


def test_what_no_class_shows_by_itself_all_images_do():
    labels, draw = torch.arange(12).repeat_interleave(8), torch.Generator().manual_seed(0)
    areas, values = {"object": torch.full((96,), 0.3)}, 0.25 + 0.1 * torch.randn(96, generator=draw)
    evidence = Evidence(labels, labels, torch.zeros(96), areas, {"gradient": {"object": values}})
    found = looks_outside(evidence, "object")
    assert found.overall and len(found.classes) < 3
    text = text_of_maps(found, evidence, "object", "by chance", [str(k) for k in range(12)])
    assert text.startswith("most maps lie on the object less than by chance, over 96 recognised images")


def test_classes_are_sampled_alike():
    labels = torch.arange(100) % 10
    indices = class_samples(labels, 10, 3, 5, seed=1)
    assert labels[indices].tolist() == [0] * 3 + [2] * 3 + [4] * 3 + [6] * 3 + [8] * 3
    assert len(indices.unique()) == 15 and indices.tolist() != sorted(indices.tolist())
    assert torch.equal(indices, class_samples(labels, 10, 3, 5, seed=1))


def trained(train):
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 16), (16, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(
        *layers, nn.Conv2d(32, 32, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 8)
    )
    images, labels = train.batch(torch.arange(len(train)))
    images = as_float(images)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    for part in (part for _ in range(12) for part in torch.randperm(len(images)).split(64)):
        optimizer.zero_grad()
        F.cross_entropy(network(images[part]), labels[part]).backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.mark.slow
def test_the_recipes_shortcut_is_taken_and_three_maps_point_at_it(caplog):
    train = SignImages(1, 768, 32, shortcut=1.0, contrast=0.1)
    train.keep = True
    network = trained(train)
    images, labels = train.batch(torch.arange(8))
    subject = Subject(network, Probes(as_float(images), labels, torch.arange(8)), train, CLASSES, {"3": [0]})
    with caplog.at_level(logging.INFO):
        found = {o.key: o for o in Shortcut()(subject) if isinstance(o, Scalar)}
    assert found["alarm/shortcut"].value == 1
    assert "Of 3 maps 3 are denser on the sticker" in found["alarm/shortcut"].text
    assert found["effect/sticker"].value > 5 * found["effect/sign"].value
    plain = dataclasses.replace(
        subject, network=trained(SignImages(1, 768, 32)), dataset=SignImages(2, 96, 32), cache={}
    )
    found = {o.key: o.value for o in Shortcut()(plain) if isinstance(o, Scalar)}
    assert found["alarm/shortcut"] == 0 and found["effect/sign"] > abs(found["effect/sticker"])
