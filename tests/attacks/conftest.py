"""Tiny networks whose weak points are known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def linear() -> Callable[..., nn.Module]:
    """linear(classes, pixels) is a linear network on images [N, 1, 1, pixels], in float64."""

    def build(classes: int = 2, pixels: int = 12, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        layer = nn.Linear(pixels, classes).double()
        layer.weight.data = torch.randn(classes, pixels, generator=generator, dtype=torch.float64)
        layer.weight.data -= layer.weight.mean(1, keepdim=True)  # or the brightness would decide
        layer.bias.data.zero_()
        return nn.Sequential(nn.Flatten(), layer)

    return build


@pytest.fixture
def convnet() -> nn.Module:
    """Convolution, batch normalisation, dropout, 5 classes, images [N, 3, 8, 8]; in train mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(6 * 36, 5),
        )


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """images(n, ..., low=, high=) are random pixels, float32."""

    def draw(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 0) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture
def own_labels() -> Callable[[nn.Module, Tensor], Tensor]:
    """What the network itself says in eval mode, so that every image stands at first."""

    def labels(network: nn.Module, images: Tensor) -> Tensor:
        modes = [(module, module.training) for module in network.modules()]
        network.eval()
        with torch.no_grad():
            answer = network(images).argmax(1)
        for module, training in modes:
            module.training = training
        return answer

    return labels


@pytest.fixture
def boundary_distances() -> Callable[..., Tensor]:
    """How far each image is from the nearest decision boundary of a linear network, [N], in closed form."""

    def distances(network: nn.Module, images: Tensor, labels: Tensor, norm: str) -> Tensor:
        weight, logits = network[1].weight.detach(), network(images).detach()
        difference = weight[labels][:, None] - weight
        size = difference.abs().sum(2) if norm == "linf" else difference.norm(dim=2)
        gap = logits.gather(1, labels[:, None]) - logits
        return torch.where(size > 0, gap / size.clamp(min=1e-12), torch.inf).amin(1)

    return distances
