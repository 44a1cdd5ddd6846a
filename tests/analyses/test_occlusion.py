import pytest
import torch
from captum.attr import Occlusion
from torch import nn

from vitrine.analyses.saliency import occlusion

IMAGES = torch.rand(2, 3, 10, 13, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 3])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 11, 5)).eval()


def test_a_brute_force_agrees_borders_included():
    net, patch, stride = network(), 4, 3
    expected = torch.zeros(2, 10, 13)
    with torch.no_grad():
        for n in range(2):
            whole = net(IMAGES)[n, TARGETS[n]]
            falls = {}
            for top in [0, 3, 6]:
                for left in [0, 3, 6, 9]:
                    image = IMAGES[n : n + 1].clone()
                    image[..., top : top + patch, left : left + patch] = 0.2
                    falls[top, left] = whole - net(image)[0, TARGETS[n]]
            for row in range(10):
                for column in range(13):
                    here = [
                        f for (t, s), f in falls.items() if t <= row < t + patch and s <= column < s + patch
                    ]
                    expected[n, row, column] = sum(here) / len(here)
    for batch_size in (1, 5, 64):
        found = occlusion(
            net, IMAGES, TARGETS, patch=patch, stride=stride, baseline=0.2, batch_size=batch_size
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_captum_agrees_where_the_squares_fit():
    images = IMAGES[..., :12]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 10, 5)).eval()
    expected = Occlusion(net).attribute(images, (3, 4, 4), strides=(3, 2, 2), baselines=0.5, target=TARGETS)
    found = occlusion(net, images, TARGETS, patch=4, stride=2)
    torch.testing.assert_close(found, expected[:, 0], rtol=1e-4, atol=1e-5)


def test_a_square_off_the_image_and_gaps_between_squares_are_refused():
    with pytest.raises(ValueError, match="patch: is 11, expected 1 to 10"):
        occlusion(network(), IMAGES, TARGETS, patch=11, stride=1)
    with pytest.raises(ValueError, match="stride: is 5, expected 1 to 4"):
        occlusion(network(), IMAGES, TARGETS, patch=4, stride=5)


def test_several_classes_of_an_image_are_as_one_by_one():
    targets = torch.tensor([[1, 3], [0, 0], [4, 1]])
    together = occlusion(network(), IMAGES, targets, patch=4, stride=3)
    alone = [occlusion(network(), IMAGES, own, patch=4, stride=3) for own in targets]
    assert torch.equal(together, torch.stack(alone))
