"""The fast adaptive boundary attack, targeted form FAB-T (Croce & Hein 2020): the smallest perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.attacks.apgd import wrong_classes
from vitrine.attacks.base import Attack
from vitrine.attacks.losses import logit_difference
from vitrine.attacks.model import Model
from vitrine.attacks.threat import NORMS, per_image
from vitrine.core.settings import setting

_IN_CACHE = 1 << 16  # numbers of a tensor, of which a dozen are at work: 3 MB


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Steps to where the boundary would be if the network were linear, biased towards the original image.

    With eps, the search for an image ends once an adversarial one within eps is known; with eps null, all
    take all steps, and the smallest perturbation found is returned, whatever its size. Images without one
    are returned unchanged.
    """

    steps: int = setting(100, "steps for each target", least=1)
    targets: int = setting(9, "how many wrong classes are tried, the most probable first", least=1)
    alpha_max: float = setting(0.1, "largest weight of the step from the image", least=0, most=1)
    eta: float = setting(1.05, "overshoot beyond the boundary", least=1)
    beta: float = setting(0.9, "share of the perturbation kept in a step back from beyond", above=0, most=1)
    early_stop: bool = setting(True, "adversarial images leave the batch; false: all take all steps")

    minimizes_norm: ClassVar[bool] = True
    supports_targeted: ClassVar[bool] = False

    def search(self, model: Model, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        logits = model.logits(images, labels)
        ranked = wrong_classes(logits, labels, self.targets)
        nearest, distances = images.clone(), images.new_full((len(images),), torch.inf)
        distances[model.is_adversarial(images, logits, labels)] = 0
        rows = (distances > 0).nonzero()[:, 0]
        early_stop = self.stops_early(model)
        for rank in range(ranked.shape[1]):
            if not len(rows):
                break
            found, distance = self._approach_boundary(
                model, images[rows], labels[rows], ranked[rows, rank], keys[rows], distances[rows]
            )
            nearer = distance < distances[rows]
            nearest[rows[nearer]], distances[rows[nearer]] = found[nearer], distance[nearer]
            if early_stop:
                rows = rows[distances[rows] > self.eps]
        return torch.where(per_image(distances <= self._bound, images), nearest, images)

    @property
    def _bound(self) -> float:
        return torch.inf if self.eps is None else self.eps

    def stops_early(self, model: Model) -> bool:
        return self.eps is not None and super().stops_early(model)

    def _approach_boundary(
        self, model: Model, images: Tensor, labels: Tensor, targets: Tensor, keys: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The nearest adversarial images within eps on the way to a target each, and their distances [N]."""
        norm = NORMS[self.norm].norm
        nearest, best = images.clone(), distances.clone()
        rows = torch.arange(len(images), device=images.device)
        points = images
        for _ in range(self.steps):
            _, gaps, gradients = model.gradient(points, labels, logit_difference(targets), keys)
            points = self._step(points, images, gaps, gradients)
            logits = model.logits(points)
            success = model.seems_adversarial(logits, labels)
            candidates = model.may_be_adversarial(logits, labels)
            if not candidates.any():
                continue
            distance = norm(points - images)
            found = (candidates & (distance < best[rows]) & (distance <= self._bound)).nonzero()[:, 0]
            if len(found):
                success[found] = model.confirms(points[found], labels[found])
                found = found[success[found]]
                nearest[rows[found]], best[rows[found]] = points[found], distance[found]
            points = torch.where(per_image(success, images), images + self.beta * (points - images), points)
            if self.stops_early(model):
                remaining = (best[rows] > self.eps).nonzero()[:, 0]
                if not len(remaining):
                    break
                batch = (rows, points, images, labels, targets, keys)
                rows, points, images, labels, targets, keys = (values[remaining] for values in batch)
        return nearest, best

    def _step(self, points: Tensor, images: Tensor, gaps: Tensor, gradients: Tensor) -> Tensor:
        """Points [N, C, H, W] to where the boundary would be if the network were linear, and beyond."""
        # on a CPU a few images at a time, so that what is computed of them stays in the cache
        count = len(points) if points.is_cuda else max(1, _IN_CACHE // points[0].numel())
        parts = (values.split(count) for values in (points, images, gaps, gradients))
        return torch.cat([self._step_at_once(*part) for part in zip(*parts)])

    def _step_at_once(self, points: Tensor, images: Tensor, gaps: Tensor, gradients: Tensor) -> Tensor:
        w, x, origin = (values.flatten(1) for values in (gradients, points, images))
        # the boundary, were the network linear: <w, z> = <w, point> - gap
        offsets = (w * x).sum(1) - gaps
        from_point, from_image = (project_onto_hyperplane(z, w, offsets, self.norm) for z in (x, origin))
        point_size, image_size = (
            NORMS[self.norm].norm(change).clamp(min=1e-8)[:, None] for change in (from_point, from_image)
        )
        alpha = (point_size / (point_size + image_size)).clamp(max=self.alpha_max)
        stepped = (x + self.eta * from_point) * (1 - alpha) + (origin + self.eta * from_image) * alpha
        return stepped.clamp(0, 1).view_as(points)


def project_onto_hyperplane(points: Tensor, normals: Tensor, offsets: Tensor, norm: str) -> Tensor:
    """The smallest change d with <w, x + d> = b and 0 <= x + d <= 1, [N, D]; exact.

    Where the hyperplane misses the box, the d that comes nearest to it. Each coordinate moves towards the
    hyperplane at a rate of its own until it meets the box, so that <w, d> is concave and piecewise linear in
    time (Croce & Hein 2020, FAB). Newton's steps from below end on the piece of the solution, as those that
    stopped only become more; they are a handful, where sorting the times of all coordinates took most of FAB.

    Args:
        points: x in [0, 1], [N, D].
        normals: w, [N, D].
        offsets: b, [N].
        norm: "linf": all coordinates move at rate 1; "l2": at |w|.
    """
    gap = offsets - (normals * points).sum(1)
    normals = normals * torch.where(gap < 0, -1.0, 1.0).to(normals)[:, None]
    gap, size, direction = gap.abs(), normals.abs(), normals.sign()
    # masks are numbers, and multiplied: on a CPU `where` takes ten times as long
    mask = torch.gt(direction, 0, out=torch.empty_like(points))
    room = mask.sub(points).abs_()
    stop, slope = (room, size) if norm == "linf" else (room / size.clamp(min=1e-38), size.square())
    full = size * room
    time, most = torch.zeros_like(gap), torch.finfo(gap.dtype).max
    left = gap  # what has no room to move contributes nothing
    while True:
        rate = torch.gt(stop, time[:, None], out=mask).mul_(slope).sum(1)
        reached = torch.maximum((left / rate.clamp(min=1e-38)).clamp(max=most), time)
        if not (reached > time).any():  # nor for NaN, which the network's logits will show
            break
        time = reached
        left = gap - torch.le(stop, time[:, None], out=mask).mul_(full).sum(1)
    change = time[:, None] if norm == "linf" else time[:, None] * size
    return torch.minimum(change, room, out=mask).mul_(direction)
