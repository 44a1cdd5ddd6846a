import copy
import pickle
import subprocess
import sys

import pytest
import torch

from vitrine.modules import load_network


@pytest.fixture
def network():
    torch.manual_seed(0)
    return load_network("convnet", classes=4, widths=[4, 4], mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]).eval()


def unnormalised(network, images):
    network = copy.deepcopy(network)
    network.normalize.mean.zero_()
    network.normalize.std.fill_(1)
    return network(images)


def test_a_copy_normalises_by_its_own_statistics(network):
    images = torch.rand(2, 3, 16, 16)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    expected = unnormalised(network, (images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(copied(images), expected)
        copied.normalize.mean.add_(1)
    assert torch.equal(network(images), expected)


@pytest.mark.slow
def test_a_network_compiled_in_place_normalises(network):
    images = torch.rand(2, 3, 16, 16)
    expected = network(images)
    network.compile(backend="aot_eager")
    torch.testing.assert_close(network(images), expected)
    assert not any("_orig_mod" in key for key in network.state_dict())
    torch.testing.assert_close(copy.deepcopy(network)(images), expected)


def test_the_statistics_are_in_the_state_dict_and_no_layer_is_renamed(network):
    state = network.state_dict()
    assert state["normalize.mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert "features.0.0.weight" in state


def test_uint8_images_are_refused(network):
    with pytest.raises(ValueError, match=r"images are torch\.uint8, expected floating point"):
        network(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_importing_modules_is_cheap():
    code = "import sys, modules; list(modules.OBJECTIVES); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
