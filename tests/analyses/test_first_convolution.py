"""The fast input gradient of a first convolution is autograd's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.analyses.first_convolution import FastFirstConvolution, convolution_input_gradient


@pytest.mark.parametrize("size", [(32, 32), (31, 37)])
@pytest.mark.parametrize("padding", [(0, 0), (3, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (4, 4), (3, 3), (5, 2), (2, 3), (11, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_gradient_is_autograds(channels, kernel, stride, padding, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, *size, generator=generator).requires_grad_()
    weight = torch.randn(5, channels, kernel, kernel, generator=generator)
    output = F.conv2d(images, weight, stride=stride, padding=padding)
    signal = torch.randn(output.shape, generator=generator)
    (expected,) = torch.autograd.grad(output, images, signal)
    assert torch.allclose(
        convolution_input_gradient(signal, weight, size, stride, padding), expected, atol=1e-4
    )


def test_within_its_scope_a_network_gives_the_same_values_and_gradients():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, padding=1, bias=False), nn.Conv2d(4, 4, 3)
    )
    images = torch.rand(2, 3, 32, 32).requires_grad_()
    plain = network(images)
    (expected,) = torch.autograd.grad(plain.square().sum(), images)
    with FastFirstConvolution():
        quick = network(images)
    assert torch.equal(quick, plain)
    assert quick.grad_fn is not None
    (gradient,) = torch.autograd.grad(quick.square().sum(), images)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_under_autocast_the_gradient_is_that_of_bfloat16():
    torch.manual_seed(0)
    network, images = nn.Conv2d(3, 8, 7, 2, 3), torch.rand(2, 3, 32, 32).requires_grad_()
    (expected,) = torch.autograd.grad(network(images).square().sum(), images)
    with torch.autocast("cpu", torch.bfloat16), FastFirstConvolution():
        maps = network(images)
    assert maps.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(maps.float().square().sum(), images)
    assert gradient.dtype == torch.float32
    assert (gradient - expected).norm() < 0.02 * expected.norm()
