"""A mesh on the roof that hides cars from a LiDAR detector, over cars, headings and ranges at once (Tu et al.
2020): by gradients through soft rays, or by search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrine.attacks.evolution import EvolutionStrategy
from vitrine.lidar.boxes import iou
from vitrine.lidar.icosphere import laplacian, mesh_edges
from vitrine.lidar.network import decode, places
from vitrine.lidar.roof_mesh import shape, smooth_offsets, sphere_mesh
from vitrine.lidar.roof_targets import RoofTarget, hard_views, soft_views

REACH = 3.0  # metres from a car's middle to that of a proposal that overlaps it enough to matter
Progress = Callable[[Iterable[int]], Iterable[int]]


def hiding_losses(logits: Tensor, boxes: Tensor, truths: Tensor) -> Tensor:
    """For each car the sum of -log(1 - score) of proposals, weighted by the overlap with it (Tu et al. 2020).

    Args:
        logits: of the scores, [N, P].
        boxes: rectangles [N, P, 5].
        truths: the cars', [N, 5].
    """
    near = (boxes[..., :2] - truths[:, None, :2]).norm(dim=-1) < REACH
    car, proposal = near.nonzero(as_tuple=True)
    overlap = iou(boxes[car, proposal].detach(), truths[car])
    return torch.zeros(len(truths)).index_add(0, car, overlap * F.softplus(logits[car, proposal]))


def view_losses(network: nn.Module, targets: Sequence[RoofTarget], views: Tensor) -> Tensor:
    """`hiding_losses` of targets, [N].

    Args:
        network: from occupancy to the logits and numbers of `lidar.network`.
        views: what it is shown around each target, [N, Z, X, Y].
    """
    logits, numbers = network(views)
    boxes = decode(numbers, places(targets[0].grid)).flatten(1, 2)
    return hiding_losses(logits.flatten(1), boxes, torch.stack([target.truth for target in targets]))


@dataclass(frozen=True)
class GradientAttack:
    """Adam on the offsets of all vertices, with rays that are soft at the silhouette, ever less so."""

    steps: int = 150
    scenes: int = 8  # a step, drawn anew
    lr: float = 0.05
    smoothness: float = 1.0  # weight of the sum of squares of the Laplacian, in metres
    softness: tuple[float, float] = (0.10, 0.03)  # metres, at the first step and at the last
    sharpness: tuple[float, float] = (1.0, 3.0)  # of a point's share in cells, likewise
    roughness: float = 0.1  # standard deviation of the first offsets
    seed: int = 0

    def __call__(
        self,
        network: nn.Module,
        targets: Sequence[RoofTarget],
        start: Tensor | None = None,
        progress: Progress = iter,
    ) -> Tensor:
        """Offsets [V, 3] for `roof_mesh.shape`, beginning with `start`, or random ones."""
        sphere, faces = sphere_mesh()
        edges = mesh_edges(faces)
        generator = torch.Generator().manual_seed(self.seed)
        offsets = self.roughness * torch.randn(sphere.shape, generator=generator)
        offsets = (offsets if start is None else start.clone()).requires_grad_()
        optimizer = torch.optim.Adam([offsets], self.lr)
        for step in progress(range(self.steps)):
            share = step / max(1, self.steps - 1)
            softness = self.softness[0] * (self.softness[1] / self.softness[0]) ** share
            sharpness = self.sharpness[0] + share * (self.sharpness[1] - self.sharpness[0])
            chosen = _draw(targets, self.scenes, generator)
            vertices = shape(offsets, targets[0].extents)
            views = soft_views(chosen, vertices, faces, edges, softness, sharpness)
            loss = view_losses(network, chosen, views).mean()
            loss = loss + self.smoothness * laplacian(vertices, edges).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return offsets.detach()


@dataclass(frozen=True)
class SearchAttack:
    """An evolution strategy over smooth shapes, with rays as they are: what is possible without gradients."""

    generations: int = 60
    population: int = 16
    scenes: int = 16  # a generation, drawn anew
    sigma: float = 0.4  # of the first coefficients
    seed: int = 0

    def __call__(
        self,
        network: nn.Module,
        targets: Sequence[RoofTarget],
        start: Tensor | None = None,
        progress: Progress = iter,
    ) -> Tensor:
        """Offsets [V, 3] for `roof_mesh.shape`, beginning with `start`, or those of the ellipsoid."""
        sphere, faces = sphere_mesh()
        start = torch.zeros_like(sphere) if start is None else start
        generator = torch.Generator().manual_seed(self.seed)
        strategy = EvolutionStrategy(torch.zeros(48), self.sigma, self.seed, self.population)
        for _ in progress(range(self.generations)):
            chosen = _draw(targets, self.scenes, generator)
            candidates = strategy.sample()
            losses = []
            for candidate in candidates.float():
                vertices = shape(start + smooth_offsets(candidate), targets[0].extents)
                views = hard_views(chosen, vertices, faces)
                with torch.no_grad():
                    losses.append(view_losses(network, chosen, views).mean())
            strategy.update(candidates, torch.stack(losses))
        return start + smooth_offsets(strategy.mean.float())


def _draw(targets: Sequence[RoofTarget], count: int, generator: torch.Generator) -> list[RoofTarget]:
    """Some of the targets, each at most once."""
    return [targets[i] for i in torch.randperm(len(targets), generator=generator)[:count].tolist()]
