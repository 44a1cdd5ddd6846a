import torch

from vitrine.analyses import paint


def test_a_picture_is_uint8_in_height_width_and_colour():
    image = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(1, 2, 2)
    assert paint.picture(image)[..., 0].tolist() == [[0, 128], [255, 255]]
    assert paint.picture(image).shape == (2, 2, 3)
    assert paint.picture(torch.rand(3, 4, 5)).shape == (4, 5, 3)


def test_signed_values_leave_zero_mid_grey_and_use_one_scale():
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0]).reshape(1, 2, 2)
    assert paint.signed_picture(values)[..., 1].tolist() == [[64, 128], [191, 255]]
    assert paint.signed_picture(values, 4)[..., 1].tolist() == [[96, 128], [159, 191]]
    assert (paint.signed_picture(torch.zeros(3, 2, 2)) == 128).all()


def test_of_many_channels_three_are_shown_or_those_that_are_chosen():
    image = torch.arange(13.0)[:, None, None].expand(13, 4, 4) / 12
    level = [round(255 * i / 12) for i in range(13)]
    assert paint.picture(image)[0, 0].tolist() == level[:3]
    assert paint.picture(image[:2])[0, 0].tolist() == level[:1] * 3
    with paint.showing([7, 3, 2]):
        assert paint.picture(image)[0, 0].tolist() == [level[7], level[3], level[2]]
        assert paint.picture(image[:3])[0, 0].tolist() == level[:3] and paint.picture(image[:1]).max() == 0
        signed = paint.signed_picture(image - 0.5)
        assert all(abs(v - level[i]) <= 1 for v, i in zip(signed[0, 0].tolist(), (7, 3, 2)))
        overlay = paint.overlay_heatmap(torch.zeros(4, 4), image, opacity=0.0)
        assert overlay[0, 0].tolist() == [round(255 * 4 / 12)] * 3
    with paint.showing([12]):
        assert paint.picture(image)[0, 0].tolist() == [255] * 3
    assert paint.picture(image)[0, 0].tolist() == level[:3]


def test_a_heatmap_is_divided_by_its_maximum_and_zero_stays_zero():
    over = torch.full((3, 8, 8), 0.5)
    values = torch.zeros(2, 2)
    values[0, 0] = 5
    hot = paint.overlay_heatmap(values, over, opacity=1)
    assert hot[0, 0].tolist() == paint.colorize(torch.ones(1, 1))[0, 0].tolist()
    assert torch.equal(paint.overlay_heatmap(values, over), paint.overlay_heatmap(values * 7, over))
    nothing = paint.overlay_heatmap(values * 0, over, opacity=1)
    assert (nothing == paint.colorize(torch.zeros(1, 1))[0, 0]).all()
    raised = paint.overlay_heatmap(
        torch.tensor([[2.0, 1.0], [1.0, 1.0]]), over, opacity=1
    )  # the minimum stays half way up
    assert raised[-1, -1].tolist() == paint.colorize(torch.full((1, 1), 0.5))[0, 0].tolist()


def test_a_signed_overlay_is_red_above_zero_and_blue_below():
    red, _, blue = paint.overlay_signed(torch.ones(1, 1), torch.ones(3, 2, 2), opacity=1)[0, 0].tolist()
    assert red > blue
    red, _, blue = paint.overlay_signed(-torch.ones(1, 1), torch.ones(3, 2, 2), opacity=1)[0, 0].tolist()
    assert blue > red
    mid = paint.overlay_signed(torch.zeros(1, 1), torch.ones(3, 2, 2), opacity=1)[0, 0].float()
    assert mid.std() < 3  # neither


def test_small_pictures_grow_by_whole_pixels():
    image = torch.randint(0, 256, (3, 5, 3), dtype=torch.uint8)
    grown = paint.magnify(image, 12)
    assert grown.shape == (9, 15, 3)
    assert torch.equal(grown[1::3, 1::3], image) and torch.equal(grown[::3, ::3], image)
    assert torch.equal(paint.magnify(image, 2), image)
    assert paint.resize(image, 12).shape == (7, 12, 3)
    assert paint.fit_square(image, 10).shape == (10, 10, 3)


def test_a_box_is_framed_just_inside_and_the_picture_is_left_alone():
    image = torch.zeros(6, 6, 3, dtype=torch.uint8)
    framed = paint.draw_box(image, (1, 2, 5, 6), (9, 9, 9))
    expected = torch.zeros(6, 6, dtype=torch.uint8)
    expected[1:5, 2:6] = 9
    expected[2:4, 3:5] = 0
    assert torch.equal(framed[..., 0], expected) and not image.any()


def test_a_grid_has_a_gap_between_its_pictures():
    images = [torch.full((2, 3, 3), i, dtype=torch.uint8) for i in range(5)]
    sheet = paint.grid(images, columns=3, gap=1)
    assert sheet.shape == (5, 11, 3)
    assert sheet[3, 4, 0] == 4 and sheet[0, 8, 0] == 2
    assert (sheet[2] == paint.BACKGROUND).all() and (sheet[3:, 8:] == paint.BACKGROUND).all()
    assert paint.row(images, gap=0).shape == (2, 15, 3)
