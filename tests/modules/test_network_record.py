"""What is known of a network beside it: no attribute, module or key of the network's own is touched."""

import copy
import pickle

import pytest
import torch
from torch import nn

from vitrine.modules.network_record import attach_record, record_of


class Awkward(nn.Module):
    """Has every name of ours as its own."""

    def __init__(self):
        super().__init__()
        self.classes, self.spec = nn.Linear(8, 3), nn.Identity()
        self.normalize = nn.BatchNorm2d(2)

    def forward(self, images):
        return self.classes(self.spec(self.normalize(images)).flatten(1))


def test_a_network_keeps_its_own_attributes_and_state():
    network = Awkward().eval()
    before, images = network.state_dict().keys(), torch.rand(4, 2, 2, 2)
    expected = network((images - 0.25) / 0.5)
    attach_record(network, mean=[0.25, 0.25], std=[0.5, 0.5], spec={"name": "a"}, classes="abc")
    assert network.state_dict().keys() == before and isinstance(network.classes, nn.Linear)
    assert torch.equal(network(images), expected)
    record = record_of(network)
    assert (record.spec, record.classes, record.mean) == ({"name": "a"}, ["a", "b", "c"], [0.25, 0.25])


def test_a_sequential_network_is_normalised_at_its_input_alone():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    images = torch.rand(3, 1, 2, 2)
    expected = network((images - 0.5) / 0.25)
    assert torch.equal(attach_record(network, mean=[0.5], std=[0.25])(images), expected)
    assert len(network) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_has_a_record_of_its_own(copied):
    network = attach_record(nn.Flatten(), mean=[0.5], std=[0.25], classes="ab")
    network(torch.rand(1, 1, 2, 2))
    other = copied(network)
    attach_record(other, mean=[0.0], std=[1.0], classes="cd")
    images = torch.rand(1, 1, 2, 2)
    assert torch.equal(other(images), images.flatten(1)) and record_of(other).classes == ["c", "d"]
    assert torch.equal(network(images), ((images - 0.5) / 0.25).flatten(1))
    assert record_of(network).classes == ["a", "b"]


def test_the_statistics_follow_the_images_type_and_are_good_for_gradients_after_inference_mode():
    network = attach_record(nn.Flatten(), mean=[0.5], std=[0.3])
    with torch.inference_mode():
        assert network(torch.rand(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float64
    images = torch.rand(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    network(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 1 / 0.3))
    assert network(torch.rand(1, 1, 2, 2, device="meta")).is_meta
    with pytest.raises(ValueError, match="expected floating point"):
        network(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_a_second_record_adds_to_the_first():
    network = attach_record(nn.Flatten(), classes="ab")
    attach_record(network, mean=[0.5], std=[0.25])
    assert record_of(network).classes == ["a", "b"] and len(network._forward_pre_hooks) == 1
    with pytest.raises(ValueError, match="mean and std come together"):
        attach_record(network, mean=[0.5])
    assert record_of(nn.Flatten()) is None


@pytest.mark.slow
def test_a_compiled_network_normalises_the_same():
    network = attach_record(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), mean=[0.5], std=[0.25])
    images = torch.rand(3, 1, 2, 2)
    expected = network(images)
    torch.testing.assert_close(torch.compile(network, backend="eager")(images), expected)
    assert record_of(torch.compile(network)) is record_of(network)
    other = attach_record(copy.deepcopy(network), mean=[0.25], std=[0.5])
    expected = other(images)
    other.compile(backend="eager")
    torch.testing.assert_close(other(images), expected)
