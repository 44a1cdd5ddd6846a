"""One pass over the training images: what the network's head reads of each, what it says, and the loss.

Memory, for N images, D features and a rank's share n of the images: 4 n D bytes up to N D = `FULL` numbers,
and 2 n D bytes (half precision, a scale for each image) beyond; in a memory-mapped scratch file once n D is
more than `IN_MEMORY` numbers. Beside it blocks of 32 MiB and, for each image, some numbers a probe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.analyses.base import Subject
from vitrine.analyses.head import LinearHead, head_inputs
from vitrine.analyses.head_features import Features, in_half_precision
from vitrine.core.class_ranks import ranks_in_class
from vitrine.core.image_dataset import ImageDataset

FULL = 2**26  # numbers of all ranks that are kept as float32: 256 MiB
IN_MEMORY = 2**30  # numbers of a rank that are kept in memory as float16: 2 GiB


@dataclass(frozen=True)
class TrainingImages:
    """The training images looked at, of all ranks; and the features of this rank's part of them."""

    indices: Tensor  # int64 [N], into the training split, ascending
    drawn: str  # how they were chosen; "": all of them
    labels: Tensor  # int64 [N]
    predicted: Tensor  # int64 [N]
    losses: Tensor  # float32 [N], the network's cross-entropy
    own: slice  # this rank's
    features: Features  # of this rank's

    def __len__(self) -> int:
        return len(self.indices)


def choose_images(split: ImageDataset, most: int | None, seed: int) -> tuple[Tensor, str]:
    """Indices of at most so many images of a split, ascending, drawn by the seed; and how, where they are not
    all: the same share of each class, or where labels are not known without reading all images, any."""
    if most is None or len(split) <= most:
        return torch.arange(len(split)), ""
    labels = split.listed_labels()
    if labels is not None:
        return stratified(labels, most, seed), "the same share of each class"
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(split), generator=generator)[:most].sort().values, "drawn at random"


def stratified(labels: Tensor, most: int, seed: int) -> Tensor:
    """Indices of so many of more images with labels [N], ascending: the same share of each class, drawn by
    the seed, and at least one image of each class as long as there is room."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # by class, and within a class as drawn
    counts, place = labels.bincount(), ranks_in_class(labels, order)[order]
    # the k-th image of a class comes when k shares of it are due; the first of each before all others
    due = (place + torch.rand(len(counts), generator=generator)[labels[order]]) / counts[labels[order]]
    due[place == 0] -= 1
    return order[due.argsort(stable=True)[:most]].sort().values


def read_training(subject: Subject, head: LinearHead, most: int | None) -> TrainingImages:
    """What the head reads of the training images, by all ranks together: one forward pass.

    Args:
        most: images, see `choose_images`; None: all.

    Raises:
        ValueError: features that are not finite; labels that the network has no class for; fewer images than
            classes.
    """
    classes, width = head.weight.shape
    chosen, drawn = choose_images(subject.train, most, subject.seed)
    if len(chosen) < classes:
        raise ValueError(f"{len(chosen)} training images are fewer than the {classes} classes of the network")
    own = subject.shard(len(chosen))
    values, scales = _storage(subject, len(chosen), len(own), width)
    labels, predicted = (torch.empty(len(own), dtype=torch.int64) for _ in range(2))
    losses = torch.empty(len(own))
    batches, end = subject.train_batches(part=chosen[own.start : own.stop]), 0
    for inputs, logits, said in head_inputs(subject.network, head, batches):
        part = slice(end, end := end + len(said))
        if not inputs.isfinite().all():
            raise ValueError("what the network's head reads of training images is not finite")
        if int(said.min()) < 0 or int(said.max()) >= classes:
            wrong = int(said.max() if int(said.max()) >= classes else said.min())
            raise ValueError(f"a training image has label {wrong}, and the network {classes} classes")
        if scales is None:
            values[part] = inputs.to(values.device)
        else:
            halves, scale = in_half_precision(inputs)
            values[part], scales[part] = halves.to(values.device), scale.to(scales.device)
        labels[part], predicted[part] = said.cpu(), logits.argmax(1).cpu()
        losses[part] = torch.nn.functional.cross_entropy(logits.float(), said, reduction="none").cpu()
    features = Features(
        values,
        scales,
        bias=head.bias is not None,
        device=subject.device,
        start=own.start,
        all_gather=subject.all_gather if subject.world_size > 1 else None,
    )
    gathered = (features.gather(column) for column in (labels, predicted, losses))
    return TrainingImages(chosen, drawn, *gathered, slice(own.start, own.stop), features)


def _storage(subject: Subject, count: int, own: int, width: int) -> tuple[Tensor, Tensor | None]:
    """Where the features of so many images, some of them this rank's `own`, are kept; and scales of rows if
    that is in half precision."""
    if count * width <= FULL:
        return torch.empty(own, width, device=subject.device), None
    scales = torch.empty(own)
    if _fits_on_gpu(subject.device, 2 * own * width):
        return torch.empty(own, width, dtype=torch.float16, device=subject.device), scales
    if own * width <= IN_MEMORY:
        return torch.empty(own, width, dtype=torch.float16), scales
    return subject.scratch.empty("features", (own, width), torch.float16), scales


def _fits_on_gpu(device: torch.device, size: int) -> bool:
    """Whether so many bytes are a quarter of the memory that is free on a GPU, or less."""
    return device.type == "cuda" and 4 * size <= torch.cuda.mem_get_info(device)[0]
