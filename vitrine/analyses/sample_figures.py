"""Of each probe the training images that speak for and against it, by several scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from vitrine.analyses.base import Figure, Subject
from vitrine.analyses.sample_pictures import Tile, draw_rows
from vitrine.analyses.sample_scores import SampleScores, SeenProbes
from vitrine.analyses.tracin import Sums
from vitrine.analyses.training_pass import TrainingImages

AGREES = 0.995  # share of images below which a refitted head's disagreement is a caution


@dataclass(frozen=True)
class ProbeFigures:
    """The figures of the probes of one checkpoint: a row of images for the class and one against it, largest
    score first."""

    subject: Subject
    seen: TrainingImages
    probes: SeenProbes
    scores: SampleScores
    tracin: Sums | None  # None: the learning rate is unknown, or was 0 so far
    cosine: bool  # of TracIn
    on_labels: bool  # the duals' head is refitted to the labels
    shown: int  # images a row
    side: int  # of a tile, in pixels

    def __call__(self, numbers: Sequence[int]) -> Iterator[Figure]:
        """Those of some probes, one for each score."""
        for number in numbers:
            yield self._of_duals(number)
            yield self._of_influence(number)
            if self.tracin is not None:
                yield self._of_tracin(number, self.tracin)
            yield self._of_nearest(number)

    def _of_duals(self, number: int) -> Figure:
        values, of = self.scores.duals[number], self._class(self.probes.predicted[number])
        added, taken = values.clamp_min(0).sum().item(), values.clamp_max(0).sum().item()
        to = "the labels" if self.on_labels else "what the network says"
        text = (
            f"the training images that add most to the logit of {of}, and that take most from it; all of "
            f"them add {added:.3g} and take {-taken:.3g}, the logit is {added + taken:.3g}. By the duals of "
            f"the head refitted to {to}, which {self._agreement(self.scores.agreement)}"
        )
        numbers = {"logit": added + taken, "added": added, "taken": taken}
        return self._figure(number, "duals", values, (f"for {of}", "against it"), text, numbers)

    def _of_influence(self, number: int) -> Figure:
        of = self._class(self.probes.predicted[number])
        text = (
            f"the training images without which the loss of {of} would rise most, and fall most: by the "
            "influence of leaving one out on the head refitted to the labels (Koh 2017), which "
            f"{self._agreement(self.scores.label_agreement)}"
        )
        return self._figure(
            number, "influence", self.scores.influence[number], (f"for {of}", "against it"), text
        )

    def _of_tracin(self, number: int, sums: Sums) -> Figure:
        of = self._class(self.probes.targets[number])
        kind = "cosines" if self.cosine else "dot products, in which large gradients count most"
        first, last = sums.steps[0], sums.steps[-1]
        over = (
            f"the {len(sums.steps)} checkpoints from step {first} to {last}"
            if first < last
            else f"step {last}"
        )
        text = (
            f"the training images whose steps lowered the loss of {of} most, and raised it most: TracIn of "
            f"the last layer (Pruthi 2020), {kind}, times the learning rate, over {over}"
        )
        return self._figure(number, "tracin", sums.values[number], (f"for {of}", "against it"), text)

    def _of_nearest(self, number: int) -> Figure:
        text = (
            "the training images whose features are nearest, by the cosine of what the head reads; a "
            "control, which knows nothing of labels and losses"
        )
        return self._figure(number, "nearest", self.scores.nearest[number], ("nearest",), text)

    def _figure(
        self,
        number: int,
        key: str,
        values: Tensor,
        titles: Sequence[str],
        text: str,
        numbers: dict[str, float] | None = None,
    ) -> Figure:
        """One figure of a probe.

        Args:
            values: [N], of the training images.
            titles: of the row of the largest positive values, and of that of the largest negative ones.
        """
        subject, predicted = self.subject, int(self.probes.predicted[number])
        share = self.probes.probabilities[number, predicted].item()
        order = values.argsort(descending=True, stable=True)
        ends = (order[: self.shown], order.flip(0)[: self.shown])
        chosen = [[i for i in end.tolist() if sign * values[i] > 0] for end, sign in zip(ends, (1, -1))]
        chosen = chosen[: len(titles)]
        rows = [
            (title, [self._tile(i, values[i].item(), predicted) for i in row])
            for title, row in zip(titles, chosen)
        ]
        label = int(self.probes.labels[number])
        said = f"{self._class(predicted)} {share:.0%}"
        true = f"{self._class(label)}, " if label >= 0 and label != predicted else ""
        first = (
            subject.probes.images[number],
            (f"image {number}", f"says {self._class(predicted)}", f"{share:.0%}"),
        )
        places = [i for row in chosen for i in row]
        return Figure(
            key=f"probe-{number:03d}/{key}",
            image=draw_rows(subject, rows, self.side, self.shown, first),
            caption=f"image {number} ({true}says {said}): {text}",
            probe=number,
            label=label if label >= 0 else None,
            values=numbers or {},
            indices=self.seen.indices[places].tolist(),
            scores=values[places].tolist(),
        )

    def _tile(self, i: int, score: float, predicted: int) -> Tile:
        seen, label = self.seen, int(self.seen.labels[i])
        lines = (self._class(label), f"{score:+.2g}", f"loss {seen.losses[i]:.2g}")
        return Tile(int(seen.indices[i]), lines, highlighted=label != predicted)

    def _class(self, label: int | Tensor) -> str:
        return class_name(self.subject, int(label))

    def _agreement(self, share: float) -> str:
        caution = "" if share >= AGREES else "; CAUTION, it is another head than the network's"
        return f"says the same as the network of {share:.1%} of {len(self.seen):,} training images{caution}"


def class_name(subject: Subject, label: int) -> str:
    """The name of a class; its number where the network has more than there are names."""
    return str(subject.classes[label]) if label < len(subject.classes) else f"class {label}"
