import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.analyses.activations import LOGITS, activations
from vitrine.analyses.hooks import output_hooks
from vitrine.core.registry import UnknownName


class Reused(nn.Module):
    """One ReLU, in place, used twice; a head that must not run."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(1, 1)

    def forward(self, x):
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


def test_what_a_layer_gives_is_kept_before_an_in_place_relu_writes_into_it():
    network, x = Reused(), torch.rand(2, 3, 9, 9)
    found = activations(network, x, ["second", "first", "relu"])  # and the head, of a wrong shape, never runs
    torch.testing.assert_close(found["first"], network.first(x))
    torch.testing.assert_close(found["relu"], network.first(x).relu())  # of several uses the first
    torch.testing.assert_close(found["second"], network.second(F.relu(network.first(x))))
    assert found["first"].min() < 0


def test_gradients_flow_to_the_images_as_grad_mode_asks():
    network, x = Reused().requires_grad_(False), torch.rand(1, 3, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(activations(network, x, ["second"])["second"].sum(), x)
    assert gradient.any()
    with torch.no_grad():
        assert not activations(network, x, ["second"])["second"].requires_grad


def test_logits_are_maps_of_one_position():
    network, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 49, 2)), torch.rand(2, 3, 9, 9)
    found = activations(network, x, [LOGITS, "0"])
    assert list(found) == [LOGITS, "0"]
    assert torch.equal(found[LOGITS], network(x)[:, :, None, None])
    assert torch.equal(found["0"], network[0](x))


class Several(nn.Module):
    """Gives its maps among other things."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 5, 1), kind

    def forward(self, x):
        return self.kind([self.conv(x), x])


class Chosen(nn.Module):
    """Its layer gives several tensors, of which it uses the first."""

    def __init__(self, kind, key=0):
        super().__init__()
        self.layer, self.key = Several(kind), key

    def forward(self, x):
        return self.layer(x)[self.key].mean((2, 3))


@pytest.mark.parametrize("kind", [tuple, list])
def test_of_a_layer_that_gives_several_tensors_the_first_is_read_and_replaced(kind):
    network, x = Chosen(kind).eval(), torch.rand(2, 3, 6, 6)
    assert torch.equal(activations(network, x, ["layer"])["layer"], network.layer.conv(x))
    with output_hooks(network, ["layer"], lambda _layer, output: output * 0 + 1):
        assert torch.equal(network(x), torch.ones(2, 5))


def test_wrong_names_idle_layers_and_those_that_give_no_tensor_are_named():
    network = Reused()
    with pytest.raises(UnknownName, match="did you mean second"):
        activations(network, torch.rand(1, 3, 9, 9), ["secnd"])
    network.idle = nn.ReLU()
    network.head = nn.Identity()
    with pytest.raises(ValueError, match="'idle' takes no part"):
        activations(network, torch.rand(1, 3, 9, 9), ["first", "idle"])
    as_dict = Chosen(lambda tensors: {"maps": tensors[0]}, key="maps")
    with pytest.raises(ValueError, match="'layer' gives a dict"):
        activations(as_dict, torch.rand(2, 3, 2, 2), ["layer"])
