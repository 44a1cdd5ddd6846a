import pytest
import torch
from PIL import Image

from vitrine.attacks import TRANSFORMATIONS
from vitrine.attacks.jpeg import JPEG, jpeg
from vitrine.attacks.transformations import Light, Perspective, Rotation, Scale, homography, similarity, warp
from vitrine.core.random_numbers import fold_in

every = pytest.mark.parametrize("name", list(TRANSFORMATIONS))


@pytest.fixture
def picture() -> torch.Tensor:
    """Something smooth with edges, [1, 3, 32, 48]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 48), indexing="ij")
    image = torch.stack([x, y, 0.5 + 0.4 * torch.sin(9 * x + 4 * y)])
    image[:, 8:20, 10:30] = torch.tensor([0.9, 0.2, 0.3])[:, None, None]
    return image[None]


@every
def test_stays_in_the_range_and_has_a_gradient(name, picture):
    pixels = picture.clone().requires_grad_()
    seen = TRANSFORMATIONS[name]()(pixels.expand(4, -1, -1, -1), torch.arange(4))
    assert seen.shape == (4, 3, 32, 48) and seen.min() >= 0 and seen.max() <= 1
    (gradient,) = torch.autograd.grad(seen.sum(), pixels)
    assert gradient.isfinite().all() and (gradient != 0).any()


@every
def test_a_draw_depends_on_the_images_own_key_alone(name, picture):
    transformation, keys = TRANSFORMATIONS[name](), torch.tensor([3, 9, 4])
    together = transformation(picture.expand(3, -1, -1, -1), keys)
    alone = transformation(picture, keys[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[1])


@every
def test_grey_pictures_too(name):
    assert TRANSFORMATIONS[name]()(torch.rand(2, 1, 16, 16), torch.arange(2)).shape == (2, 1, 16, 16)


@every
@pytest.mark.parametrize("channels", [3, 4])
def test_the_order_in_memory_does_not_matter_and_views_are_of_torchs_own(name, channels):
    pictures = torch.rand(2, channels, 24, 16, generator=torch.Generator().manual_seed(0))
    key, other = torch.tensor([3, 4]), pictures.contiguous(memory_format=torch.channels_last)
    found = TRANSFORMATIONS[name]()(pictures, key)
    assert found.view(2, -1).shape == (2, pictures[0].numel())  # as networks do
    torch.testing.assert_close(TRANSFORMATIONS[name]()(other, key), found)


def test_a_quarter_turn_is_a_quarter_turn(images):
    square = images(1, 1, 9, 9)
    turned = warp(square, similarity(torch.tensor([torch.pi / 2]), torch.ones(1)))
    assert any(torch.allclose(turned, torch.rot90(square, k, (2, 3)), atol=1e-5) for k in (1, 3))


def test_what_is_turned_keeps_its_shape_in_an_oblong_image(images):
    whole = torch.zeros(5, 1, 48, 48)
    whole[..., 18:30, 16:32] = images(5, 1, 12, 16)
    rotation, keys = Rotation(90), torch.arange(5)
    for rows, columns in ((slice(12, 36), slice(48)), (slice(48), slice(10, 38))):
        turned = rotation(whole[:, :, rows, columns], keys)
        torch.testing.assert_close(turned, rotation(whole, keys)[:, :, rows, columns], atol=1e-5, rtol=0)


def test_nothing_done_is_nothing_changed(picture):
    keys = torch.arange(1)
    for nothing in (Rotation(0), Scale(1, 1), Perspective(0), Light(0, 0)):
        torch.testing.assert_close(nothing(picture, keys), picture, atol=1e-5, rtol=0)


def test_a_homography_takes_corners_where_it_is_told():
    moves = torch.tensor([[[0.1, 0.2], [-0.1, 0.0], [0.0, -0.3], [0.2, 0.1]]])
    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    there = corners @ homography(moves)[0].T
    torch.testing.assert_close(there[:, :2] / there[:, 2:], corners[:, :2] + moves[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_nearly_what_pillow_writes(quality, picture, tmp_path):
    raw = (picture[0].permute(1, 2, 0) * 255).round().byte()
    Image.fromarray(raw.numpy()).save(tmp_path / "x.jpg", quality=quality, subsampling=2)
    written = Image.open(tmp_path / "x.jpg")
    theirs = torch.tensor(list(written.getdata())).view(32, 48, 3).permute(2, 0, 1) / 255
    pixels = raw.permute(2, 0, 1) / 255
    ours = jpeg(pixels[None], torch.tensor([float(quality)]))[0]
    difference, loss = (ours - theirs).abs().mean(), (pixels - theirs).abs().mean()
    assert difference < 0.5 * loss
    assert difference < 0.012


def test_jpeg_takes_sides_that_are_no_multiples_of_a_block():
    assert jpeg(torch.rand(1, 3, 13, 21), torch.tensor([50.0])).shape == (1, 3, 13, 21)
    with pytest.raises(ValueError, match="least"):
        JPEG(least=90, most=50)


def test_channels_that_are_no_colours_are_compressed_one_by_one():
    images, quality = torch.rand(2, 4, 13, 16), torch.tensor([50.0, 80.0])
    alone = torch.cat([jpeg(images[:, i : i + 1], quality) for i in range(4)], 1)
    assert torch.equal(jpeg(images, quality), alone)


def test_keys_for_many_draws_are_different():
    keys = torch.cat([fold_in(torch.arange(10), draw) for draw in range(10)])
    assert len(keys.unique()) == 100
