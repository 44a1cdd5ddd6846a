"""Tokens see the whole image and have a place in it: where they stand, and pictures that mark them."""

import torch
from torch import nn

from vitrine.analyses.base import Figure, Probes, Subject
from vitrine.analyses.examples import Examples
from vitrine.analyses.receptive_field import receptive_fields
from vitrine.analyses.token_places import context, token_places
from vitrine.analyses.unit_saliency import UnitSaliency
from vitrine.core.image_dataset import ImageDataset
from vitrine.modules import load_network

FRAME = torch.tensor((255, 45, 85), dtype=torch.uint8)


class SqueezeExcite(nn.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()


def test_places_are_those_of_patches_where_attention_sees_all_and_of_nothing_else():
    network = load_network("vit_tiny_4", classes=3, image_size=16, width=12, depth=2, registers=1)
    layers, images = (
        ["patch_embed", "blocks.0.norm1", "blocks.0", "blocks.1.mlp.act"],
        torch.rand(1, 3, 16, 16),
    )
    places = token_places(network, receptive_fields(network, layers, 16), images)
    assert list(places) == ["blocks.0", "blocks.1.mlp.act"]
    assert places["blocks.0"].shape == (4, 4, 4)
    assert places["blocks.0"][1, 3].tolist() == [4, 12, 8, 16]
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), SqueezeExcite(), nn.Conv2d(4, 2, 3))
    boxes = receptive_fields(conv, ["2"], 16)
    assert (boxes["2"] == torch.tensor([0, 0, 16, 16])).all()  # whole as well, but by no attention
    assert token_places(conv, boxes, images) == {}


def test_the_context_of_a_token_is_three_tokens_wide_and_inside_the_image():
    places = torch.tensor([[4, 4, 8, 8], [0, 12, 4, 16], [12, 12, 16, 16]])
    assert context(places, (16, 16)).tolist() == [[0, 0, 12, 12], [0, 4, 12, 16], [4, 4, 16, 16]]
    assert context(torch.tensor([0, 0, 8, 8]), (16, 20)).tolist() == [0, 0, 16, 20]


class Spots(ImageDataset):
    """Black images, each with one patch of 4 x 4: the whitest in the upper left corner of the second."""

    def __init__(self):
        self.images = torch.zeros(3, 3, 16, 16)
        for image, (row, column) in zip(self.images, ((1, 2), (0, 0), (3, 0))):
            image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1 - 0.1 * row

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return (self.images[index] * 255).to(torch.uint8), 0


def subject():
    """A transformer whose first hidden unit is excited by white patches alone: attention gives nothing."""
    torch.manual_seed(0)
    sizes = {
        "image_size": 16,
        "width": 12,
        "depth": 1,
        "classes": ["a", "b"],
        "mean": [0] * 3,
        "std": [1] * 3,
    }
    network = load_network("vit_tiny_4", **sizes).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    network.patch_embed.weight[0] = 1 / 48
    block = network.blocks[0]
    block.norm2.weight.fill_(1)
    block.mlp.fc1.weight[5, 0] = 1
    dataset = Spots()
    probes = Probes(dataset.images[:1], torch.zeros(1, dtype=torch.int64), torch.arange(1))
    return Subject(network, probes, dataset, ["a", "b"], {"blocks.0.mlp.act": [5]})


def is_frame(picture, top, left, bottom, right):
    edges = (picture[top, left:right], picture[bottom - 1, left:right], picture[top:bottom, left])
    return all((edge == FRAME).all() for edge in (*edges, picture[top:bottom, right - 1]))


def test_examples_show_the_token_that_fired_from_near_and_in_the_whole_image():
    (figure,) = (f for f in Examples(k=1, tile=48)(subject()) if isinstance(f, Figure))
    assert figure.indices == [1]  # the whitest
    assert figure.image.shape == (48, 48 * 2 + 8, 3)
    crop, whole = figure.image[:, :48], figure.image[:, -48:]
    assert is_frame(
        crop, 0, 0, 16, 16
    )  # of the 12 pixels around it, four times as large, the upper left third
    assert (crop[2:14, 2:14] == 255).all() and (crop[20:, 20:] == 0).all()
    assert is_frame(whole, 0, 0, 12, 12) and (whole[2:10, 2:10] == 255).all() and (whole[14:, 14:] == 0).all()
    assert "the token that fires" in figure.caption and "cut out" not in figure.caption


def test_unit_saliency_frames_the_token_in_the_whole_image():
    (figure,) = UnitSaliency(examples=2, side=32)(subject())
    first, second = figure.image[:32, :32], figure.image[:32, 34:66]
    assert is_frame(first, 0, 0, 8, 8) and is_frame(second, 8, 16, 16, 24)
    assert "the token that fires framed" in figure.caption and "cropped" not in figure.caption
