import pytest
import torch
from torch import nn

from vitrine.analyses.pointing import (
    best_iou,
    deletion,
    energy_inside,
    gaussian_blur,
    insertion,
    pointing_game,
)

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.rand(6, 7, 9, generator=GENERATOR).mul(8).floor()  # with ties
MAPS[0] = 0
MASKS = torch.rand(6, 7, 9, generator=GENERATOR) < 0.3


def test_a_map_scores_where_its_maximum_is_in_the_mask_and_a_flat_zero_misses():
    maps, masks = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.bool)
    maps[0, 2, 3] = maps[1, 2, 3] = 5.0
    masks[0, 2, 3] = masks[1, 0, 0] = masks[2, 0, 0] = True
    assert pointing_game(maps, masks).tolist() == [1.0, 0.0, 0.0]


def test_the_energy_inside_is_a_share_of_the_sum():
    expected = [0.0, *((m * k).sum() / m.sum() for m, k in zip(MAPS[1:], MASKS[1:]))]
    torch.testing.assert_close(energy_inside(MAPS, MASKS), torch.tensor(expected))
    assert (energy_inside(torch.ones_like(MAPS), MASKS) - MASKS.float().mean((1, 2))).abs().max() < 1e-6


def test_every_threshold_tried_by_hand_gives_no_better_iou():
    expected = []
    for values, mask in zip(MAPS, MASKS):
        ious = [((values >= t) & mask).sum() / ((values >= t) | mask).sum() for t in values.unique().tolist()]
        expected.append(max(ious))
    torch.testing.assert_close(best_iou(MAPS, MASKS), torch.stack(expected))


class ShareOfWhite(nn.Module):
    """Class 1's probability is the share of white pixels: what the curves are is then plain."""

    def forward(self, x):
        share = x.mean((1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([torch.zeros_like(share), share.logit()], 1)


def test_deletion_of_a_white_image_falls_linearly_and_the_order_of_pixels_is_the_maps():
    images, targets = torch.ones(2, 3, 8, 8), torch.tensor([1, 1])
    maps = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0))
    area, curve = deletion(ShareOfWhite(), images, targets, maps, steps=8, baseline=0.0)
    torch.testing.assert_close(curve[0], torch.linspace(1, 0, 9), atol=1e-5, rtol=0)
    torch.testing.assert_close(area, torch.full((2,), 0.5), atol=1e-5, rtol=0)

    images = (torch.arange(64) < 16).float().view(1, 1, 8, 8)  # a quarter is white
    right, wrong = images[:, 0], 1 - images[:, 0]
    of = ShareOfWhite(), images, targets[:1]
    _, curve = deletion(*of, right, steps=4, baseline=0.0)
    torch.testing.assert_close(curve[0], torch.tensor([0.25, 0, 0, 0, 0]), atol=1e-5, rtol=0)
    _, curve = deletion(*of, wrong, steps=4, baseline=0.0)
    torch.testing.assert_close(curve[0], torch.tensor([0.25, 0.25, 0.25, 0.25, 0]), atol=1e-5, rtol=0)
    assert insertion(*of, right, steps=8)[0] > insertion(*of, wrong, steps=8)[0]


def rise_causal_metric(network, image, target, saliency, mode, step, substrate):
    """The paper's program, image by image and step by step, as its authors describe it."""
    pixels = saliency.numel()
    start, finish = (image.clone(), substrate) if mode == "del" else (substrate.clone(), image)
    order = torch.flip(saliency.flatten().argsort(), [0])
    scores = []
    for i in range((pixels + step - 1) // step + 1):
        scores.append(network(start[None]).softmax(1)[0, target].item())
        part = order[step * i : step * (i + 1)]
        start.flatten(1)[:, part] = finish.flatten(1)[:, part]
    scores = torch.tensor(scores)
    return (scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


@pytest.mark.parametrize("mode", ["del", "ins"])
def test_the_areas_are_those_of_the_papers_loop(mode):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    images, targets, maps = torch.rand(3, 3, 8, 8), torch.tensor([4, 0, 2]), torch.rand(3, 8, 8)
    substrates = torch.full_like(images, 0.5) if mode == "del" else gaussian_blur(images)
    expected = [
        rise_causal_metric(network, *parts, mode, 4, substrate)
        for *parts, substrate in zip(images, targets, maps, substrates)
    ]
    for batch_size in (1, 10, 1000):
        area, _ = (deletion if mode == "del" else insertion)(
            network, images, targets, maps, steps=16, batch_size=batch_size
        )
        torch.testing.assert_close(area, torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_the_blur_keeps_constants_and_its_kernel_is_the_papers_gaussian():
    torch.testing.assert_close(gaussian_blur(torch.full((1, 2, 9, 9), 0.3)), torch.full((1, 2, 9, 9), 0.3))
    point = torch.zeros(1, 1, 25, 25)
    point[0, 0, 12, 12] = 1
    kernel = torch.exp(-(torch.arange(-5, 6.0)[:, None] ** 2 + torch.arange(-5, 6.0) ** 2) / 50)
    torch.testing.assert_close(gaussian_blur(point)[0, 0, 7:18, 7:18], kernel / kernel.sum())


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"maps: are \[1, 4, 4\], expected \[1, 8, 8\]"):
        deletion(ShareOfWhite(), torch.ones(1, 3, 8, 8), torch.tensor([1]), torch.ones(1, 4, 4))
