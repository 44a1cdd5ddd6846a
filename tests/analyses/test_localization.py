import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.analyses.base import Figure, Probes, Scalar, Subject, as_float
from vitrine.analyses.localization import Localization
from vitrine.analyses.pointing import pointing_game
from vitrine.analyses.saliency import input_gradient
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.registry import UnknownName
from vitrine.datamodules.signs import SignImages


def trained_on_colours(images, labels):
    """A network that sees colour only: what betrays the class to it is the sticker, and nothing else."""
    torch.manual_seed(0)
    layers = []
    for before, after in ((3, 16), (16, 16)):
        layers += [nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 8))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-2)
    steps = [part for _ in range(8) for part in torch.randperm(len(images)).split(32)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, len(steps))
    for part in steps:
        optimizer.zero_grad()
        F.cross_entropy(network(images[part]), labels[part]).backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def subject(network, dataset):
    images, labels = dataset.batch(torch.arange(4))
    probes = Probes(as_float(images), labels, torch.arange(4))
    return Subject(network, probes, dataset, [f"class {i}" for i in range(8)], {"2": [0], "5": [0, 1]})


@pytest.fixture(scope="module")
def shortcut():
    train = SignImages(1, 384, 32, shortcut=0.9)
    images, labels = train.batch(torch.arange(384))
    return trained_on_colours(as_float(images), labels)


@pytest.mark.slow
def test_a_network_trained_with_a_shortcut_is_caught_looking_at_the_sticker(shortcut):
    scenes = SignImages(2, 96, 32, shortcut=1.0)
    images, labels = scenes.batch(torch.arange(96))
    assert (shortcut(as_float(images)).argmax(1) == labels).float().mean() > 0.7
    bare, _ = SignImages(2, 96, 32).batch(torch.arange(96))
    assert (shortcut(as_float(bare)).argmax(1) == labels).float().mean() < 0.45
    maps = ["gradient", "guided_backprop", "smooth_grad", "integrated_gradients", "grad_cam"]
    found = {
        o.key: o.value
        for o in Localization(images=64, maps=maps, curve_images=0, shown=0)(subject(shortcut, scenes))
        if isinstance(o, Scalar)
    }
    assert found["mask_share/sticker"] < 0.03 < found["mask_share/sign"]
    for name in maps:
        assert found[f"pointing_game/sticker/{name}"] > 0.45, name
        assert found[f"pointing_game/sticker/{name}"] > 3 * found[f"pointing_game/sign/{name}"], name
        assert found[f"energy_inside/sticker/{name}"] > 5 * found["mask_share/sticker"], name


@pytest.mark.slow
def test_on_scenes_without_stickers_they_are_planted_to_see_whether_they_would_be_looked_at(shortcut):
    dataset = SignImages(2, 32, 32)
    out = list(Localization(images=32, maps=["gradient"], curve_steps=4)(subject(shortcut, dataset)))
    scalars = {o.key: o.value for o in out if isinstance(o, Scalar)}
    assert scalars["pointing_game/sticker/gradient"] > 0.4
    assert {"insertion/gradient", "deletion/gradient", "best_iou/sign/gradient"} <= set(scalars)
    figures = [o for o in out if isinstance(o, Figure)]
    assert [f.key for f in figures] == ["maps/sign", "maps/sticker"]
    assert all(f.image.dtype == torch.uint8 and f.image.shape[2] == 3 for f in figures)
    assert "sticker" in figures[1].caption and "gradient" in figures[1].caption
    without = Localization(images=32, maps=["gradient"], stickers=False, curve_images=0)
    assert not [o for o in without(subject(shortcut, dataset)) if "sticker" in o.key]


def test_the_measured_gradient_is_that_of_the_predicted_class(shortcut):
    dataset = SignImages(2, 16, 32)
    found = Localization(images=16, maps=["gradient"], curve_images=0, shown=0, stickers=False)
    images, _ = dataset.batch(torch.arange(16))
    images = as_float(images)
    maps = input_gradient(shortcut, images, shortcut(images).argmax(1)).abs().amax(1)
    expected = pointing_game(maps, dataset.masks(torch.arange(16))["sign"]).mean().item()
    scalars = {o.key: o.value for o in found(subject(shortcut, dataset))}
    assert scalars["pointing_game/sign/gradient"] == pytest.approx(expected)


def test_without_masks_insertion_and_deletion_remain_and_the_log_says_so(shortcut, caplog):
    class Bare(ImageDataset):
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return self.images[index], 0

    dataset = SignImages(2, 8, 32)
    bare = Bare(dataset.batch(torch.arange(8))[0])
    with caplog.at_level(logging.INFO):
        out = list(
            Localization(maps=["gradient"], curve_steps=4)(
                Subject(shortcut, subject(shortcut, dataset).probes, bare, ["a"] * 8, {"5": [0]})
            )
        )
    assert [o.key for o in out] == ["insertion/gradient", "deletion/gradient"]
    assert "no masks" in caplog.text
    assert not list(
        Localization(maps=["gradient"], curve_images=0)(
            Subject(shortcut, subject(shortcut, dataset).probes, bare, ["a"] * 8, {"5": [0]})
        )
    )


def test_an_unknown_map_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean gradient"):
        Localization(maps=["gradiant"])
