"""Wrong labels planted among the training images, to see whether they are found."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import fold_in, hash_seed, make_key, permutation, uniform
from vitrine.core.settings import SettingError


def draw_mislabels(labels: Tensor, share: float, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """The labels with a share of them replaced by another class, all others equally likely (symmetric noise).

    Args:
        labels: int64 [N].
        share: of the images, in [0, 1]; rounded to whole images.
        classes: how many there are, at least two.

    Returns:
        The labels, int64 [N], and which were replaced, bool [N].
    """
    key = make_key(seed, hash_seed(b"mislabeled"))  # apart from what any source draws by the seed
    chosen = permutation(len(labels), key)[: round(share * len(labels))]
    mislabeled = torch.zeros(len(labels), dtype=torch.bool)
    mislabeled[chosen] = True
    chance = uniform(fold_in(torch.tensor(key), torch.arange(len(labels))), 1)[:, 0]
    shift = 1 + (chance.double() * (classes - 1)).long()  # 1 ... classes - 1: never the label itself
    return torch.where(mislabeled, (labels + shift) % classes, labels), mislabeled


def mislabel(split: ImageDataset, share: float, classes: int, seed: int) -> None:
    """Give a share of a split's images a wrong label, for all who read the split, and record which.

    Raises:
        SettingError: the share is less than one image, or there is no other class; or the split has labels of
            its own beside `labels`, so that only some readers would see the wrong ones.
    """
    key = "data.mislabeled"
    if classes < 2:
        raise SettingError(key, f"is {share:g}, but there is no other class to give; expected 0")
    labels, mislabeled = draw_mislabels(split.labels, share, classes, seed)
    if not mislabeled.any():
        least = f"expected 0, or {1 / max(len(labels), 1):.2g} for one image"
        raise SettingError(key, f"is {share:g}, which is none of {len(labels):,} training images; {least}")
    split.labels, split.mislabeled = labels, mislabeled
    first = mislabeled.nonzero()[:1, 0]
    if not torch.equal(split.batch(first)[1], labels[first]):
        problem = f"is {share:g}, but {type(split).__name__} reads labels elsewhere than in its `labels`"
        raise SettingError(key, f"{problem}; expected 0")
