"""Every public function that runs a network works for any caller, and for any network that has logits."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import EncoderBlock

from vitrine.analyses import (
    cam,
    dream,
    evidence,
    layers,
    pointing,
    receptive_field,
    saliency,
    style,
    visualization,
)
from vitrine.analyses.examples import top_examples
from vitrine.analyses.objectives import channel, logit
from vitrine.analyses.randomization import cascade
from vitrine.attacks import (
    APGD,
    EOT,
    FAB,
    FGSM,
    LBFGS,
    PGD,
    AutoAttack,
    Square,
    is_adversarial,
    robustness_curve,
)
from vitrine.attacks.eot import destruction_rate
from vitrine.attacks.health import check_health


def build() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).eval()


def inputs() -> dict[str, Tensor]:
    """New tensors, made in whatever mode the caller is in."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 8, 8, generator=generator)
    return {
        "images": images,
        "targets": torch.tensor([0, 1, 3]),
        "maps": torch.rand(3, 8, 8, generator=generator),
    }


SMALL = {"eps": 0.05, "steps": 2}
LAST = "3"  # the layer that is looked at
FUNCTIONS = {
    "input_gradient": lambda n, i: saliency.input_gradient(n, i["images"], i["targets"]),
    "unit_gradient": lambda n, i: saliency.input_gradient(n, i["images"], layer=LAST, unit=i["targets"]),
    "guided_backprop": lambda n, i: saliency.guided_backprop(n, i["images"], i["targets"]),
    "deconvnet": lambda n, i: saliency.deconvnet(n, i["images"], i["targets"]),
    "smooth_grad": lambda n, i: saliency.smooth_grad(n, i["images"], i["targets"], n=2),
    "integrated_gradients": lambda n, i: saliency.integrated_gradients(n, i["images"], i["targets"], steps=2),
    "guided_grad_cam": lambda n, i: saliency.guided_grad_cam(n, i["images"], i["targets"], LAST),
    "occlusion": lambda n, i: saliency.occlusion(n, i["images"], i["targets"], patch=4, stride=4),
    "cam": lambda n, i: cam.cam(n, i["images"], i["targets"]),
    "grad_cam": lambda n, i: cam.grad_cam(n, i["images"], i["targets"], LAST),
    "grad_cam_pp": lambda n, i: cam.grad_cam_pp(n, i["images"], i["targets"], LAST),
    "hires_cam": lambda n, i: cam.hires_cam(n, i["images"], i["targets"], LAST),
    "layer_cam": lambda n, i: cam.layer_cam(n, i["images"], i["targets"], LAST),
    "last_spatial_layer": lambda n, i: evidence.last_spatial_layer(n, i["images"]),
    "auto_layers": lambda n, i: layers.auto_layers(n, i["images"]),
    "choose_units": lambda n, i: layers.choose_units(n, i["images"], [LAST]),
    "receptive_field": lambda n, i: receptive_field.receptive_field(n, LAST, i["targets"][:2], 8),
    "effective_field": lambda n, i: receptive_field.effective_field(n, LAST, 1, i["images"][0], (1, 1)),
    "top_examples": lambda n, i: top_examples(n, [(i["images"], i["targets"])], [LAST], k=2)[LAST].values,
    "cascade": lambda n, i: cascade(n, i["images"], [LAST]),
    "visualize": lambda n, i: visualization.visualize(
        n, [channel(LAST, 1), logit(2)], size=8, steps=2, seed=0, warm_start=i["images"][:2]
    ),
    "maco": lambda n, i: visualization.maco(
        n, [channel(LAST, 1)], size=8, magnitude=torch.ones(3, 8, 5), steps=2, seed=0
    )[0],
    "objective_values": lambda n, i: visualization.objective_values(
        n, [channel(LAST, 1), logit(2)], i["images"][:2]
    ),
    "dream": lambda n, i: dream.dream(n, i["images"], LAST, octaves=1, steps=2),
    "transfer": lambda n, i: style.transfer(
        n, i["images"][:1], i["images"][1:2], content_layers=[LAST], style_layers=["0"], steps=2
    ),
    "deletion": lambda n, i: pointing.deletion(n, i["images"], i["targets"], i["maps"], steps=4)[1],
    "insertion": lambda n, i: pointing.insertion(n, i["images"], i["targets"], i["maps"], steps=4)[1],
    "fgsm": lambda n, i: FGSM(eps=0.05)(n, i["images"], i["targets"]),
    "pgd": lambda n, i: PGD(**SMALL)(n, i["images"], i["targets"]),
    "apgd": lambda n, i: APGD(**SMALL)(n, i["images"], i["targets"]),
    "fab": lambda n, i: FAB(**SMALL)(n, i["images"], i["targets"]),
    "lbfgs": lambda n, i: LBFGS(searches=2, steps=2)(n, i["images"], i["targets"]),
    "square": lambda n, i: Square(eps=0.05, queries=3)(n, i["images"], i["targets"]),
    "autoattack": lambda n, i: AutoAttack(**SMALL, queries=3)(n, i["images"], i["targets"]),
    "eot": lambda n, i: EOT(PGD(**SMALL), "jpeg", draws=2)(n, i["images"], i["targets"]),
    "destruction_rate": lambda n, i: destruction_rate(
        n, i["images"], 1 - i["images"], i["targets"], "jpeg", targets=i["targets"]
    ),
    "is_adversarial": lambda n, i: is_adversarial(n, i["images"], i["targets"]),
    "robustness_curve": lambda n, i: [
        point.robust for point in robustness_curve(PGD(**SMALL), n, i["images"], i["targets"], [0.02, 0.1])
    ],
    "check_health": lambda n, i: check_health(n, i["images"], i["targets"], queries=3).losses,
}
every = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(
            a.nan_to_num(-1) if a.is_floating_point() else a, b.nan_to_num(-1) if b.is_floating_point() else b
        )
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@every
def test_within_inference_mode_with_tensors_made_there(function):
    expected = function(build(), inputs())
    network = build()
    with torch.inference_mode():
        found = function(network, inputs())
    assert same(found, expected)


