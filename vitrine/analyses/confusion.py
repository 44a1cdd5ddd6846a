"""Which classes the network takes for which: the confusion matrix, and a table of all classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vitrine.analyses.base import Analysis, Figure, Scalar, Subject, Table
from vitrine.analyses.lettering import printable
from vitrine.analyses.plots import render_plot
from vitrine.analyses.predictions import dataset_predictions
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.settings import setting

_LETTERS = 22  # of a class name at an axis
_COUNTED = 16  # classes up to which cells hold their count
_CELLS = 640  # a side of a matrix that is drawn; of more the largest in each block


@in_eager_eval_mode
def confusion_matrix(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> Tensor:
    """How many images of each class (row) the network takes for each class (column).

    Args:
        batches: images, float [N, C, H, W] in [0, 1], and labels, int64 [N].

    Returns:
        int64 [classes, classes].
    """
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    with torch.no_grad():
        for images, labels in batches:
            matrix += count_pairs(labels, network(images).argmax(1), classes)
    return matrix


def count_pairs(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """How many images have each label (row) and predicted class (column): int64 [classes, classes]."""
    pairs = (labels * classes + predicted).cpu()
    return pairs.bincount(minlength=classes * classes).view(classes, classes)


def confusion_order(matrix: Tensor) -> list[int]:
    """The classes in an order in which those that are taken for each other stand together (average linkage of
    the share of mistakes between two classes)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    shares = matrix.double() / matrix.sum(1, keepdim=True).clamp_min(1)
    near = (shares + shares.T).fill_diagonal_(0).numpy()
    if len(near) < 3 or not near.any():
        return list(range(len(near)))
    distances = near.max() - near
    np.fill_diagonal(distances, 0)
    return leaves_list(linkage(squareform(distances, checks=False), "average")).tolist()


@dataclass(frozen=True)
class Confusion(Analysis):
    """The confusion matrix of the data set; of many classes sorted, and of those that are confused most with
    their names; and a table of all classes."""

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Classes",
        title="Confusion",
        page_order=5,
        summaries=(Summary("worst_class_accuracy"),),
        budget_priority=75,
    )
    named: int = setting(30, "classes that are named at a matrix; of more, those with most mistakes", least=2)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        part = count_pairs(*dataset_predictions(subject), len(subject.classes))
        matrix = torch.stack(subject.all_gather(part)).sum(0)
        right, images = matrix.diagonal(), matrix.sum(1)
        recall = right / images  # NaN of a class without images
        wrong = int(images.sum() - right.sum())
        share = right.sum().item() / max(1, int(images.sum()))
        right_of = f"{share:.1%} of {int(images.sum())} images are right"
        table = _table(matrix, subject.classes)
        many = len(subject.classes) > self.named
        order = confusion_order(matrix) if many else list(range(len(subject.classes)))
        names = None if many else subject.classes
        sorted_by = ", and classes that are taken for each other stand together" if many else ""
        yield Figure(
            key="confusion",
            image=_draw(matrix[order][:, order], names),
            caption=f"{right_of} (blue); red are mistakes, as shares of their row{sorted_by}.",
            values={"accuracy": share, "mistakes": wrong},
            table=table,
        )
        if many:
            errors = matrix.sum(0) + images - 2 * right
            worst = errors.argsort(descending=True, stable=True)[: self.named]
            worst = [label for label in order if label in set(worst.tolist())]
            yield Figure(
                key="most confused",
                image=_draw(
                    matrix[worst][:, worst], [subject.classes[label] for label in worst], images[worst]
                ),
                caption=f"The {len(worst)} of {len(subject.classes)} classes with most mistakes, missed or "
                "taken for by others; their mistakes with other classes are not shown.",
            )
        if occurring := recall[images > 0].tolist():
            yield Scalar("worst_class_accuracy", min(occurring))


def _table(matrix: Tensor, classes: Sequence[str]) -> Table:
    """A row a class: its images, how many are recognised, how many of those said to be of it are, and what it
    is taken for most often."""
    images, said, right = matrix.sum(1).tolist(), matrix.sum(0).tolist(), matrix.diagonal().tolist()
    most, taken_for = (matrix - matrix.diagonal().diag()).max(1)
    rows = range(len(classes))
    return Table(
        {
            "class": [str(name) for name in classes],
            "images": images,
            "recall": [right[i] / images[i] if images[i] else None for i in rows],
            "precision": [right[i] / said[i] if said[i] else None for i in rows],
            "taken for": [str(classes[int(taken_for[i])]) if most[i] else "" for i in rows],
            "so often": most.tolist(),
        },
        sort_by="recall",
    )


def _draw(matrix: Tensor, names: Sequence[str] | None, images: Tensor | None = None) -> Tensor:
    """A confusion matrix as a picture: what is right in blue, mistakes in red.

    Args:
        names: of the classes, at both axes; None: too many to name.
        images: of each class; the sums of the rows unless given.
    """
    images = matrix.sum(1) if images is None else images
    shares = matrix.double() / images.clamp_min(1)[:, None]
    right = shares.diagonal().diag()
    wrong = shares - right
    count = len(matrix)
    if (block := math.ceil(count / _CELLS)) > 1:
        right, wrong = (
            torch.nn.functional.max_pool2d(part[None], block, ceil_mode=True)[0] for part in (right, wrong)
        )
    largest = wrong.max().item()

    def draw(axes: Any) -> None:
        from matplotlib import colormaps

        cells = colormaps["Blues"](right.numpy() * 0.75)[..., :3]
        mistakes = wrong.numpy()
        # the root of the share: one mistake in a hundred is to be seen
        red = colormaps["Reds"](np.sqrt(mistakes / largest) * 0.85 if largest else mistakes)[..., :3]
        axes.imshow(np.where((mistakes > 0)[..., None], red, cells), interpolation="nearest")
        axes.grid(False)
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_xlabel("the network says")
        axes.set_ylabel("true class")
        if names is None:
            axes.set_xticks([])
            axes.set_yticks([])
            return
        short = [_shortened(str(name)) for name in names]
        size = 9 if count <= _COUNTED else 7
        axes.set_xticks(range(count), short, rotation=90, size=size, parse_math=False)
        axes.set_yticks(range(count), short, size=size, parse_math=False)
        if count <= _COUNTED:
            for row, column in matrix.nonzero().tolist():
                dark = shares[row, column] > 0.5 if row == column else wrong[row, column] > 0.4 * largest
                colour = "white" if dark else "#333333"
                axes.text(
                    column, row, int(matrix[row, column]), ha="center", va="center", size=8, color=colour
                )

    side = 640 if names is None else min(900, 260 + max(24 * count, 240))
    return render_plot(draw, side, side)


def _shortened(name: str) -> str:
    """A name in one line, with its middle left out if it is long."""
    name = printable(name) or "?"
    half = (_LETTERS - 1) // 2
    return name if len(name) <= _LETTERS else f"{name[:half]}…{name[-half:]}"
