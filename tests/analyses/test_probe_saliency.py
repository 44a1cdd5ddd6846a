import dataclasses
import logging

import pytest
import torch
from torch import nn

from vitrine.analyses import paint
from vitrine.analyses.attribution import Effort, attributions, attributions_by_image
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.pass_size import PIXELS
from vitrine.analyses.picture_table import GAP, LINE
from vitrine.analyses.probe_saliency import TITLES, Saliency
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


def passes(network):
    """A list that fills with the batches of the passes that are to have gradients by the pixels."""
    batches = []

    def note(_network, inputs):
        if torch.is_grad_enabled() and inputs[0].requires_grad:
            batches.append(len(inputs[0]))

    network.register_forward_pre_hook(note)
    return batches


def test_an_image_has_one_forward_pass_for_all_rules_one_a_copy_and_one_a_step_whatever_its_classes():
    given = subject()
    batches = passes(given.network)
    figures = list(Saliency(probes=3, copies=4, steps=2)(given))
    assert len(figures) == 4  # one of the three images has two classes
    assert sum(batches) == 3 * (1 + 4 + 2)


def test_the_maps_of_an_image_of_two_classes_are_those_of_each_class_alone():
    given = subject()
    rows, targets = torch.tensor([0, 1, 1, 2]), torch.tensor([3, 0, 2, 1])
    names, effort = list(TITLES)[:8], Effort(2, steps=2)
    found = attributions_by_image(given.network, names, IMAGES[:3], rows, targets, "1", effort)
    for i in range(4):
        alone = attributions(given.network, names, IMAGES[rows[i : i + 1]], targets[i : i + 1], "1", effort)
        assert list(found) == names and list(alone) == names
        for name in names:
            torch.testing.assert_close(found[name][i], alone[name][0], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_large_images_pass_a_few_at_a_time_and_one_at_a_time_where_memory_has_room_for_no_more():
    given = subject()
    images = torch.rand(5, 3, 256, 256)
    large = dataclasses.replace(given, probes=dataclasses.replace(given.probes, images=images))
    batches = passes(large.network)
    list(Saliency(probes=3, **QUICK)(large))
    assert max(batches) <= PIXELS["cpu"] // 256**2 == 8
    batches.clear()
    list(Saliency(probes=3, **QUICK)(dataclasses.replace(given, batch_size=1)))
    assert max(batches) == 1


def test_a_network_without_a_map_goes_without_grad_cam():
    given = subject()
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 6), nn.ReLU(), nn.Linear(6, 4))
    given = Subject(network, given.probes, None, given.classes, {"2": [0]})
    figure = next(Saliency(probes=1, **QUICK)(given))
    assert "guided backprop" in figure.caption and "Grad-CAM" not in figure.caption


def test_a_map_by_an_unknown_name_is_refused_at_once():
    with pytest.raises(UnknownName, match="smooth_grad"):
        Saliency(maps=["smoothgrad"])
