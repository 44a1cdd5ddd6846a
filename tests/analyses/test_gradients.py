"""A network that lets no gradient flow back keeps the pictures that need none, and says what is missing."""

import copy
import logging

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from vitrine.analyses.ascent import plain_gradients
from vitrine.analyses.attention_structure import attention_structure
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.cam import grad_cam
from vitrine.analyses.class_maps import ClassMaps
from vitrine.analyses.dream import Dream
from vitrine.analyses.evidence import NoSpatialLayer, last_spatial_layer
from vitrine.analyses.features import Features
from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.localization import Localization
from vitrine.analyses.objectives import channel, logit
from vitrine.analyses.probe_relevance import ProbeRelevance
from vitrine.analyses.probe_saliency import Saliency
from vitrine.analyses.randomization import Randomization
from vitrine.analyses.relevance import chefer, legrad
from vitrine.analyses.rule_gradients import rule_gradients
from vitrine.analyses.saliency import (
    deconvnet,
    guided_backprop,
    input_gradient,
    integrated_gradients,
    smooth_grad,
)
from vitrine.analyses.unit_saliency import UnitSaliency
from vitrine.core.image_dataset import ImageDataset

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
SAID = "under torch.no_grad"


class Probe(nn.Module):
    """A linear probe: a backbone that is not trained, and a head that is."""

    def __init__(self, detached):
        super().__init__()
        self.detached = detached
        convolutions = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.backbone, self.head = nn.Sequential(*convolutions), nn.Linear(8, 3)

    def forward(self, x):
        if self.detached:
            return self.head(self.backbone(x).detach().mean((2, 3)))
        with torch.no_grad():
            x = self.backbone(x)
        return self.head(x.mean((2, 3)))


class Images(ImageDataset):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return IMAGES[index], int(LABELS[index])


@pytest.fixture(params=[False, True], ids=["no_grad", "detach"])
def network(request):
    torch.manual_seed(0)
    return Probe(request.param).eval()


def subject(network):
    network.requires_grad_(False)
    probes = Probes(IMAGES[:3], LABELS[:3], torch.arange(3))
    return Subject(network, probes, Images(), ["a", "b", "c"], {"backbone.1": [0], "backbone.3": [0, 1]})


def test_every_gradient_of_the_logits_says_what_is_in_its_way(network):
    x, y = IMAGES[:2], LABELS[:2]
    for technique in (input_gradient, guided_backprop, deconvnet):
        with pytest.raises(NoGradient, match=f"its logits {SAID}"):
            technique(network, x, y)
    with pytest.raises(NoGradient, match=SAID):
        smooth_grad(network, x, y, n=1)
    for tolerance in (None, 0.1):
        with pytest.raises(NoGradient, match=SAID):
            integrated_gradients(network, x, y, steps=5, tolerance=tolerance)
    with pytest.raises(NoGradient, match=SAID):
        rule_gradients(network, x, {"gradient": "logit"}, y)
    with pytest.raises(NoGradient, match=f"its logits {SAID}"):
        plain_gradients(network, [logit(0)], x[None, :1])
    with pytest.raises(NoGradient, match=r"flows back to layer 'backbone\.3'"):
        grad_cam(network, x, y, "backbone.3")


def test_units_before_a_detached_tensor_have_their_gradients():
    probe, of = Probe(True).eval(), {"layer": "backbone.3", "unit": 0}
    assert input_gradient(probe, IMAGES, **of).any()
    with pytest.raises(NoGradient, match=r"layer 'backbone\.3'"):
        input_gradient(Probe(False).eval(), IMAGES, **of)
    with pytest.raises(NoGradient, match=r"layer 'backbone\.3'"):
        plain_gradients(Probe(False).eval(), [channel("backbone.3", 0)], IMAGES[None, :1])


def test_no_layer_is_offered_for_grad_cam(network):
    with pytest.raises(NoSpatialLayer, match="no gradient of theirs"):
        last_spatial_layer(network, IMAGES[:1])


@pytest.mark.parametrize("layer", ["auto", "backbone.3"])
def test_class_activation_maps_are_shown_alone(network, layer, caplog):
    with caplog.at_level(logging.WARNING):
        figures = list(ClassMaps(layer=layer, side=16)(subject(network)))
    assert {figure.probe for figure in figures} == {0, 1, 2}
    for figure in figures:
        assert figure.image.shape == (24, 2 * 24 + 2, 3)  # the image and its map
        assert set(figure.values) == {"confidence", "cam_maximum"}
        assert "CAM (red for, blue against); no Grad-CAM: " in figure.caption
        role = "true" if figure.label == LABELS[figure.probe] else "predicted, wrongly"
        assert role in figure.caption
    assert [record.message.count("there is no Grad-CAM") for record in caplog.records] == [1]


