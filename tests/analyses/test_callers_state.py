import pytest
import torch
from torch import nn

from vitrine.analyses.attention_maps import attention_gradients, attention_maps
from vitrine.analyses.cam import cam, grad_cam
from vitrine.analyses.saliency import guided_backprop, input_gradient, integrated_gradients


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("technique", [input_gradient, guided_backprop, integrated_gradients])
def test_a_network_in_training_mode_is_evaluated_and_left_as_it_was(technique):
    network = small_network()
    expected = technique(network.eval(), IMAGES, TARGETS)
    network.train()
    network[1].eval()  # a mixture, as in fine-tuning with frozen statistics
    state = {k: v.clone() for k, v in network.state_dict().items()}
    rng = torch.get_rng_state()
    torch.testing.assert_close(technique(network, IMAGES, TARGETS), expected, rtol=0, atol=0)
    assert [m.training for m in network] == [True, False, True, True, True, True]
    assert all(torch.equal(state[k], v) for k, v in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch.equal(rng, torch.get_rng_state())


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_callers_mode_changes_nothing(mode):
    network = small_network().eval()
    expected = guided_backprop(network, IMAGES, TARGETS)
    grad = torch.is_grad_enabled()
    with mode():
        inside = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        images = IMAGES + 0  # an inference tensor, where that is the mode
        found = guided_backprop(network, images, TARGETS)
        after = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        assert inside == after
    assert torch.is_grad_enabled() == grad
    assert torch.equal(found, expected)


def test_the_mode_is_put_back_when_the_network_fails():
    network = small_network().train()
    with pytest.raises(RuntimeError):
        input_gradient(network, torch.rand(1, 5, 8, 8), torch.tensor([0]))
    assert all(m.training for m in network.modules())


def test_a_frozen_network_and_a_network_that_writes_into_its_input_are_no_trouble():
    class Shifts(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x.sub_(0.5))

    network = small_network().eval().requires_grad_(False)
    before = IMAGES.clone()
    expected = input_gradient(network, IMAGES - 0.5, TARGETS)
    assert torch.equal(input_gradient(Shifts(network), IMAGES, TARGETS), expected)
    assert torch.equal(IMAGES, before)


@pytest.mark.parametrize(
    "look",
    [
        lambda network, images: cam(network, images),
        lambda network, images: grad_cam(network, images, TARGETS, "layers.0"),
        lambda network, images: attention_maps(network, images),
        lambda network, images: attention_gradients(network, images, TARGETS),
    ],
)
def test_maps_of_a_network_that_writes_into_its_input_leave_the_images(look):
    class Shifts(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), *pool)

        def forward(self, x):
            return self.layers(x.sub_(0.5))

    images = IMAGES.clone()
    look(Shifts(), images)
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_runs_eagerly_so_that_rules_and_layers_are_seen(in_place):
    network = small_network().eval()
    expected = guided_backprop(network, IMAGES, TARGETS)
    unit = guided_backprop(network, IMAGES, layer="1", unit=2)
    if in_place:
        network.compile(backend="eager")
        compiled = network
    else:
        compiled = torch.compile(network, backend="eager")
    compiled(IMAGES)  # it has been compiled by now
    assert torch.equal(guided_backprop(compiled, IMAGES, TARGETS), expected)
    assert torch.equal(guided_backprop(compiled, IMAGES, layer="1", unit=2), unit)
