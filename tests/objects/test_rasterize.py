"""The z-buffer against rays through every pixel: Möller and Trumbore (1997), triangle by triangle."""

import pytest
import torch

from vitrine.objects import shapes
from vitrine.objects.mesh import Mesh
from vitrine.objects.rasterize import FOCAL, rasterize
from vitrine.objects.views import ViewDistribution, draw_views

SIZE = 20
VIEWS = draw_views(torch.arange(2), ViewDistribution())


def rays(size: int) -> torch.Tensor:
    """The direction of the ray through each pixel's middle, one unit deep: [size, size, 3]."""
    along = ((torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1) / FOCAL
    y, x = torch.meshgrid(-along, along, indexing="ij")
    return torch.stack([x, y, -torch.ones_like(x)], -1)


def intersect(corners: torch.Tensor, directions: torch.Tensor):
    """The nearest triangle [F, 3, 3] that each ray [R, 3] from the origin meets (-1: none), how far along
    the ray, and the weights of its corners."""
    a, b, c = corners[None].unbind(2)
    d = directions[:, None].expand(-1, len(corners), -1)
    p = torch.linalg.cross(d, (c - a).expand_as(d))
    determinant = ((b - a) * p).sum(-1)
    u = (-a * p).sum(-1) / determinant
    q = torch.linalg.cross(-a, b - a).expand_as(d)
    v = (d * q).sum(-1) / determinant
    t = ((c - a) * q).sum(-1) / determinant
    met = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (determinant != 0)
    far, face = torch.where(met, t, torch.inf).min(1)
    rows = torch.arange(len(directions))
    u, v = u[rows, face], v[rows, face]
    return torch.where(far.isinf(), -1, face), far, torch.stack([1 - u - v, u, v], -1)


def turned(mesh: Mesh, view: int) -> torch.Tensor:
    return (mesh.vertices @ VIEWS.rotations[view].T + VIEWS.positions[view])[mesh.faces]


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_it_finds_what_rays_find(name):
    mesh = shapes.make(name)
    found = rasterize(mesh, VIEWS.rotations, VIEWS.positions, SIZE)
    assert found.mask.float().mean() > 0.05
    for view in range(2):
        face, far, weights = intersect(turned(mesh, view), rays(SIZE).view(-1, 3))
        hit = face >= 0
        assert torch.equal(found.mask[view].flatten(), hit)
        torch.testing.assert_close(found.depth[view].flatten()[hit], far[hit], rtol=1e-9, atol=0)
        uvs = (weights[..., None] * mesh.uvs[mesh.face_uvs[face]]).sum(1)[hit]
        torch.testing.assert_close(found.uvs[view].view(-1, 2)[hit], uvs, rtol=0, atol=1e-8)
        normals = (weights[..., None] * mesh.corner_normals[face]).sum(1) @ VIEWS.rotations[view].T
        cosine = (found.normals[view].view(-1, 3) * normals / normals.norm(dim=1, keepdim=True)).sum(1)
        torch.testing.assert_close(cosine[hit].abs(), torch.ones_like(cosine[hit]))
        assert ((found.normals[view] * rays(SIZE)).sum(-1)[found.mask[view]] <= 1e-9).all()


def test_what_is_nearer_hides_what_is_behind():
    corners = torch.tensor([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], dtype=torch.float64)
    both = torch.cat([corners, corners * 0.5 + torch.tensor([0, 0, 0.5])])
    faces = torch.arange(6).view(2, 3)
    mesh = Mesh(both, faces, torch.rand(6, 2, dtype=torch.float64), faces)
    still = torch.eye(3, dtype=torch.float64)[None]
    ahead = torch.tensor([[0, 0, -3.0]], dtype=torch.float64)
    found = rasterize(mesh, still, ahead, 16)
    swapped = rasterize(Mesh(both, faces.flip(0), mesh.uvs, faces.flip(0)), still, ahead, 16)
    assert found.faces.unique().tolist() == [-1, 0, 1]
    assert torch.equal(found.depth, swapped.depth) and torch.equal(found.uvs, swapped.uvs)
    assert found.depth[found.faces == 1].tolist() == pytest.approx([2.5] * int((found.faces == 1).sum()))


def test_a_view_has_the_same_bits_alone_or_among_others():
    mesh, views = shapes.make("mug"), draw_views(torch.arange(5), ViewDistribution())
    together = rasterize(mesh, views.rotations, views.positions, 24)
    for i in (0, 4):
        alone = rasterize(mesh, views.rotations[i : i + 1], views.positions[i : i + 1], 24)
        for one, all_ in zip(alone, together):
            assert torch.equal(one[0], all_[i])


def test_a_mesh_around_the_camera_is_refused():
    with pytest.raises(ValueError, match=r"^positions: a vertex is -0.5 before the camera"):
        rasterize(
            shapes.make("cube"),
            torch.eye(3).double()[None],
            torch.tensor([[0, 0, -0.0773502691896258]]).double(),
            8,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", shapes.SHAPES)
def test_it_finds_what_embree_finds(name):
    """Rays of single precision may miss what is at a silhouette: one pixel in 500 may differ."""
    trimesh = pytest.importorskip("trimesh", reason="pip install 'vitrine[physical]'")
    pytest.importorskip("embreex", reason="pip install 'vitrine[physical]'")
    mesh, size = shapes.make(name), 64
    found = rasterize(mesh, VIEWS.rotations, VIEWS.positions, size)
    for view in range(2):
        vertices = (mesh.vertices @ VIEWS.rotations[view].T + VIEWS.positions[view]).numpy()
        theirs = trimesh.Trimesh(vertices, mesh.faces.numpy(), process=False)
        directions = rays(size).view(-1, 3).numpy()
        places, ray, _ = theirs.ray.intersects_location(directions * 0, directions, multiple_hits=False)
        depth = torch.zeros(size * size, dtype=torch.float64)
        depth[torch.from_numpy(ray)] = torch.from_numpy(-places[:, 2].copy())
        same = (found.depth[view].flatten() - depth).abs() < 1e-4
        assert len(ray) > 100 and (~same).sum() <= size * size / 500