def test_analyses_keep_the_maps_that_need_no_gradient_and_say_which_are_missing(network, caplog):
    given = subject(network)
    (occlusion,) = {tuple(f.values) for f in Saliency(copies=1, steps=1)(given)}
    assert occlusion == ("probability", "occlusion")
    said = [r.message for r in caplog.records if SAID in r.message]
    assert len(said) == 1 and said[0].startswith("gradient is left out, and so is guided_backprop and ")
    keys = [o.key for o in Localization(maps=["gradient", "grad_cam", "occlusion"])(given)]
    assert keys == ["insertion/occlusion", "deletion/occlusion"]
    assert list(Localization(maps=["gradient"])(given)) == list(Saliency(maps=["gradient"])(given)) == []
    assert list(Randomization(maps=["gradient"])(given)) == []


def test_features_leave_out_what_cannot_be_optimised_and_say_so(network, caplog):
    given = subject(network)
    found = [figure.key for figure in Features(steps=1)(given) if hasattr(figure, "image")]
    layers = ["backbone.1/unit-000", "backbone.3/unit-000", "backbone.3/unit-001"]
    assert found == (layers if network.detached else [])
    said = [r.message for r in caplog.records if SAID in r.message]
    assert len(said) == (1 if network.detached else 3)
    dreams = list(Dream(octaves=1, steps=1, size=16)(given))
    assert bool(dreams) == network.detached


def test_examples_of_a_unit_stand_without_maps_where_there_are_none(network):
    for figure in UnitSaliency(examples=2, side=16)(subject(network)):
        rows = figure.image.shape[0] // 15
        assert rows == (3 if network.detached else 1), figure.image.shape
        assert ("without a map: the network computes layer" in figure.caption) != network.detached


def test_transformers_whose_backbone_is_frozen_have_no_relevance():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
            block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

        def forward(self, x):
            with torch.no_grad():
                x = self.blocks(self.patches(x).flatten(2).mT)
            return self.head(x.mean(1))

    network = Frozen().eval().requires_grad_(False)
    for technique in (chefer, legrad):
        with pytest.raises(NoGradient, match="flows back to attention"):
            technique(network, IMAGES, LABELS)
    relevance = list(ProbeRelevance(maps=["chefer", "rollout"])(subject_of(network)))
    assert all("attention rollout" in f.caption and "Chefer" not in f.caption for f in relevance)
    assert len(relevance) == 3


def under_no_grad(network):
    """A copy of the network, its whole forward pass decorated."""
    decorated, kind = copy.deepcopy(network), type(network)
    decorated.__class__ = type("Decorated", (kind,), {"forward": torch.no_grad()(kind.forward)})
    return decorated


def test_a_whole_forward_pass_under_no_grad_has_the_gradients_that_begin_within_it():
    """The scope ends before the score is read off the logits."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    plain, decorated = plain.eval(), under_no_grad(plain).eval()
    layer = last_spatial_layer(plain, IMAGES[:1])
    assert last_spatial_layer(decorated, IMAGES[:1]) == layer
    assert torch.equal(grad_cam(decorated, IMAGES, LABELS, layer), grad_cam(plain, IMAGES, LABELS, layer))
    given = subject_of(decorated)
    assert list(ClassMaps()(given))
    for technique in (Saliency, Randomization):
        assert list(technique(maps=["gradient", "grad_cam"])(given))
    with pytest.raises(NoGradient, match=SAID):
        input_gradient(decorated, IMAGES, LABELS)

    plain = VisionTransformer(12, 4, 2, 2, 8, 16, num_classes=3).eval()
    nn.init.normal_(plain.heads.head.weight)
    decorated = under_no_grad(plain)
    assert attention_structure(decorated, IMAGES[:1]).readers == [0]
    for technique in (chefer, legrad):
        assert torch.equal(technique(decorated, IMAGES, LABELS), technique(plain, IMAGES, LABELS))


def subject_of(network):
    probes = Probes(IMAGES[:3], LABELS[:3], torch.arange(3))
    return Subject(network, probes, Images(), ["a", "b", "c"], {})
