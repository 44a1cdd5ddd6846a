"""Which labelled images are trained on, which are validated on, and which are held out as a test set."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vitrine.core.class_ranks import ranks_in_class
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError, setting

log = logging.getLogger(__name__)

Parts = tuple[Tensor, Tensor, Tensor]  # indices for training, validation and test, each ascending


@dataclass
class SplitSettings:
    """How images are divided where they do not come in splits."""

    val_fraction: float = setting(
        0.1, "fraction held out for validation where there is none (no val/); 1: all", above=0, most=1
    )
    test_fraction: float = setting(
        0.0, "fraction held out as a test set where there is none (no test/)", least=0, most=0.9
    )
    val_from: str = setting(
        "train",
        "where there is no val/: validate on images held out of train/; or on test/, and have no test set",
        choices=("train", "test"),
        before="test",
    )
    stratify: bool = setting(
        True, "hold out the same fraction of every class; false: of all images together", before=False
    )
    split_seed: int = setting(0, "seed of the images held out; not the run's, so that runs can be compared")


def divide(
    labels: Mapping[str, Tensor], classes: Sequence[str], settings: Any, place: str
) -> dict[str, tuple[str, Tensor]]:
    """The splits of a source: for each, from which split that was found, and which of its images it has.

    Args:
        labels: of the splits that were found: "train", and perhaps "val" and "test"; int64 [N] each.
        classes: class names.
        settings: as SplitSettings.
        place: where the images are, for messages.

    Returns:
        "train", "val" and, where there is one, "test": the name of the split found, and indices into it.

    Raises:
        SettingError: the fractions do not fit the images.
    """
    found = {name: (name, torch.arange(len(own))) for name, own in labels.items()}
    if "val" not in found and "test" in found and settings.val_from == "test":
        found["val"] = found.pop("test")
    if "test" in found and settings.test_fraction:
        problem = f"is {settings.test_fraction:g}, but {place} has a test split already, expected 0"
        raise SettingError("data.test_fraction", problem)
    fractions = (0.0 if "val" in found else settings.val_fraction), settings.test_fraction
    if any(fractions):
        unsplit = "val" not in found and "test" in found
        train, *held_out = hold_out(
            labels["train"], *fractions, settings.split_seed, classes, settings.stratify, place
        )
        found["train"] = "train", train
        for name, fraction, indices in zip(("val", "test"), fractions, held_out):
            if fraction:
                found[name] = "train", indices
        if unsplit:
            count = f"{len(held_out[0]):,} of {len(labels['train']):,} training images are held out for it"
            problem = f"{place} has a test split, but none for validation: {count}"
            log.warning("%s; data.val_from=test validates on the test split", problem)
    parts = {name: labels[of][indices] for name, (of, indices) in found.items()}
    occurring = set().union(*(part.tolist() for part in parts.values()))
    for name, kind in (("train", "training"), ("val", "validation"), ("test", "test")):
        missing = occurring.difference(parts[name].tolist()) if name in parts else set()
        if settings.stratify and found.get(name, ("",))[0] == "train":  # `hold_out` says those of one image
            missing -= set((labels["train"].bincount() == 1).nonzero().flatten().tolist())
        if missing and len(parts[name]):
            names = _of([classes[label] for label in sorted(missing)], classes)
            log.warning("%s: there are no %s images of %s", place, kind, names)
    return found


def refuse_other_splits(settings: Any, trained: Any) -> None:
    """Raise SettingError if these settings of a source divide its images otherwise than those that a run was
    trained with: what they hold out it may have been trained on."""
    for name in ("test_fraction", "val_fraction", "val_from", "stratify", "split_seed"):
        now, before = (getattr(of, name, None) for of in (settings, trained))
        if now != before:
            problem = f"is {now}, and was {before} in training, which has read what this would hold out"
            raise SettingError(f"data.{name}", f"{problem}; leave it out")


def hold_out(
    labels: Tensor,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    classes: Sequence[str],
    stratify: bool = True,
    place: str = "the data set",
) -> Parts:
    """The images that remain for training, and those held out at random for validation and as a test set.

    Stratified, each class gives its share, but at least one image, and at least one remains for training: a
    class of one image stays there, which a warning says (unless all are). The images of validation do not
    depend on the `test_fraction`.

    Args:
        labels: int64 [N].
        place: where the images are, for messages.

    Raises:
        SettingError: the fractions leave nothing to train on.
    """
    count, shuffled = len(labels), permutation(len(labels), seed)
    if val_fraction == 1 and not test_fraction:
        return shuffled[:0], shuffled.sort().values, shuffled[:0]
    if val_fraction + test_fraction >= 1:
        problem = f"is {test_fraction:g} beside data.val_fraction={val_fraction:g}, which leaves no training"
        raise SettingError("data.test_fraction", f"{problem}, expected less than 1 together")
    fractions = val_fraction, test_fraction
    sizes = labels.bincount(minlength=len(classes))
    if stratify and not (sizes > 1).any():
        log.warning("%s: each class has one image; those held out are of classes not trained on", place)
        stratify = False
    if stratify:
        if single := [classes[label] for label in (sizes == 1).nonzero().flatten().tolist()]:
            log.warning("%s: of %s there is one image, which stays in training", place, _of(single, classes))
        of_val = _shares(sizes, val_fraction, sizes - 1)
        of_test = _shares(sizes, test_fraction, sizes - 1 - of_val)
        rank = ranks_in_class(labels, shuffled)
        of_val, of_test = of_val[labels], of_test[labels]
    else:
        of_val, of_test = (max(1, round(count * share)) if share else 0 for share in fractions)
        rank = shuffled.argsort()
    val = rank < of_val
    test = ~val & (rank < of_val + of_test)
    return tuple(part.nonzero().flatten() for part in (~val & ~test, val, test))


def _shares(sizes: Tensor, fraction: float, most: Tensor) -> Tensor:
    """How many images of each class make up a fraction of all: one or more, `most` at most, and together the
    fraction of all where these allow it (largest remainders)."""
    most = most.clamp(min=0)
    if not fraction:
        return torch.zeros_like(sizes)
    quota = sizes.double() * fraction
    shares = torch.minimum(quota.long().clamp(min=1), most)
    lacking = round(int(sizes.sum()) * fraction) - int(shares.sum())
    remainder = torch.where(shares < most, quota - shares, -torch.inf)
    more = remainder.argsort(descending=True, stable=True)[: max(lacking, 0)]
    shares[more] += (shares < most)[more].long()
    return shares


def _of(names: Sequence[str], classes: Sequence[str]) -> str:
    """How many of the classes these are, and the first five of them."""
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names):,} of {len(classes):,} classes ({', '.join(names[:5])}{more})"
