"""Rays against a mesh: against trimesh with embree, and gradients against finite differences."""

import pytest
import torch

from vitrine.lidar.icosphere import icosphere, laplacian, mesh_edges
from vitrine.lidar.mesh_rays import intersect
from vitrine.lidar.silhouettes import soft_hits

ORIGIN = torch.tensor([-4.0, 1.0, 0.6], dtype=torch.float64)
FACES = icosphere(2)[1]
EDGES = mesh_edges(FACES)


def bumpy(level: int = 2) -> torch.Tensor:
    """An icosphere that is dented so that it hides parts of itself."""
    vertices, _ = icosphere(level)
    generator = torch.Generator().manual_seed(3)
    return vertices * (0.6 + 0.5 * torch.rand(len(vertices), 1, generator=generator, dtype=torch.float64))


def rays(count: int) -> torch.Tensor:
    """Unit directions around the one to the mesh."""
    generator = torch.Generator().manual_seed(1)
    spread = 0.2 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    directions = -ORIGIN / ORIGIN.norm() + spread
    return directions / directions.norm(dim=1, keepdim=True)


def test_an_icosphere_has_the_vertices_of_its_level_and_is_closed():
    for level, count in enumerate((12, 42, 162)):
        vertices, faces = icosphere(level)
        assert (len(vertices), len(faces), len(mesh_edges(faces))) == (count, 2 * count - 4, 3 * count - 6)
        torch.testing.assert_close(vertices.norm(dim=1), torch.ones(count, dtype=torch.float64))
        assert (torch.linalg.det(vertices[faces]) > 0).all()


@pytest.mark.slow
def test_it_meets_what_embree_meets():
    trimesh = pytest.importorskip("trimesh", reason="the oracle: pip install 'vitrine[physical]'")
    pytest.importorskip("embreex", reason="the oracle: pip install 'vitrine[physical]'")
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    vertices, directions = bumpy(), rays(2000)
    solid = trimesh.Trimesh(vertices.numpy(), FACES.numpy(), process=False)
    distances, met = intersect(vertices, FACES, ORIGIN, directions)
    origins = ORIGIN.expand_as(directions).numpy()
    oracle = torch.as_tensor(RayMeshIntersector(solid).intersects_first(origins, directions.numpy()))
    assert 0.2 < (met >= 0).float().mean() < 0.9
    assert (oracle != met).sum() <= 2  # embree works in float32: a ray through an edge may go either way
    points, of, _ = solid.ray.intersects_location(origins, directions.numpy(), multiple_hits=False)
    away = (torch.as_tensor(points) - ORIGIN).norm(dim=1)
    torch.testing.assert_close(distances[torch.as_tensor(of)], away, rtol=0, atol=1e-4)


def test_distances_have_the_gradient_of_finite_differences():
    vertices, directions = bumpy().requires_grad_(), rays(60)
    hit = intersect(vertices, FACES, ORIGIN, directions)[1] >= 0
    weights = torch.linspace(1, 2, int(hit.sum()), dtype=torch.float64)

    def total(points):
        return (intersect(points, FACES, ORIGIN, directions)[0][hit] * weights).sum()

    assert_gradient(total, vertices)


def test_soft_hits_have_the_gradient_of_finite_differences():
    directions = rays(60)

    def total(points):
        soft = soft_hits(points, FACES, EDGES, ORIGIN, directions)
        weight = torch.sigmoid(soft.inside / 0.05)
        return (weight * soft.distances).sum() + 3 * weight.sum()

    assert_gradient(total, bumpy().requires_grad_())


def assert_gradient(function, vertices):
    """The gradient along random directions against central differences."""
    gradient = torch.autograd.grad(function(vertices), vertices)[0]
    assert gradient.abs().max() > 0
    generator = torch.Generator().manual_seed(5)
    for _ in range(4):
        along = torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
        step = 1e-7
        with torch.no_grad():
            slope = (function(vertices + step * along) - function(vertices - step * along)) / (2 * step)
        torch.testing.assert_close((gradient * along).sum(), slope, rtol=1e-4, atol=1e-5)


def test_of_a_sphere_the_silhouette_is_the_circle_of_its_tangents():
    vertices, faces = icosphere(4)
    directions = rays(300)
    soft = soft_hits(vertices, faces, mesh_edges(faces), ORIGIN, directions)
    reach = ORIGIN.norm()
    cosine = directions @ (-ORIGIN / reach)
    radius = reach * cosine.acos().tan()  # where the ray meets the plane through the middle
    rim = reach * (1 / reach).asin().tan()
    torch.testing.assert_close(soft.inside, rim - radius, rtol=0, atol=6e-3)
    assert torch.equal(soft.hit, soft.inside > 0)


def test_a_ray_beside_the_mesh_feels_it_only_softly():
    directions = rays(200)
    vertices = bumpy().requires_grad_()
    soft = soft_hits(vertices, FACES, EDGES, ORIGIN, directions)
    distances, met = intersect(vertices, FACES, ORIGIN, directions)
    assert torch.equal(soft.hit, met >= 0)
    torch.testing.assert_close(soft.distances[soft.hit], distances[soft.hit])
    outside = soft.inside[~soft.hit]
    assert (outside < 0).all()
    assert torch.autograd.grad(torch.sigmoid(outside / 0.1).sum(), vertices)[0].abs().max() > 0


def test_the_laplacian_is_zero_where_vertices_lie_in_the_middle_of_those_beside_them():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 5]])
    edges = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4], [1, 5]])
    away = laplacian(flat, edges)
    torch.testing.assert_close(away[0], torch.zeros(3))
    torch.testing.assert_close(away[5], torch.tensor([-1.0, 0, 5]))
