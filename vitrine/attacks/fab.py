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
        bound = torch.inf if self.eps is None else self.eps
        return torch.where(per_image(distances <= bound, images), nearest, images)

    def stops_early(self, model: Model) -> bool:
        return self.eps is not None and super().stops_early(model)

    def _approach_boundary(
        self, model: Model, images: Tensor, labels: Tensor, targets: Tensor, keys: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The nearest adversarial images found on the way to one target each, and their distances [N]."""
        norm, shape = NORMS[self.norm].norm, images.shape[1:]
        nearest, best = images.clone(), distances.clone()
        rows = torch.arange(len(images), device=images.device)
        points = images
        for _ in range(self.steps):
            _, gap, gradient = model.gradient(points, labels, logit_difference(targets), keys)
            w = gradient.flatten(1)
            # the boundary, were the network linear: <w, z> = <w, point> - gap
            offsets = (w * points.flatten(1)).sum(1) - gap
            both = torch.cat([points, images]).flatten(1)
            change = project_onto_hyperplane(both, w.repeat(2, 1), offsets.repeat(2), self.norm)
            from_point, from_image = change.view(2, len(points), *shape)
            sizes = (per_image(norm(d).clamp(min=1e-8), images) for d in (from_point, from_image))
            point_size, image_size = sizes
            alpha = (point_size / (point_size + image_size)).clamp(max=self.alpha_max)
            points = (points + self.eta * from_point) * (1 - alpha) + (images + self.eta * from_image) * alpha
            points = points.clamp(0, 1)
            success = model.is_adversarial(points, model.logits(points), labels)
            if not success.any():
                continue
            distance = norm(points - images)
            nearer = success & (distance < best[rows])
            nearest[rows[nearer]], best[rows[nearer]] = points[nearer], distance[nearer]
            points = torch.where(per_image(success, images), images + self.beta * (points - images), points)
            if self.stops_early(model):
                remaining = (best[rows] > self.eps).nonzero()[:, 0]
                if not len(remaining):
                    break
                batch = (rows, points, images, labels, targets, keys)
                rows, points, images, labels, targets, keys = (values[remaining] for values in batch)
        return nearest, best


def project_onto_hyperplane(points: Tensor, normals: Tensor, offsets: Tensor, norm: str) -> Tensor:
    """The smallest change d with <w, x + d> = b and 0 <= x + d <= 1, [N, D]; exact.

    Where the hyperplane misses the box, the d that comes nearest to it. Each coordinate moves towards the
    hyperplane at a rate of its own until it meets the box, so that <w, d> is piecewise linear in time: sort
    the times at which coordinates stop, and find the piece (Croce & Hein 2020, FAB).

    Args:
        points: x in [0, 1], [N, D].
        normals: w, [N, D].
        offsets: b, [N].
        norm: "linf": all coordinates move at rate 1; "l2": at |w|.
    """
    gap = offsets - (normals * points).sum(1)
    direction = torch.where(gap[:, None] < 0, -normals, normals).sign()
    size = normals.abs()
    rate = torch.ones_like(size) if norm == "linf" else size
    room = torch.where(direction > 0, 1 - points, points)
    stop, order = torch.where(size > 0, room / rate.clamp(min=1e-38), 0).sort(dim=1)
    slope = (size * rate).gather(1, order)
    # at stop_i the coordinates after i still move: <w, d> = sum(stopped) + time * sum(moving)
    stopped = (slope * stop).cumsum(1)
    moving = slope.flip(1).cumsum(1).flip(1) - slope
    reached = stopped + stop * moving
    gap = gap.abs()[:, None]
    piece = torch.searchsorted(reached, gap).clamp(max=points.shape[1] - 1)
    before = (piece - 1).clamp(min=0)
    first = piece == 0
    rate_left = torch.where(first, moving[:, :1] + slope[:, :1], moving.gather(1, before))
    done = torch.where(first, 0, stopped.gather(1, before))
    time = ((gap - done) / rate_left.clamp(min=1e-38)).clamp(max=stop.gather(1, piece))
    return direction * torch.minimum(rate * time.clamp(min=0), room)