@every
def test_with_tensors_and_a_network_made_in_inference_mode(function):
    expected = function(build(), inputs())
    with torch.inference_mode():
        network, given = build(), inputs()
    before = {name: (id(p), p.requires_grad) for name, p in network.named_parameters()}
    assert same(function(network, given), expected)
    assert {name: (id(p), p.requires_grad) for name, p in network.named_parameters()} == before
    with torch.inference_mode():
        assert same(function(network, given), expected)


class Output(NamedTuple):
    aux: Tensor
    logits: Tensor


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor | None = None


class ModelOutput(OrderedDict):
    """Keys as attributes, as Hugging Face's."""

    def __getattr__(self, name):
        return self[name]


class Wrapped(nn.Sequential):
    """The layers keep their names; what is returned is `wrap` of the logits."""

    wrap = None

    def forward(self, images):
        return type(self).wrap(super().forward(images))


FORMS = {
    "dict": lambda logits: {"aux": logits * 2, "logits": logits},
    "namedtuple": lambda logits: Output(logits * 2, logits),
    "dataclass": lambda logits: Answer(logits),
    "model_output": lambda logits: ModelOutput(logits=logits, hidden_states=(logits,)),
}


def returning(wrap) -> nn.Module:
    kind = type("Returning", (Wrapped,), {"wrap": staticmethod(wrap)})
    return kind(*build()).eval()


@every
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_logits_are_read_from_what_the_network_returns(form, function):
    assert same(function(returning(form), inputs()), function(build(), inputs()))


@pytest.mark.parametrize(
    ("form", "came"),
    [
        (lambda logits: (logits, logits), "tuple of 2"),
        (lambda logits: {"scores": logits}, "dict of scores"),
        (lambda logits: [logits], "list of 1"),
        (lambda logits: None, "NoneType"),
        (lambda logits: Answer(None), "Answer"),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["input_gradient", "grad_cam", "cam", "occlusion", "deletion", "objective_values", "pgd", "square"],
)
def test_other_outputs_are_refused_in_one_line(name, form, came):
    network = returning(form)
    with pytest.raises(ValueError, match=rf"^network: returns {came}, expected logits \[N, K\]") as refused:
        FUNCTIONS[name](network, inputs())
    assert "\n" not in str(refused.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.slow
@every
@pytest.mark.parametrize("in_place", [False, True], ids=["wrapper", "in_place"])
def test_a_network_that_has_been_compiled_and_called(function, in_place):
    expected = function(build(), inputs())
    compiled = network = build()
    if in_place:
        network.compile(backend="eager")
    else:
        compiled = torch.compile(network, backend="eager")
    compiled(inputs()["images"])
    assert same(function(compiled, inputs()), expected)


@pytest.mark.slow
def test_a_layer_that_has_been_compiled_and_called():
    network = build()
    expected = cam.grad_cam(network, inputs()["images"], 1, LAST)
    network[3].compile(backend="eager")
    network(inputs()["images"])
    assert torch.equal(cam.grad_cam(network, inputs()["images"], 1, LAST), expected)


def test_normalisations_that_are_called_by_keyword_hide_no_layer():
    class Block(EncoderBlock):
        def forward(self, input):
            x = self.ln_1(input=input)
            x = input + self.self_attention(x, x, x, need_weights=False)[0]
            return x + self.mlp(self.ln_2(input=x))

    network, images = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).eval(), torch.rand(1, 3, 16, 16)
    expected = evidence.last_spatial_layer(network, images)
    for block in network.encoder.layers:
        block.__class__ = Block
    assert evidence.last_spatial_layer(network, images) == expected
