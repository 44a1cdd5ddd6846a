"""How long a step of the ascent is, and in what precision the network computes."""

import pytest
import torch
from torch import nn

from vitrine.analyses.ascent_defaults import ascent_settings
from vitrine.analyses.objectives import channel
from vitrine.analyses.parameterization import imagenet_colours
from vitrine.analyses.visualization import objective_values, step_length, visualize

ASKED = [channel("3", unit) for unit in range(4)]
NOTHING = {"lr": None, "parameterization": None, "colour_shift": None}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3), nn.Softplus(), nn.Flatten()
    ).eval()


def test_fewer_steps_are_longer_ones_and_reach_as_far():
    assert [round(steps * step_length(steps), 9) for steps in (16, 32, 100, 128)] == [6.4] * 4
    assert step_length(512) == step_length(129) == 0.05
    assert step_length(0) == step_length(2) == 0.4  # no longer than this


def test_from_128_steps_on_they_are_the_usual_ones(network):
    """A picture of 128 steps is that of Adam with torch's own defaults, at the usual length."""
    how = {"size": 16, "seed": 0, "parameterization": "pixels", "transforms": None}
    (picture,) = visualize(network, ASKED[:1], steps=128, **how)
    pixels = torch.logit(visualize(network, ASKED[:1], steps=0, **how))[0].flatten(1)
    pixels = torch.linalg.solve(imagenet_colours(), pixels).requires_grad_()
    usual = torch.optim.Adam([pixels], lr=0.05, maximize=True)
    for _ in range(128):
        shown = torch.sigmoid(imagenet_colours() @ pixels).view(1, 3, 16, 16)
        (pixels.grad,) = torch.autograd.grad(network[:4](shown)[0, 0].mean(), pixels)
        usual.step()
    assert (torch.sigmoid(imagenet_colours() @ pixels).view(3, 16, 16) - picture).abs().max() < 0.02


def test_networks_with_attention_take_twice_as_many_steps_of_the_usual_kind():
    usual = {"lr": 0.1, "betas": (0.9, 0.999), "parameterization": "smooth", "colour_shift": 0.5}
    assert ascent_settings(NOTHING, 32, True) == (64, usual)
    assert ascent_settings(NOTHING | {"lr": 0.3}, 32, True) == (64, usual | {"lr": 0.3})
    assert ascent_settings(NOTHING, 32, False)[0] == 32


def test_half_the_steps_excite_more_than_twice_as_many_of_a_quarter_of_the_length(network):
    short, long = (
        objective_values(network, ASKED, visualize(network, ASKED, size=16, seed=0, **how))
        for how in ({"steps": 32}, {"steps": 64, "lr": 0.05})
    )
    assert (short > long).all()


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
def test_the_network_computes_in_the_precision_asked_for(network, precision):
    kinds = []
    handle = network[2].register_forward_hook(lambda module, images, maps: kinds.append(maps.dtype))
    how = {"size": 16, "steps": 16, "seed": 0}
    pictures = visualize(network, ASKED, **how, precision=precision)
    handle.remove()
    is_half = precision == "bfloat16"
    # what is asked is checked beforehand, in full precision
    assert kinds[-16:] == [torch.bfloat16 if is_half else torch.float32] * 16
    assert pictures.dtype == torch.float32
    full = visualize(network, ASKED, **how)
    assert torch.equal(full, pictures) != is_half
    reached, wanted = (objective_values(network, ASKED, shown) for shown in (pictures, full))
    assert torch.allclose(reached, wanted, rtol=0.05)


def test_an_unknown_precision_is_answered_with_the_known_ones(network):
    with pytest.raises(ValueError, match="unknown precision 'float16': did you mean"):
        visualize(network, ASKED, size=16, steps=1, seed=0, precision="float16")
