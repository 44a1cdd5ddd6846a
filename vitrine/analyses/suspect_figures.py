"""Of the whole training set, the images that matter most and those that may have a wrong label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from vitrine.analyses.base import Figure, File, Scalar, Subject, Table
from vitrine.analyses.sample_figures import class_name
from vitrine.analyses.sample_pictures import Tile, draw_rows
from vitrine.analyses.suspects import as_csv, auc, first_overall_and_of_each_class, ranks
from vitrine.analyses.training_pass import TrainingImages

ROWS = 2  # of a picture of the whole set
OF_CLASSES = 100  # rows of a table that classes share, beside the first of all
IN_FILE = 1000  # images of suspects.csv, the first by either ranking


@dataclass(frozen=True)
class SuspectFigures:
    """The figures of the training set at one checkpoint."""

    subject: Subject
    seen: TrainingImages
    sizes: Tensor  # [N], of the duals
    self_influence: Tensor  # [N]; NaN where it is not known
    shown: int  # images a row
    side: int  # of a tile, in pixels
    listed: int  # rows of a table

    def __call__(self) -> Iterator[Figure | File | Scalar]:
        seen = self.seen
        yield self._ranking(
            "most influential",
            "dual size",
            self.sizes,
            f"the training images that the refitted head leans on most, by their duals' size, {self._of}",
        )
        found = {"self-influence": self.self_influence, "loss": seen.losses}
        areas = {name: area for name, values in found.items() if (area := self._auc(values)) is not None}
        known = ""
        if areas:
            both = " and ".join(f"{area:.3f} by {name}" for name, area in areas.items())
            known = (
                f"; {int(self.mislabeled.sum()):,} labels are known to be wrong (red), found with AUC {both}"
            )
        yield self._ranking(
            "suspects by self-influence",
            "self-influence",
            self.self_influence,
            "the training images whose own loss would rise most without them, candidates for a wrong label, "
            f"{self._of}{self._unknown}{known}",
        )
        yield self._ranking(
            "suspects by loss",
            "loss",
            seen.losses,
            f"the training images with the largest loss, a plain control, {self._of}{known}",
        )
        for name, area in areas.items():
            yield Scalar(f"mislabels_auc/{name.replace('-', '_')}", area)
        yield File("suspects.csv", self._file())

    @cached_property
    def mislabeled(self) -> Tensor | None:
        """Which of the images have a label that is known to be wrong, bool [N]; None: unknown."""
        known = self.subject.train.mislabeled
        return None if known is None else known[self.seen.indices]

    @property
    def _of(self) -> str:
        count, every = len(self.seen), len(self.subject.train)
        note = f" ({self.subject.train_note})" if self.subject.train_note else ""
        if not self.seen.drawn:
            return f"of all {count:,}{note}"
        return f"of {count:,} of {every:,}, {self.seen.drawn}{note}"

    @property
    def _unknown(self) -> str:
        count = int((~self.self_influence.isnan()).sum())
        if count == len(self.seen):
            return ""
        return f"; computed of the {count:,} with the largest gradients, as the head is large"

    def _auc(self, values: Tensor) -> float | None:
        return None if self.mislabeled is None else auc(values, self.mislabeled)

    def _ranking(self, key: str, score: str, values: Tensor, text: str) -> Figure:
        """The images with the largest values [N], and a table of more of them."""
        places = ranks(values)
        best = places.argsort()[: ROWS * self.shown]
        best = best[~values[best].isnan()]
        rows = [(score, self._tiles(row.tolist(), values)) for row in best.split(self.shown)]
        return Figure(
            key=key,
            image=draw_rows(self.subject, rows, self.side, self.shown),
            caption=text,
            indices=self.seen.indices[best].tolist(),
            scores=values[best].tolist(),
            table=self._table(score, values, places),
        )

    def _tiles(self, places: Sequence[int], values: Tensor) -> list[Tile]:
        seen, tiles = self.seen, []
        for i in places:
            lines = [
                self._class(seen.labels[i]),
                f"says {self._class(seen.predicted[i])}",
                *([] if values is seen.losses else [f"{values[i]:.2g}"]),
                f"loss {seen.losses[i]:.2g}",
                f"#{int(seen.indices[i])}",
            ]
            wrong = self.mislabeled is not None and bool(self.mislabeled[i])
            tiles.append(Tile(int(seen.indices[i]), lines, highlighted=wrong))
        return tiles

    def _table(self, score: str, values: Tensor, places: Tensor) -> Table:
        """The first of all images by their places [N], and the first of each class.

        Args:
            values: the scores that give the places, [N].
        """
        seen = self.seen
        each = OF_CLASSES // max(1, len(self.subject.classes))
        rows = first_overall_and_of_each_class(places, seen.labels, self.listed, each)
        rows = rows[~values[rows].isnan()]
        columns = {
            "image": [self._name(i) for i in seen.indices[rows].tolist()],
            "label": [self._class(label) for label in seen.labels[rows]],
            "says": [self._class(label) for label in seen.predicted[rows]],
            "loss": seen.losses[rows].tolist(),
            score: values[rows].tolist(),
            "rank": places[rows].tolist(),
        }
        if self.mislabeled is not None:
            columns["known"] = ["wrong" if wrong else "" for wrong in self.mislabeled[rows].tolist()]
        return Table(columns, sort_by="rank", filter_by="label")

    def _file(self) -> str:
        """The first images by either ranking as CSV; those without a self-influence last, by loss."""
        seen, known = self.seen, ~self.self_influence.isnan()
        by_influence, by_loss = ranks(self.self_influence), ranks(seen.losses)
        rows = ((known & (by_influence <= IN_FILE)) | (by_loss <= IN_FILE)).nonzero()[:, 0]
        rows = rows[by_influence.where(known, len(seen) + by_loss)[rows].argsort()]
        indices = seen.indices[rows].tolist()
        columns = {
            "index": indices,
            "path": [self.subject.train.path(index) for index in indices],
            "label": [self._class(label) for label in seen.labels[rows]],
            "predicted": [self._class(label) for label in seen.predicted[rows]],
            "loss": [f"{loss:.6g}" for loss in seen.losses[rows].tolist()],
            "loss_rank": by_loss[rows].tolist(),
            "self_influence": [f"{self.self_influence[row]:.6g}" if known[row] else "" for row in rows],
            "self_influence_rank": [int(by_influence[row]) if known[row] else "" for row in rows],
        }
        if self.mislabeled is not None:
            columns["known_wrong"] = self.mislabeled[rows].int().tolist()
        return as_csv(columns)

    def _name(self, index: int) -> str:
        return self.subject.train.path(index) or str(index)

    def _class(self, label: int | Tensor) -> str:
        return class_name(self.subject, int(label))
