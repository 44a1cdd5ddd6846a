import torch

from vitrine.analyses.picture_table import GAP, LINE, picture_table, truncate

RED = torch.tensor([178, 24, 43])


def test_pictures_are_in_rows_and_columns_unchanged():
    pictures = [[torch.full((40, 60, 3), 10 * r + c, dtype=torch.uint8) for c in range(3)] for r in range(2)]
    image = picture_table(pictures, ["a", "b", "c\nd"], ["top", "bottom"])
    assert image.shape == (2 * LINE + 2 * (40 + GAP) - GAP, LINE + 3 * (60 + GAP) - GAP, 3)
    for r in range(2):
        for c in range(3):
            top, left = 2 * LINE + r * (40 + GAP), LINE + c * (60 + GAP)
            assert torch.equal(image[top : top + 40, left : left + 60], pictures[r][c])


def test_highlighted_captions_are_red_and_below_their_picture():
    pictures = [[torch.zeros(40, 60, 3, dtype=torch.uint8)] * 2]
    image = picture_table(pictures, ["a", "b"], ["row"], [["right", "wrong"]], [[False, True]])
    red = (image.int() - RED).abs().sum(2) < 60
    where = red.nonzero()
    assert len(where) and where[:, 0].min() >= LINE + 40 and where[:, 1].min() >= LINE + 60 + GAP


def test_text_that_does_not_fit_is_truncated():
    assert truncate("stop", 200) == "stop"
    cut = truncate("a very long class name indeed", 60)
    assert cut.endswith("…") and cut.startswith("a ver") and len(cut) < 12
