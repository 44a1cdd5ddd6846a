"""Network Dissection: how well the places where a unit is highest agree with what masks show (Bau 2017)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.analyses.hooks import output_hooks
from vitrine.analyses.layout import layouts
from vitrine.analyses.paint import upsample
from vitrine.core.network_scopes import in_eager_eval_mode

TOP = 0.005  # of a unit's activations, those that count as active
DETECTS = 0.04  # the IoU above which a unit is called a detector
CHUNK = 2**22  # pixels of maps that are upsampled at once


@in_eager_eval_mode
def visit_maps(
    network: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    visit: Callable[[str, Tensor], None],
    head: str | None = None,
) -> Tensor | None:
    """Call `visit(layer, maps)` with the maps [B, units, h, w] of images, layer by layer as they come; they
    are overwritten later.

    Args:
        head: the linear layer that reads one vector an image, if that is wanted.

    Returns:
        What the head reads, [B, D]; None without.

    Raises:
        UnknownName, ValueError: as `layouts`.
    """
    layout, read = layouts(network, images, layers), []

    def on_output(layer: str, output: Tensor) -> None:
        visit(layer, layout[layer].maps(output).float())

    with contextlib.ExitStack() as scopes:
        if head is not None:
            module = network.get_submodule(head)
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs: read.append((*args, *kwargs.values())[0].flatten(1)), with_kwargs=True
            )
            scopes.callback(handle.remove)
        scopes.enter_context(torch.no_grad())
        scopes.enter_context(output_hooks(network, layers, on_output, stop=head is None))
        network(images)
    return read[-1].float() if read else None


class RunningTail:
    """The largest activations of every unit of a layer, over space and images, of a stream of maps.

    Args:
        images: how many there are in all streams that are merged.
    """

    def __init__(self, images: int):
        self.images, self.count = images, 0
        self.values: Tensor | None = None  # [units, up to count], the count-th highest is the threshold

    def update(self, maps: Tensor) -> None:
        """Take in maps [B, units, h, w]; NaN counts as the lowest."""
        self.count = int(TOP * self.images * maps.shape[-2:].numel()) + 1
        self._keep(
            maps.transpose(0, 1).flatten(1).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        )

    def _keep(self, values: Tensor) -> None:
        if self.values is not None:
            values = torch.cat([self.values, values], 1)
        self.values = values.topk(min(self.count, values.shape[1]), sorted=False).values

    def thresholds(self, all_gather: Callable[[Tensor], list[Tensor]]) -> Tensor:
        """Of each unit the activation above which at most the share `TOP` lies, [units]; a collective."""
        parts = [part for part in all_gather((self.count, self.values)) if part[1] is not None]
        self.count, values = max(count for count, _ in parts), [part for _, part in parts]
        self.values = None
        for part in values:
            self._keep(part)
        return self.values.amin(1)


def active(maps: Tensor, thresholds: Tensor, size: Sequence[int]) -> Tensor:
    """Where maps [units, h, w], upsampled bilinearly to `size`, lie above their thresholds: bool."""
    return upsample(maps, size) > thresholds[:, None, None]


@dataclass
class Overlaps:
    """Pixels over a data set: of units' active places, and of both units and parts."""

    units: Tensor  # float64, [units]
    shared: Tensor  # float64, [units, parts, classes], in images of each class

    @classmethod
    def none(cls, units: int, parts: int, classes: int) -> Overlaps:
        return cls(
            torch.zeros(units, dtype=torch.float64), torch.zeros(units, parts, classes, dtype=torch.float64)
        )

    def add(self, maps: Tensor, thresholds: Tensor, masks: Tensor, labels: Tensor) -> None:
        """Count in a batch of images.

        Args:
            maps: [B, units, h, w].
            thresholds: [units].
            masks: bool, [B, parts, H, W].
            labels: int64, [B].
        """
        size, flat = (
            masks.shape[-2:],
            F.pad(masks.flatten(2).to(maps), (0, 0, 1, 0), value=1),
        )  # first all pixels
        # bilinear maps are nowhere higher than at the points of their grid
        peaks = (maps.amax((2, 3)) > thresholds).cpu()
        for image, label in enumerate(labels.tolist()):
            units = torch.nonzero(peaks[image]).flatten()
            for own in units.split(max(1, CHUNK // size.numel())):
                on = active(maps[image, own], thresholds[own], size).flatten(1).to(flat)
                counts = (on @ flat[image].T).double().cpu()  # exact: of one image, below 2^24
                self.units[own] += counts[:, 0]
                self.shared[own, :, label] += counts[:, 1:]

    def iou(self, areas: Tensor) -> Tensor:
        """The intersection over union of units and concepts, [units, parts, 1 + classes]: of the part in all
        images, then of the part in those of each class; 0 where there is neither.

        Args:
            areas: pixels of the parts in images of each class, [parts, classes].
        """
        shared = torch.cat([self.shared.sum(2, keepdim=True), self.shared], 2)
        areas = torch.cat([areas.sum(1, keepdim=True), areas], 1)
        union = self.units[:, None, None] + areas - shared
        return (shared / union.clamp_min(1)).float()


def mask_areas(masks: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Pixels of parts in images of each class, float64 [parts, classes].

    Args:
        masks: bool, [N, parts, H, W]; labels: int64, [N].
    """
    areas = torch.zeros(masks.shape[1], classes, dtype=torch.float64)
    return areas.index_add_(1, labels, masks.sum((2, 3)).T.double())


def monosemanticity(activations: Tensor, embeddings: Tensor) -> Tensor:
    """How alike the images are that excite a unit, [units]: the mean cosine of the embeddings of all pairs of
    images, weighted by the product of the unit's activations, which are scaled to [0, 1] (Pach 2025).

    In linear time, as the sum over pairs is half of what the square of the sum has beside the squares. NaN of
    a unit that is excited by fewer than two images.

    Args:
        activations: [units, N], the largest of each image.
        embeddings: [N, D].
    """
    a, e = activations.double(), F.normalize(embeddings.double(), dim=1)
    a = a - a.amin(1, keepdim=True)
    a = a / a.amax(1, keepdim=True).clamp_min(torch.finfo(a.dtype).tiny)
    squares = a.square() @ e.square().sum(1)
    pairs = a.sum(1).square() - a.square().sum(1)
    alike = ((a @ e).square().sum(1) - squares) / pairs.where(pairs > 1e-9, torch.nan)
    return alike.float()


def likeness(embeddings: Tensor) -> float:
    """The mean cosine of all pairs of embeddings [N, D], what `monosemanticity` is to be seen against."""
    e = F.normalize(embeddings.double(), dim=1)
    count = len(e)
    return ((e.sum(0).square().sum() - e.square().sum()) / (count * (count - 1))).item()
