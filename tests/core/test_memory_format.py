"""Networks that take their images' channels innermost in memory get them so, and others as they are."""

import copy

import pytest
import torch
from torch import nn

from vitrine.analyses.examples import top_examples
from vitrine.analyses.features import logit, visualize
from vitrine.core.memory_format import arrange_images, channels_last


class Flattening(nn.Module):
    """Flattens maps by `view`, which wants channels outermost, or by `reshape`, which does not."""

    def __init__(self, by_view):
        super().__init__()
        torch.manual_seed(0)
        self.by_view, self.convolution, self.head = by_view, nn.Conv2d(3, 4, 3, stride=2), nn.Linear(196, 5)

    def forward(self, x):
        self.seen = x
        x = self.convolution(x).relu()
        return self.head(x.view(len(x), -1) if self.by_view else x.reshape(len(x), -1))


def is_innermost(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


@pytest.fixture
def images():
    return torch.rand(3, 3, 15, 15, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("by_view", [False, True])
def test_a_network_gets_its_images_in_the_order_that_it_takes(by_view, images):
    network = Flattening(by_view).eval().requires_grad_(False)
    plain = copy.deepcopy(network)
    before = torch.random.get_rng_state()
    arrange_images(network, images)
    torch.testing.assert_close(network(images), plain(images))
    assert is_innermost(network.seen) == is_innermost(network.convolution.weight) == (not by_view)
    assert is_innermost(channels_last(plain, images)) == (not by_view)
    assert torch.equal(torch.random.get_rng_state(), before) and not network.training


@pytest.mark.parametrize("by_view", [False, True])
def test_classes_are_visualized_and_examples_found(by_view, images):
    network = Flattening(by_view).eval()
    picture = visualize(network, [logit(1)], size=15, steps=2, seed=0)
    assert picture.shape == (1, 3, 15, 15)
    found = top_examples(network, [(images, torch.zeros(3, dtype=torch.int64))], ["convolution"], k=3)
    expected = network.convolution(images).flatten(2).max(2)
    values, order = expected.values.T.sort(1, descending=True)
    torch.testing.assert_close(found["convolution"].values, values)
    assert torch.equal(found["convolution"].indices, order)


def test_a_network_that_views_images_as_maps_gets_them_as_they_are(images):
    class ByMap(nn.Module):
        def forward(self, x):
            return x.view(len(x) * 3, -1).mean(1).view(len(x), 3)

    network = ByMap()
    arrange_images(network, images[:1])
    as_views = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(network(as_views), images.mean((2, 3)))


def test_what_a_network_writes_into_its_images_stays_its_own(images):
    class Writing(Flattening):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    before = images.clone()
    channels_last(Writing(False), images)
    assert torch.equal(images, before)


def test_kernels_that_are_computed_at_each_pass_are_left(images):
    network = Flattening(False).eval()
    nn.utils.parametrizations.weight_norm(network.convolution)
    plain = copy.deepcopy(network)
    arrange_images(network, images)
    torch.testing.assert_close(network(images), plain(images))
