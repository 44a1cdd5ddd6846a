import pytest
import torch

from vitrine.core.registry import UnknownName
from vitrine.objects import shapes


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_shape_fits_into_the_unit_sphere_and_its_texture_into_the_unit_square(name):
    mesh = shapes.make(name)
    assert mesh.vertices[mesh.faces].norm(dim=-1).max().item() == pytest.approx(1)
    assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
    corners = mesh.uvs[mesh.face_uvs]
    first, second = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    covered = (first[0] * second[1] - first[1] * second[0]).abs().sum().item() / 2
    assert 0.7 < covered < 1 + 1e-9  # of the texture, and no place twice


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_faces_look_outwards(name):
    """The volume that the faces enclose is positive (the divergence theorem)."""
    mesh = shapes.make(name)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum().item() / 6
    assert volume > 0.05


def test_a_balls_normals_are_its_radii_and_a_cubes_have_edges():
    ball, cube = shapes.make("sphere"), shapes.make("cube")
    cosine = (ball.corner_normals * ball.vertices[ball.faces]).sum(-1)
    assert cosine.min() > 0.99
    assert sorted(cube.corner_normals.abs().amax(-1).unique().tolist()) == pytest.approx([1.0])


def test_an_unknown_shape_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean turtle"):
        shapes.make("turtel")
