"""Pictures move as they are told, each by its own numbers, in one resampling."""

import torch

from vitrine.analyses.transforms import Crops, Transforms, sample_maps, warp


def test_nothing_asked_is_nothing_moved():
    pictures = torch.rand(2, 3, 20, 20)
    still = Transforms(jitter=0, scales=[1.0], degrees=0, jitter_after=0)
    maps = sample_maps(still, [torch.Generator().manual_seed(i) for i in range(2)], 1, 20)[0]
    assert torch.allclose(warp(pictures, maps), pictures, atol=1e-5)


def test_jitter_shifts_by_whole_pixels_and_opens_grey():
    picture = torch.rand(1, 1, 128, 128)
    numbers = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.0, 0.5]])  # the first shift to its end: half of 16 pixels
    maps = Transforms(scales=[1.0]).affine_maps(numbers, 128)
    result = warp(picture, maps)
    assert torch.allclose(result[..., 8:], picture[..., :-8], atol=1e-5)
    assert torch.allclose(result[..., :8], torch.full((1, 1, 128, 8), 0.5))


def test_scale_and_turn_are_about_the_middle():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 65), torch.linspace(-1, 1, 65), indexing="ij")
    blob = torch.exp(-((x - 0.5) ** 2 + y**2) / 0.02)[None, None]
    larger = warp(
        blob, Transforms(scales=[1.2]).affine_maps(torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0, 0.5]]), 65)
    )
    assert divmod(larger.argmax().item(), 65) == (32, 32 + round(0.5 * 1.2 * 32))
    quarter = Transforms(scales=[1.0], degrees=90).affine_maps(
        torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0, 1.0]]), 65
    )
    row, column = divmod(warp(blob, quarter).argmax().item(), 65)
    assert column == 32 and abs(row - 32) == 16


def test_pictures_that_are_not_square_are_turned_as_they_are_and_shifted_by_whole_pixels():
    picture = torch.zeros(1, 1, 41, 81)
    picture[..., 20, 50] = 1  # ten pixels to the right of the middle
    numbers = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0, 1.0]])
    turned = warp(picture, Transforms(scales=[1.0], degrees=90).affine_maps(numbers, (41, 81)))
    row, column = divmod(turned.argmax().item(), 81)
    assert column == 40 and abs(row - 20) == 10
    numbers = torch.tensor([[1.0, 0.5, 0.5, 1.0, 0.0, 0.5]])  # at 64 pixels half as far
    maps = Transforms(jitter=16, jitter_after=8, scales=[1.0]).affine_maps(numbers, (64, 160))
    picture = torch.rand(1, 1, 64, 160)
    assert torch.allclose(warp(picture, maps)[..., 2:, 4:], picture[..., :-2, :-4], atol=1e-5)


def test_small_pictures_move_in_proportion():
    numbers = torch.rand(1000, 6, generator=torch.Generator().manual_seed(0))
    maps = Transforms(scales=[1.0], degrees=0).affine_maps
    shifts = {size: maps(numbers, size)[:, :, 2] * size / 2 for size in (32, 128, 512)}
    assert shifts[32].abs().max().round() == 3  # (16 + 8) / 2 pixels at 128, a quarter of that at 32
    assert shifts[128].abs().max().round() == 12
    assert shifts[512].abs().max().round() == 12
    whole = shifts[32]
    assert torch.allclose(whole, whole.round(), atol=1e-4)


def test_a_picture_moves_the_same_whoever_is_beside_it():
    def dice(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    for kind in (Transforms(), Crops()):
        together = sample_maps(kind, dice(1, 2, 3), 7, 64)
        assert torch.equal(together[:, 1:2], sample_maps(kind, dice(2), 7, 64))
        assert not torch.equal(together[:, 0], together[:, 1])


def test_crops_lie_inside_the_picture():
    maps = sample_maps(Crops(), [torch.Generator().manual_seed(0)], 500, 512)[:, 0]
    parts, centres = maps[:, 0, 0], maps[:, :, 2]
    assert parts.min() >= 0.05 and parts.max() <= 0.5 and parts.max() > 0.45
    assert (centres.abs().amax(1) + parts <= 1 + 1e-6).all()
    small = sample_maps(Crops(), [torch.Generator().manual_seed(0)], 500, 128)[:, 0]
    assert small[:, 0, 0].min() >= 0.2 and 0.9 < small[:, 0, 0].max() <= 1  # four times as large a part
