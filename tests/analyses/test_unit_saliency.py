import dataclasses

import torch
from torch import nn

from vitrine.analyses import paint
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.examples import dataset_examples
from vitrine.analyses.saliency import deconvnet, guided_backprop
from vitrine.analyses.unit_saliency import UnitSaliency
from vitrine.core.image_dataset import ImageDataset

CROSS = torch.tensor([[-1.0, 1, -1], [1, 1, 1], [-1, 1, -1]])


class Planted(ImageDataset):
    """Grey images, each but the first with a cross somewhere, fainter by fainter."""

    def __init__(self):
        self.places = [(5 + 2 * i, 20 - 2 * i) for i in range(6)]
        self.images = torch.full((6, 1, 32, 32), 0.5)
        for i, (row, column) in enumerate(self.places[1:], 1):
            self.images[i, 0, row : row + 3, column : column + 3] += CROSS / 2 * (1 - i / 10)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.images[index], 0


def subject(activation=nn.ReLU):
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network[0].weight.data = torch.stack([torch.zeros(1, 3, 3), CROSS[None]])
    dataset = Planted()
    probes = Probes(dataset.images[:1], torch.zeros(1, dtype=torch.int64), torch.arange(1))
    return Subject(network.eval(), probes, dataset, ["cross", "none"], {"1": [1]})


def test_each_example_stands_above_guided_backprop_and_deconvnet_cropped_to_the_planted_place():
    (figure,) = UnitSaliency(examples=3, side=30)(subject())
    assert figure.key == "1/unit-001" and figure.layer == "1" and figure.unit == 1
    assert figure.image.shape == (3 * 30 + 2 * paint.GAP, 3 * 30 + 2 * paint.GAP, 3)
    given = subject()
    for column, index in enumerate((1, 2, 3)):  # the strongest crosses, in order
        row, left = given.dataset.places[index]
        image = given.dataset.images[index : index + 1]
        tiles = [paint.picture(image[0, :, row : row + 3, left : left + 3])]
        for technique in (guided_backprop, deconvnet):
            crop = technique(given.network, image, layer="1", unit=1)[0, :, row : row + 3, left : left + 3]
            torch.testing.assert_close(crop[0], CROSS)
            tiles.append(paint.signed_picture(crop))
        for r, tile in enumerate(tiles):
            top, start = r * (30 + paint.GAP), column * (30 + paint.GAP)
            shown = figure.image[top : top + 30, start : start + 30]
            assert torch.equal(shown, paint.resize(tile, 30)), (index, r)
    assert "guided backprop and deconvnet" in figure.caption


def test_both_maps_of_an_example_come_from_one_forward_pass():
    given, batches = subject(), []
    dataset_examples(given)

    def note(_network, inputs):
        batches.extend([len(inputs[0])] if inputs[0].requires_grad else [])

    given.network.register_forward_pre_hook(note)
    list(UnitSaliency(examples=3, side=30)(given))
    assert batches == [3]


def test_without_relus_the_input_gradient_stands_in_and_the_caption_says_so():
    (figure,) = UnitSaliency(examples=2, side=30)(subject(nn.GELU))
    assert figure.image.shape == (2 * 30 + paint.GAP, 2 * 30 + paint.GAP, 3)
    assert "input gradient" in figure.caption and "guided" not in figure.caption


def test_a_small_data_set_gives_as_many_examples_as_it_has():
    (figure,) = UnitSaliency(examples=12, side=30)(subject())
    assert figure.image.shape[1] == 6 * 30 + 5 * paint.GAP


def test_a_unit_without_finite_activations_is_named_and_costs_no_other_unit(caplog):
    given = subject()
    given.network[0].weight.data = torch.stack([torch.full((1, 3, 3), float("nan")), CROSS[None]])
    both = dataclasses.replace(given, units={"1": [0, 1]})
    (figure,) = UnitSaliency(examples=3, side=30)(both)
    assert figure.unit == 1 and figure.image.shape[1] == 3 * 30 + 2 * paint.GAP
    assert "no finite activations of units [0] of layer 1" in caplog.text
