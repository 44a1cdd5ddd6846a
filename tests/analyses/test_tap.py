import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vitrine.analyses.tap import as_maps, forward_to, input_channels, tapped, turns_maps
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
    found = forward_to(network, x, ["second", "first", "relu"])  # and the head, of a wrong shape, never runs
    torch.testing.assert_close(found["first"], network.first(x))
    torch.testing.assert_close(found["relu"], network.first(x).relu())  # of several uses the first
    torch.testing.assert_close(found["second"], network.second(F.relu(network.first(x))))
    assert found["first"].min() < 0


def test_gradients_flow_to_the_images_as_grad_mode_asks():
    network, x = Reused().requires_grad_(False), torch.rand(1, 3, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(forward_to(network, x, ["second"])["second"].sum(), x)
    assert gradient.any()
    with torch.no_grad():
        assert not forward_to(network, x, ["second"])["second"].requires_grad


def test_hooks_leave_whatever_happens_and_a_replacement_takes_the_output_s_place():
    network, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(1, 3, 9, 9)
    expected = (-network[0](x)).relu()
    with tapped(network, ["0"], lambda layer, output: -output):
        assert torch.equal(network(x), expected)
    with pytest.raises(ZeroDivisionError), tapped(network, ["0"], lambda layer, output: 1 / 0):
        network(x)
    assert not any(module._forward_hooks for module in network.modules())


def test_wrong_names_idle_layers_and_tuples_are_named():
    network = Reused()
    with pytest.raises(UnknownName, match="did you mean second"):
        forward_to(network, torch.rand(1, 3, 9, 9), ["secnd"])
    network.idle = nn.ReLU()
    network.head = nn.Identity()
    with pytest.raises(ValueError, match="'idle' takes no part"):
        forward_to(network, torch.rand(1, 3, 9, 9), ["first", "idle"])
    attention = nn.Sequential(nn.MultiheadAttention(4, 1))
    attention.forward = lambda x: attention[0](x, x, x)[0]
    with pytest.raises(ValueError, match="'0' gives a tuple"):
        forward_to(attention, torch.rand(2, 3, 4), ["0"])


def test_token_grids_channels_last_maps_and_vectors_are_maps():
    grid = torch.rand(2, 5, 3, 3)
    tokens = grid.flatten(2).transpose(1, 2)
    assert torch.equal(as_maps(tokens), grid)
    assert torch.equal(as_maps(torch.cat([torch.rand(2, 1, 5), tokens], 1)), grid)  # a class token
    assert torch.equal(as_maps(grid.permute(0, 2, 3, 1)), grid)
    assert as_maps(torch.rand(2, 5)).shape == (2, 5, 1, 1)
    with pytest.raises(ValueError, match=r"\(2, 7, 5\)"):
        as_maps(torch.rand(2, 7, 5))


def test_maps_with_as_many_channels_as_rows_are_not_turned_in_a_network_that_never_turns_them():
    network = nn.Sequential(nn.Conv2d(3, 6, 1))
    assert forward_to(network, torch.rand(1, 3, 6, 8), ["0"])["0"].shape == (1, 6, 6, 8)
    assert not turns_maps(torchvision.models.resnet18())
    assert turns_maps(torchvision.models.SwinTransformer([4, 4], 8, [2], [1], [7, 7], num_classes=2))


def test_the_first_layer_tells_the_images_channels():
    assert input_channels(nn.Sequential(nn.Conv2d(4, 2, 3)), (8, 8)) == 4
    assert input_channels(nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2)), (28, 28)) == 1
    with pytest.raises(ValueError, match="9 x 9"):
        input_channels(nn.Linear(100, 2), (9, 9))
