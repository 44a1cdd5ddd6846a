"""Rotated rectangles against shapely, by hand, and by finite differences."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vitrine.lidar.boxes import contains, corners, intersection, iou, pairwise_iou, suppress


def random_boxes(count: int, seed: int) -> torch.Tensor:
    numbers = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers * torch.tensor([5, 5, 5, 3, 7]) + torch.tensor([0, 0, 0.3, 0.3, 0])


def test_by_hand():
    box = torch.tensor([0.0, 0, 4, 2, 0], dtype=torch.float64)
    others = torch.tensor(
        [
            [0.0, 0, 4, 2, 0],  # the same
            [0, 0, 4, 2, math.pi],  # after half a turn
            [0, 0, 2, 4, math.pi / 2],  # after a quarter, with sides exchanged
            [2, 0, 4, 2, 0],  # half of it
            [4, 0, 4, 2, 0],  # side by side
            [9, 0, 4, 2, 0],  # apart
            [0, 0, 2, 1, 0.3],  # inside
            [0, 0, 2, 2, math.pi / 4],  # an octagon: a square less what sticks out above and below
        ],
        dtype=torch.float64,
    )
    tip = (2**0.5 - 1) ** 2
    expected = torch.tensor([8, 8, 8, 4, 0, 0, 2, 4 - 2 * tip], dtype=torch.float64)
    torch.testing.assert_close(intersection(box, others), expected)
    torch.testing.assert_close(iou(others, box)[3].item(), 4 / 12)


def test_it_is_what_shapely_says():
    geometry = pytest.importorskip("shapely.geometry", reason="the oracle: pip install shapely")
    first, second = random_boxes(300, 0), random_boxes(300, 1)
    second[:20] = first[:20] + 1e-9  # all but the same
    second[20:40, 4] = first[20:40, 4]  # parallel
    polygons = [[geometry.Polygon(c) for c in corners(b).tolist()] for b in (first, second)]
    common = torch.tensor([a.intersection(b).area for a, b in zip(*polygons)], dtype=torch.float64)
    union = torch.tensor([a.union(b).area for a, b in zip(*polygons)], dtype=torch.float64)
    assert (common == 0).any() and (common > 0).sum() > 100
    torch.testing.assert_close(intersection(first, second), common, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(iou(first, second), common / union, rtol=1e-6, atol=1e-6)


def test_pairs_far_apart_are_left_out_and_nothing_else():
    first, second = random_boxes(30, 2), random_boxes(20, 3)
    second[:, :2] *= 3
    expected = iou(first[:, None], second[None])
    torch.testing.assert_close(pairwise_iou(first, second), expected)


def test_iou_has_the_gradients_of_finite_differences():
    box, other = torch.tensor([[0.0, 0, 4, 2, 0.2], [0.5, 0.4, 3, 2, 0.9]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda b: iou(b, other), box.requires_grad_())


def test_a_rectangle_contains_its_corners_and_not_what_is_beyond():
    boxes = random_boxes(50, 4)
    points, middle = corners(boxes), boxes[:, None, :2]
    assert contains(boxes[:, None], middle + (points - middle) * 0.999).all()
    assert not contains(boxes[:, None], middle + (points - middle) * 1.001).any()
    assert contains(boxes[:, None], middle + (points - middle) * 1.001, 1.01).all()


def test_suppression_keeps_the_surest_of_those_that_overlap():
    boxes = torch.tensor([[0.0, 0, 4, 2, 0], [0.3, 0, 4, 2, 0], [10, 0, 4, 2, 0], [0.6, 0.1, 4, 2, 0.1]])
    assert suppress(boxes, torch.tensor([0.5, 0.9, 0.2, 0.7])).tolist() == [1, 2]
    assert suppress(boxes[:0], torch.zeros(0)).tolist() == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_computed_where_the_rectangles_are(device):
    with FakeTensorMode():  # devices are checked, numbers are not computed
        boxes = torch.rand(3, 5, device=device)
        assert iou(boxes, boxes.flip(0)).device == boxes.device
