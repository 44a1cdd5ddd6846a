from torch import nn

from vitrine.attacks.health import check_health


class Masked(nn.Module):
    """Rounds its input to steps of a fifth: no gradient, and no less fooled without."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        rounded = (x * 5).round() / 5
        return self.network(rounded.detach() + 0 * x)


def test_a_linear_network_is_healthy(linear, images, own_labels):
    network, pictures = linear(classes=3), images(30, 1, 3, 4).double()
    labels = own_labels(network, pictures)
    found = check_health(network, pictures, labels, eps=0.03, queries=50)
    assert found.healthy, found.warnings
    assert found.clean == 1 and found.unbounded == 0 and found.zero_gradients == 0
    assert len(found.losses) == 50 and found.losses[-1] > found.losses[0]
    assert found.pgd50 <= found.pgd10 <= found.clean and found.pgd50 <= found.square


def test_masked_gradients_are_seen(linear, images, own_labels):
    network, pictures = Masked(linear(classes=3)), images(30, 1, 3, 4).double()
    labels = own_labels(network, pictures)
    found = check_health(network, pictures, labels, eps=0.15, queries=100)
    assert not found.healthy
    assert found.zero_gradients == 1 and found.unbounded > 0 and found.only_square > 0
    text = " ".join(found.warnings)
    assert "gradients are zero" in text and "Square" in text and "any image is allowed" in text


def test_l2_too(linear, images, own_labels):
    network, pictures = linear(classes=3), images(10, 1, 3, 4).double()
    found = check_health(network, pictures, own_labels(network, pictures), norm="l2", eps=0.1, queries=20)
    assert found.unbounded == 0
