import pytest
import torch
import torch.nn.functional as F

from vitrine.objects import shapes
from vitrine.objects.mesh import Mesh
from vitrine.objects.rasterize import rasterize
from vitrine.objects.render import render, sample, shade
from vitrine.objects.views import ViewDistribution, draw_views, turntable

PLAIN = ViewDistribution().without_colour()


def test_the_gradient_by_the_texture_is_that_of_finite_differences():
    views = draw_views(
        torch.arange(2), ViewDistribution(noise=0, lighten=0, tint=0, most_light=0.9, most_channel=1)
    )
    lookup = rasterize(shapes.make("mug"), views.rotations, views.positions, 12)
    texture = 0.2 + 0.6 * torch.rand(
        1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert torch.autograd.gradcheck(lambda t: shade(lookup, t, views), texture.requires_grad_())


def test_a_pixel_is_texture_times_lamberts_light():
    """By hand: the looked-up colour times ambient light plus what falls in at the normal's angle."""
    views = draw_views(torch.arange(3), PLAIN)
    mesh, texture = shapes.make("sphere"), torch.rand(1, 3, 16, 16)
    lookup = rasterize(mesh, views.rotations, views.positions, 24)
    pictures = render(mesh, texture, views, 24, samples=1)
    view, row, column = (i[::40] for i in lookup.mask.nonzero(as_tuple=True))
    u, v = lookup.uvs[view, row, column].float().unbind(1)
    grid = torch.stack([2 * u - 1, 1 - 2 * v], -1)[None, None]
    colours = F.grid_sample(texture, grid, padding_mode="border", align_corners=False)[0, :, 0].T
    facing = (lookup.normals[view, row, column] * views.lights[view]).sum(1).clamp(min=0)
    light = views.ambient[view] + (1 - views.ambient[view]) * facing
    torch.testing.assert_close(pictures[view, :, row, column], colours * light[:, None].float())
    empty, *_ = (~lookup.mask).nonzero(as_tuple=True)
    behind = pictures.permute(0, 2, 3, 1)[~lookup.mask]
    torch.testing.assert_close(behind, views.backgrounds[empty].float())


def test_more_samples_are_the_mean_over_each_pixel():
    mesh, texture, views = shapes.make("cube"), torch.rand(1, 3, 8, 8), draw_views(torch.arange(2), PLAIN)
    fine = render(mesh, texture, views, 24, samples=1)
    torch.testing.assert_close(render(mesh, texture, views, 12, samples=2), F.avg_pool2d(fine, 2))


def test_gain_offset_and_noise_are_the_cameras():
    mesh, texture = shapes.make("cube"), torch.full((1, 3, 8, 8), 0.5)
    views = turntable(1)
    plain = render(mesh, texture, views, 48)
    changed = views._replace(gains=views.gains * 0.5, offsets=views.offsets + 0.2)
    torch.testing.assert_close(render(mesh, texture, changed, 48), plain * 0.5 + 0.2)
    noise = render(mesh, texture, views._replace(noise=views.noise + 0.05), 48) - plain
    assert abs(noise.std() - 0.05) < 0.002 and abs(noise.mean()) < 0.002


def test_the_texture_stands_upright():
    """v counts from below: the upper rows of a texture are at the top of a cylinder seen from the side."""
    texture = torch.zeros(1, 3, 32, 32)
    texture[:, 0, :16], texture[:, 2, 16:] = 1, 1  # red above blue
    picture = render(shapes.make("sphere"), texture, turntable(1, tilt=0), 32)[0]
    assert picture[0, 8, 16] > 0.4 > picture[2, 8, 16] and picture[2, 24, 16] > 0.4 > picture[0, 24, 16]


def quad(low, high):
    """A square that faces the viewer, with these UV at its lower left and upper right corners."""
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]).double()
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return Mesh(F.pad(corners * 2 - 1, (0, 1)), faces, low + (high - low) * corners, faces)


@pytest.mark.parametrize("low, high", [(0, 4), (-4, 0), (7, 11)])
def test_a_texture_repeats_beyond_its_borders_as_its_copies_side_by_side_do(low, high):
    texture = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    views = turntable(2, tilt=10)
    repeated = render(quad(low, high), texture, views, 40)
    copies = render(quad(1 / 6, 5 / 6), texture.repeat(1, 1, 6, 6), views, 40)
    torch.testing.assert_close(repeated, copies)
    assert repeated.std() > 0.1


def test_the_gradient_of_a_repeated_texture_is_that_of_finite_differences():
    views = turntable(2, tilt=10)
    lookup = rasterize(quad(-0.5, 1.7), views.rotations, views.positions, 12)
    texture = torch.rand(1, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda t: shade(lookup, t, views), (0.2 + 0.6 * texture).requires_grad_())


def test_a_texture_that_ends_at_its_borders_is_not_repeated():
    """Neither at UV of exactly 1, nor by half a texel from across the border."""
    texture, uvs = torch.zeros(1, 3, 4, 4), torch.tensor([[[[0.0, 0.5], [1.0, 0.5]]]])
    texture[..., 0] = 1
    assert sample(texture, uvs)[0, 0, 0].tolist() == [1, 0]
    assert sample(texture, uvs, repeats=True)[0, 0, 0].tolist() == pytest.approx([0.5, 0.5])
    assert not quad(0, 1).repeats and quad(0, 1.01).repeats and quad(-0.01, 1).repeats
