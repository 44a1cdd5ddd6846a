import pytest
import torch

from vitrine.modules import load_network


@pytest.fixture
def batch():
    """Images [6, 3, 8, 8] and labels of four classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.arange(6) % 4


@pytest.fixture
def network():
    """A small network with batch norm, in train mode, its running statistics not those of any batch."""
    torch.manual_seed(0)
    network = load_network("convnet", classes=4, widths=[4, 8]).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(8, 3, 8, 8))
    return network
