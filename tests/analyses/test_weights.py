import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from vitrine import modules
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.weights import Weights, first_layer


def subject(network, classes=("a", "b")):
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    probes = Probes(images, labels, torch.arange(2))
    return Subject(network, probes, [], list(classes), {})


def test_filters_are_the_first_convolutions():
    network = torchvision.models.resnet18()
    assert torch.equal(first_layer(network), network.conv1.weight)
    transformer = torchvision.models.VisionTransformer(32, 8, 1, 1, 16, 16)
    assert first_layer(transformer).shape == (16, 3, 8, 8)


def test_a_perceptrons_rows_are_pictures_that_give_the_logits():
    network = modules.load_network("perceptron", classes=4, image_size=8)
    rows = first_layer(network)
    assert rows.shape == (4, 3, 8, 8)
    images = torch.rand(5, 3, 8, 8)
    logits = torch.einsum("kchw,nchw->nk", rows, network.normalize(images)) + network.linear.bias
    torch.testing.assert_close(network(images), logits)


def test_rows_fold_into_the_subjects_images_where_these_are_not_square():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 9, 2))
    given = subject(network)
    probes = Probes(torch.rand(2, 3, 4, 9), given.probes.labels, given.probes.indices)
    sheet, *_ = Weights(side=1)(dataclasses.replace(given, probes=probes))
    assert "4 x 9" in sheet.caption
    assert torch.equal(first_layer(network, (3, 4, 9)), network[1].weight.view(2, 3, 4, 9))
    with pytest.raises(ValueError, match=r"7 inputs sees no square image .*, nor one of 1 x 2 x 3"):
        first_layer(nn.Linear(7, 2), (1, 2, 3))


def test_grey_images_and_hidden_dense_layers_fold_back_into_images():
    assert first_layer(nn.Sequential(nn.Flatten(), nn.Linear(784, 9), nn.Linear(9, 2))).shape == (
        9,
        1,
        28,
        28,
    )
    with pytest.raises(ValueError, match=r"7 inputs"):
        first_layer(nn.Linear(7, 2))
    with pytest.raises(ValueError, match="neither a convolution nor a dense layer"):
        first_layer(nn.ReLU())


def test_zero_is_mid_grey_and_one_scale_serves_the_whole_layer():
    network = nn.Sequential(nn.Conv2d(3, 2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.zero_()
        network[0].weight[0, 0, 0, 0] = 2.0
        network[0].weight[1, 1, 1, 1] = -1.0
    sheet, first, second = Weights(side=4)(subject(network))
    assert [figure.key for figure in (sheet, first, second)] == ["0/all", "0/unit-000", "0/unit-001"]
    assert first.image.shape == (4, 4, 3) and first.image.dtype == torch.uint8
    assert first.image[0, 0].tolist() == first.image[1, 1].tolist() == [255, 128, 128]  # whole pixels
    assert second.image[3, 3].tolist() == [128, 64, 128]  # -1 of a scale of 2
    assert second.image[0, 0].tolist() == [128, 128, 128]
    assert "full brightness 2" in first.caption and first.values["scale"] == 2
    assert (first.unit, first.layer, first.label) == (0, "0", None)


def test_a_perceptrons_pictures_are_named_after_the_classes():
    network = modules.load_network("perceptron", classes=["stop", "yield"], image_size=8)
    figures = list(Weights()(subject(network, ["stop", "yield"])))
    assert [figure.key for figure in figures] == ["linear/all", "linear/stop", "linear/yield"]
    assert figures[2].label == 1


def test_other_numbers_of_channels_show_their_mean_and_say_so():
    figures = list(Weights(most=3)(subject(nn.Sequential(nn.Conv2d(5, 12, 3)))))
    assert [figure.unit for figure in figures] == [None, 0, 4, 8]
    assert all("mean over its 5 input channels" in figure.caption for figure in figures)
    assert (figures[1].image[..., 0] == figures[1].image[..., 1]).all()
