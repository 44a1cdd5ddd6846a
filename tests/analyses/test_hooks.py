import pytest
import torch
from torch import nn

from vitrine.analyses.hooks import input_channels, output_hooks


def test_hooks_leave_whatever_happens_and_a_replacement_takes_the_output_s_place():
    network, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(1, 3, 9, 9)
    expected = (-network[0](x)).relu()
    with output_hooks(network, ["0"], lambda layer, output: -output):
        assert torch.equal(network(x), expected)
    with pytest.raises(ZeroDivisionError), output_hooks(network, ["0"], lambda layer, output: 1 / 0):
        network(x)
    assert not any(module._forward_hooks for module in network.modules())


def test_of_several_calls_the_first_is_seen_and_a_layer_without_any_is_named():
    relu, x, seen = nn.ReLU(), torch.tensor([-1.0]), []
    network = nn.Sequential(relu, nn.Linear(1, 1), relu)
    with output_hooks(network, ["0"], lambda layer, output: seen.append(output)):
        network(x)
    assert torch.equal(torch.stack(seen), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="'1' takes no part"), output_hooks(network, ["0", "1"], print):
        network[0](x)


def test_the_first_layer_tells_the_images_channels():
    assert input_channels(nn.Sequential(nn.Conv2d(4, 2, 3)), (8, 8)) == 4
    assert input_channels(nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2)), (28, 28)) == 1
    with pytest.raises(ValueError, match="9 x 9"):
        input_channels(nn.Linear(100, 2), (9, 9))


def test_of_layers_in_any_order_the_one_that_takes_images_tells_their_channels():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.stem = nn.Conv2d(6, 2, 1), nn.Conv2d(3, 6, 3)

        def forward(self, x):
            return self.head(self.stem(x)).mean((2, 3))

    assert input_channels(HeadFirst(), (8, 8)) == 3
