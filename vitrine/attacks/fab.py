"""The fast adaptive boundary attack, targeted form FAB-T (Croce & Hein 2020): the smallest perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.attacks.apgd import wrong_classes
from vitrine.attacks.base import Attack
from vitrine.attacks.hyperplane import project
from vitrine.attacks.losses import Loss
from vitrine.attacks.model import Victim
from vitrine.attacks.threat import NORMS
from vitrine.core.settings import setting


@dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """Steps to where the boundary would be if the network were linear, drawn back towards the image.

    With eps, an image has fallen when an adversarial one within eps is known; with eps null, all take all
    steps, and the smallest perturbation found is returned, whatever its size. Images for which there is none
    are returned as they came.
    """

    steps: int = setting(100, "steps for each target", least=1)
    targets: int = setting(9, "how many wrong classes are tried, likeliest first", least=1)
    alpha_max: float = setting(0.1, "largest weight of the step from the image", least=0, most=1)
    eta: float = setting(1.05, "overshoot beyond the boundary", least=1)
    beta: float = setting(
        0.9, "share of the perturbation kept when stepping back from beyond", above=0, most=1
    )
    early_stop: bool = setting(True, "images leave as they fall; false: all take all steps")

    unbounded: ClassVar[bool] = True
    directed: ClassVar[bool] = False

    def search(self, victim: Victim, images: Tensor, labels: Tensor, keys: Tensor) -> Tensor:
        logits = victim.guess(images, labels)
        ranked = wrong_classes(logits, labels, self.targets)
        nearest, sizes = images.clone(), images.new_full((len(images),), torch.inf)
        sizes[victim.fallen(images, logits, labels)] = 0
        rows = (sizes > 0).nonzero()[:, 0]
        early_stop = self.early_stop and self.eps is not None and victim.check and self.mode == "eval"
        for rank in range(ranked.shape[1]):
            if not len(rows):
                break
            its = labels[rows], ranked[rows, rank], keys[rows]
            found, size = self._walk(victim, images[rows], *its, sizes[rows], early_stop)
            nearer = size < sizes[rows]
            nearest[rows[nearer]], sizes[rows[nearer]] = found[nearer], size[nearer]
            if early_stop:
                rows = rows[sizes[rows] > self.eps]
        allowed = sizes <= (torch.inf if self.eps is None else self.eps)
        return torch.where((allowed & sizes.isfinite()).view(-1, 1, 1, 1), nearest, images)

    def _walk(
        self,
        victim: Victim,
        images: Tensor,
        labels: Tensor,
        targets: Tensor,
        keys: Tensor,
        sizes: Tensor,
        early_stop: bool,
    ) -> tuple[Tensor, Tensor]:
        """The nearest adversarial images found on the way to one target each, and their distances [N]."""
        measure, shape = NORMS[self.norm].size, images.shape[1:]
        nearest, best = images.clone(), sizes.clone()
        rows = torch.arange(len(images), device=images.device)
        points = images
        for _ in range(self.steps):
            _, gap, gradient = victim.gradient(points, labels, _towards(targets), keys)
            w = gradient.flatten(1)
            # the boundary, were the network linear: <w, z> = <w, point> - gap
            offsets = (w * points.flatten(1)).sum(1) - gap
            both = torch.cat([points, images]).flatten(1)
            change = project(both, w.repeat(2, 1), offsets.repeat(2), self.norm)
            near, far = change.view(2, len(points), *shape)
            own, from_image = (measure(d).clamp(min=1e-8).view(-1, 1, 1, 1) for d in (near, far))
            alpha = (own / (own + from_image)).clamp(max=self.alpha_max)
            points = (points + self.eta * near) * (1 - alpha) + (images + self.eta * far) * alpha
            points = points.clamp(0, 1)
            across = victim.fallen(points, victim.guess(points), labels)
            if not across.any():
                continue
            size = measure(points - images)
            nearer = across & (size < best[rows])
            nearest[rows[nearer]], best[rows[nearer]] = points[nearer], size[nearer]
            back = images + self.beta * (points - images)
            points = torch.where(across.view(-1, 1, 1, 1), back, points)
            if early_stop:
                stand = (best[rows] > self.eps).nonzero()[:, 0]
                if len(stand) < len(rows):
                    rows, points, images = rows[stand], points[stand], images[stand]
                    labels, targets, keys = labels[stand], targets[stand], keys[stand]
                    if not len(rows):
                        break
        return nearest, best


def _towards(targets: Tensor) -> Loss:
    """z_target - z_label: 0 on the boundary between the two."""

    def gap(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]

    return gap
