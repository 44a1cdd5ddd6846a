"""Meshes of many faces are looked at in parts: what is at work at once does not grow with them."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vitrine.objects import rasterize as rasterizer
from vitrine.objects import shapes
from vitrine.objects.mesh import Mesh
from vitrine.objects.rasterize import rasterize
from vitrine.objects.views import ViewDistribution, draw_views


class LargestTensor(TorchDispatchMode):
    """Notes how large the largest tensor is that an operation makes."""

    megabytes = 0.0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.megabytes = max(self.megabytes, tensor.untyped_storage().nbytes() / 2**20)
        return made


def cone(count: int) -> Mesh:
    """Faces that all meet at its tip, and at that of a second one below."""
    angle = torch.arange(count, dtype=torch.float64) * (2 * torch.pi / count)
    ring = torch.stack([angle.cos(), torch.zeros_like(angle), angle.sin()], 1)
    tips = torch.tensor([[0, 0.1, 0], [0, -0.1, 0]], dtype=torch.float64)
    this, following = torch.arange(count), torch.arange(count).roll(-1)
    up = torch.stack([following, this, torch.full_like(this, count)], 1)
    down = torch.stack([this, following, torch.full_like(this, count + 1)], 1)
    vertices, faces = torch.cat([ring, tips]), torch.cat([up, down])
    return Mesh(vertices, faces, torch.zeros(1, 2, dtype=torch.float64), torch.zeros_like(faces))


def test_many_faces_at_one_vertex():
    mesh = cone(700)
    with LargestTensor() as largest:
        normals = mesh.corner_normals
    assert largest.megabytes < 10
    tip = torch.tensor([0, 1.0, 0], dtype=torch.float64).expand(700, 3)
    torch.testing.assert_close(normals[:700, 2], tip)
    torch.testing.assert_close(normals[700:, 2], -tip)


def test_many_faces_in_many_views(monkeypatch):
    mesh, views = shapes.make("mug"), draw_views(torch.arange(24), ViewDistribution())
    at_once = rasterize(mesh, views.rotations, views.positions, 4)
    monkeypatch.setattr(rasterizer, "_AT_ONCE", 4 * len(mesh.faces))
    with LargestTensor() as largest:
        in_parts = rasterize(mesh, views.rotations, views.positions, 4)
    lines = 4 * len(mesh.faces) * 9 * 8 / 2**20  # of a pass: nine numbers a face and view
    assert largest.megabytes <= lines
    assert all(torch.equal(one, other) for one, other in zip(in_parts, at_once))
