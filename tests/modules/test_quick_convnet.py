"""What makes the quick network quick: it whitens, begins as the identity, and its shifts learn fast."""

import pytest
import torch

from vitrine.modules import load_network
from vitrine.modules.quick_convnet import ShiftedNorm, whitening_filters


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_whitening_filters_are_an_orthonormal_basis_of_patches_and_its_negative(channels):
    filters = whitening_filters(channels).flatten(1)
    count = 4 * channels
    torch.testing.assert_close(filters[:count] @ filters[:count].T, torch.eye(count))
    assert torch.equal(filters[count:], -filters[:count])


def test_the_first_layer_gives_channels_of_variance_one_of_images_of_any_contrast():
    network = load_network("quick_convnet", classes=10)
    images = torch.rand(64, 3, 16, 16) * torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1)
    whitened = network.whiten[1](network.whiten[0](images))
    torch.testing.assert_close(whitened.var((0, 2, 3)), torch.ones(24), atol=0.06, rtol=0)


def test_convolutions_begin_as_the_identity_of_the_channels_that_there_are():
    with torch.no_grad():
        group = load_network("quick_convnet", classes=10, widths=[32]).groups[0]
        x = torch.rand(2, 24, 8, 8)
        torch.testing.assert_close(group[0](x)[:, :24], x)


def test_a_shift_learns_at_the_square_of_its_scale():
    x, weights = torch.rand(4, 3, 5, 5), torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1)
    moved = []
    for norm in (ShiftedNorm(3, scale=1.0), ShiftedNorm(3, scale=8.0)):
        before = norm(x)
        (before * weights).sum().backward()
        with torch.no_grad():
            norm.shift -= 0.001 * norm.shift.grad
            moved.append(norm(x) - before)
    assert moved[0].abs().min() > 0.09
    torch.testing.assert_close(moved[1], 64 * moved[0])


def test_it_has_the_weights_of_airbench94_and_trains_all_but_the_first_filters():
    network = load_network("quick_convnet", classes=10)
    fixed = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert fixed == ["whiten.0.weight"]
    convolutions = sum(p.numel() for p in network.parameters() if p.ndim > 1 and p.requires_grad)
    assert convolutions == 1_970_176  # 1.97 M in Jordan 2024
