import dataclasses
import logging

import pytest
import torch
from torch import nn

from vitrine.analyses import paint
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.picture_table import GAP, LINE
from vitrine.analyses.probe_saliency import Saliency
from vitrine.core.registry import UnknownName

IMAGES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
QUICK = {"copies": 2, "steps": 2}


def subject(activation=nn.ReLU):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    ).eval()
    labels = network(IMAGES).argmax(1)
    labels[1] = (labels[1] + 1) % 4  # one is wrong
    classes = ["ant", "bee", "cat", "dog"]
    return Subject(network, Probes(IMAGES, labels, torch.arange(5)), None, classes, {"1": [0], "2": [0]})


def test_each_probe_has_a_row_for_its_true_class_and_one_more_where_another_is_predicted():
    given = subject()
    figures = list(Saliency(probes=3, **QUICK)(given))
    assert [f.probe for f in figures] == [0, 1, 1, 2]
    true, predicted = figures[1:3]
    assert true.label == given.probes.labels[1] and "(true, " in true.caption
    assert predicted.label == given.network(IMAGES).argmax(1)[1] and "(predicted, " in predicted.caption
    assert "(true and predicted, " in figures[0].caption
    assert figures[0].key == f"probe-000/{given.classes[figures[0].label]}"
    probability = given.network(IMAGES).softmax(1)[1, true.label].item()
    assert true.values["probability"] == pytest.approx(probability)
    for figure in figures:  # the image, the gradient twice, six more: nine tiles of 128 pixels
        assert figure.image.shape == (LINE + 128, LINE + 9 * 128 + 8 * GAP, 3)
        tile = figure.image[LINE:, LINE : LINE + 128]
        assert torch.equal(tile, paint.resize(paint.picture(IMAGES[figure.probe]), 128))
        assert all(
            t in figure.caption for t in ("SmoothGrad", "Guided Grad-CAM", "occlusion", "Adebayo 2018")
        )


def test_the_same_pictures_come_again_and_a_probe_does_not_depend_on_the_others():
    few, again, more = (list(Saliency(probes=n, **QUICK)(subject())) for n in (1, 1, 4))
    assert torch.equal(few[0].image, again[0].image)
    assert (few[0].image.int() - more[0].image.int()).abs().max() <= 1


def test_maps_that_a_network_without_relus_cannot_have_are_left_out_and_the_log_says_so(caplog):
    with caplog.at_level(logging.INFO):
        figure = next(Saliency(probes=1, **QUICK)(subject(nn.GELU)))
    assert "guided" not in figure.caption.lower() and "Adebayo" not in figure.caption
    assert figure.image.shape[1] == LINE + 6 * 128 + 5 * GAP
    assert "guided_backprop is left out" in caplog.text and "GELU" in caplog.text


def test_what_is_left_out_is_said_in_one_line_and_once_a_run(caplog):
    given = subject(nn.GELU)
    figures = list(Saliency(probes=1, **QUICK)(given))
    (line,) = caplog.messages
    assert line.startswith("guided_backprop is left out, and so is deconvnet and guided_grad_cam: ")
    caplog.clear()
    list(Saliency(probes=1, **QUICK)(dataclasses.replace(given, previous={"saliency": figures})))
    assert not caplog.messages


def test_a_network_without_a_map_goes_without_grad_cam():
    given = subject()
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 6), nn.ReLU(), nn.Linear(6, 4))
    given = Subject(network, given.probes, None, given.classes, {"2": [0]})
    figure = next(Saliency(probes=1, **QUICK)(given))
    assert "guided backprop" in figure.caption and "Grad-CAM" not in figure.caption


def test_a_map_by_an_unknown_name_is_refused_at_once():
    with pytest.raises(UnknownName, match="smooth_grad"):
        Saliency(maps=["smoothgrad"])
