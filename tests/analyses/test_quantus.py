"""Deletion of pixels and the pointing game beside Quantus (Hedström 2023), where it is installed.

It is not in the extra `test`: it brings opencv-python, which overwrites the opencv-python-headless that other
tests need.
"""

import numpy as np
import pytest
import torch
from torch import nn

from vitrine.analyses.pointing import deletion, pointing_game

quantus = pytest.importorskip("quantus")

COUNT, SIDE, STEPS = 6, 8, 16


@pytest.fixture(scope="module")
def scenes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    images, maps = torch.rand(COUNT, 1, SIDE, SIDE), torch.rand(COUNT, SIDE, SIDE)
    masks = torch.rand(COUNT, SIDE, SIDE) < 0.5
    return network, images, torch.tensor([0, 1, 2, 0, 1, 2]), maps, masks


def test_deletion_follows_quantus_pixel_flipping(scenes):
    network, images, targets, maps, _ = scenes
    flipping = quantus.PixelFlipping(
        features_in_step=SIDE * SIDE // STEPS, perturb_baseline=0.5, normalise=False, disable_warnings=True
    )
    theirs = flipping(network, images.numpy(), targets.numpy(), maps[:, None].numpy(), softmax=True)
    _, curve = deletion(network, images, targets, maps, steps=STEPS, baseline=0.5)
    np.testing.assert_allclose(curve[:, 1:].numpy(), np.array(theirs), atol=1e-6)


def test_the_pointing_game_is_quantus(scenes):
    network, images, targets, maps, masks = scenes
    assert masks.flatten(1).any(1).all()  # of an empty mask Quantus says nothing that it could
    game = quantus.PointingGame(normalise=False, disable_warnings=True)
    theirs = game(
        network, images.numpy(), targets.numpy(), maps[:, None].numpy(), masks[:, None].numpy().astype(int)
    )
    assert pointing_game(maps, masks).bool().tolist() == [bool(hit) for hit in theirs]
