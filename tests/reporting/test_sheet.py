import pytest
import torch

from vitrine.reporting.sheet import GAP, MOST_PIXELS, PAPER, sheet


def flat(value, height=10, width=10):
    return torch.full((height, width, 3), value, dtype=torch.uint8)


def test_pictures_keep_their_pixels_and_their_order():
    pictures = [flat(value) for value in (10, 20, 30, 40)]
    made = sheet(pictures)
    assert made.shape == (20 + GAP, 20 + GAP, 3)
    corners = [made[y, x, 0].item() for y in (0, 10 + GAP) for x in (0, 10 + GAP)]
    assert corners == [10, 20, 30, 40] and made[11, 11, 0] == PAPER


def test_pictures_of_several_sizes_share_a_sheet():
    made = sheet([flat(1, 30, 5), flat(2, 6, 40)])
    assert (made == 1).all(-1).sum() == 150 and (made == 2).all(-1).sum() == 240


def test_a_large_sheet_shrinks_and_keeps_its_proportions():
    made = sheet([flat(9, 400, 300)] * 20)
    assert made.shape[0] * made.shape[1] <= MOST_PIXELS
    inked = (made[:, :, 0] == 9).float()
    rows, columns = inked.mean(1).gt(0).sum(), inked.mean(0).gt(0).sum()
    assert abs((rows / columns) / (made.shape[0] / made.shape[1]) - 1) < 0.1


def test_no_pictures_make_no_sheet():
    with pytest.raises(ValueError, match="images is empty"):
        sheet([])
