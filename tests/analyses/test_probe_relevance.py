import dataclasses
import logging

import pytest
import torch
import torchvision
from torch import nn

from vitrine.analyses import paint
from vitrine.analyses.base import Probes, Scalar, Subject
from vitrine.analyses.cam import grad_cam
from vitrine.analyses.localization import Localization
from vitrine.analyses.picture_table import GAP, LINE
from vitrine.analyses.probe_relevance import ProbeRelevance
from vitrine.analyses.relevance import attention_gradient, chefer, legrad, rollout
from vitrine.core.registry import UnknownName
from vitrine.datamodules.signs import SignImages

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLASSES = [f"class {i}" for i in range(8)]


def vit():
    torch.manual_seed(0)
    arguments = {"image_size": 32, "patch_size": 8, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    network = torchvision.models.VisionTransformer(**arguments, num_layers=2, num_classes=8).eval()
    nn.init.normal_(network.heads.head.weight)  # torchvision starts from 0: no gradient
    return network.requires_grad_(False)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8)
    ).eval()


def subject(network, dataset=None):
    labels = network(IMAGES).argmax(1)
    labels[1] = (labels[1] + 1) % 8  # one is wrong
    return Subject(network, Probes(IMAGES, labels, torch.arange(4)), dataset, CLASSES, {"1": [0]})


def tile(figure, row, column):
    top, left = LINE + row * (128 + GAP), LINE + column * (128 + GAP)
    return figure.image[top : top + 128, left : left + 128]


def test_each_probe_has_one_picture_with_a_row_for_the_true_class_and_one_where_another_is_predicted():
    given = subject(vit())
    figures = list(ProbeRelevance(probes=3)(given))
    assert [f.key for f in figures] == [f"probe-{i:03d}/maps" for i in range(3)]
    assert [f.image.shape[0] for f in figures] == [LINE + 128, LINE + 2 * 128 + GAP, LINE + 128]
    truth, predicted = int(given.probes.labels[1]), int(given.network(IMAGES).argmax(1)[1])
    assert f"class {truth} (true, " in figures[1].caption
    assert f"class {predicted} (predicted, " in figures[1].caption
    assert "(true and predicted, " in figures[0].caption and figures[1].label == truth
    assert "each divided by its maximum, LeGrad's minimum subtracted before" in figures[0].caption
    probability = given.network(IMAGES).softmax(1)[1, truth].item()
    assert figures[1].values["probability"] == pytest.approx(probability)
    image, targets = IMAGES[1], torch.tensor([truth, predicted])
    cams = grad_cam(given.network, IMAGES[[1, 1]], targets, "encoder.layers.encoder_layer_1.ln_1")
    from_zero = legrad(given.network, IMAGES[[1, 1]], targets)
    from_zero = from_zero - from_zero.amin((1, 2), keepdim=True)
    others = [f(given.network, IMAGES[[1, 1]], targets) for f in (chefer, attention_gradient)]
    others.append(rollout(given.network, IMAGES[[1, 1]]))
    for row in range(2):
        assert torch.equal(tile(figures[1], row, 0), paint.resize(paint.picture(image), 128))
        for column, maps in enumerate([cams, from_zero, *others], 1):
            upsampled = paint.upsample(maps[row], (32, 32))
            expected = paint.resize(paint.overlay_heatmap(upsampled, image), 128)
            assert (tile(figures[1], row, column).int() - expected.int()).abs().max() <= 1


def test_a_network_without_attention_yields_nothing_without_a_word(caplog):
    with caplog.at_level(logging.INFO):
        assert not list(ProbeRelevance()(subject(convolutional())))
    assert not caplog.messages


def test_maps_that_windows_do_not_allow_are_left_out_and_named_once_a_run(caplog):
    torch.manual_seed(0)
    network = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=8).eval()
    given = subject(network)
    figures = list(ProbeRelevance(probes=2)(given))
    assert "image, Grad-CAM, attention x gradient, each" in figures[0].caption
    assert "LeGrad" not in figures[0].caption
    (line,) = caplog.messages
    assert line == (
        "legrad is left out, and so is chefer and rollout: it needs attention of all tokens to all, and "
        "features.1.0.attn attends within 4 windows of 16 tokens"
    )
    caplog.clear()
    list(ProbeRelevance(probes=2)(dataclasses.replace(given, previous={"relevance": figures})))
    assert not caplog.messages


def test_a_map_by_an_unknown_name_is_refused_at_once():
    with pytest.raises(UnknownName, match="did you mean legrad"):
        ProbeRelevance(maps=["le_grad"])


def scalars(network, **settings):
    measured = Localization(images=16, curve_images=2, curve_steps=2, shown=2, **settings)
    return {
        o.key: o.value for o in measured(subject(network, SignImages(2, 16, 32))) if isinstance(o, Scalar)
    }


@pytest.mark.slow
def test_localization_measures_them_beside_the_others_and_leaves_networks_without_attention_as_they_were():
    found = scalars(vit())
    for name in ("gradient", "grad_cam", "legrad", "chefer", "attention_gradient", "rollout"):
        assert {f"pointing_game/sign/{name}", f"energy_inside/sticker/{name}", f"deletion/{name}"} <= set(
            found
        )
    before = ["gradient", "guided_backprop", "integrated_gradients", "grad_cam"]
    assert scalars(convolutional()) == scalars(convolutional(), maps=before)
