"""Which training images decide: for and against what the network says of a probe, and of the whole set."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses.base import Analysis, Figure, File, Scalar, State, Subject
from vitrine.analyses.head import LinearHead, NoLinearHead, head_of
from vitrine.analyses.head_influence import self_influence
from vitrine.analyses.representers import evenness, share_of_top
from vitrine.analyses.sample_figures import ProbeFigures
from vitrine.analyses.sample_scores import (
    Refit,
    SampleScores,
    score_gradients,
    score_samples,
    see_probes,
)
from vitrine.analyses.suspect_figures import SuspectFigures
from vitrine.analyses.tracin import Sums, added
from vitrine.analyses.training_pass import TrainingImages, read_training
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.settings import setting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples(Analysis):
    """For each probe the training images that speak for the class that the network says, and against it: by
    their duals, by what leaving them out would do, by TracIn, and as a control the nearest ones. For the
    whole set the most influential images, and suspects for a wrong label, with suspects.csv.

    All of it is of the last linear layer and what it reads; a network without such a head yields nothing.
    Duals are those of a head refitted to what the network says (or to the labels, `targets`). Influence is
    that at a head refitted to the labels: what leaving out an image does is a question about its label, and
    where the targets are the network's own answers, no wrong label leaves a residual. Both have the penalty
    `penalty`, and start from the network's own head, which is nearer than that of the checkpoint before.

    One forward pass over the training images as they are, which ranks share, as they do all sums; memory as
    in `training_pass`, and with K classes, D features and P probes K (D + 1) (12 + 10 P) numbers of 8 bytes.

    Scalars: "refit_agreement", the share of training images of which the refitted head says the same as the
    network; "dual_share_of_top_1_percent"; "dual_entropy", as a share of the largest; and where wrong labels
    are known, "mislabels_auc/self_influence" and "mislabels_auc/loss".
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Training images",
        title="Training images",
        own_page=True,
        page_order=38,
        summaries=(Summary("refit_agreement"), Summary("mislabels_auc", parts=2)),
        budget_priority=60,
    )
    images: int | None = setting(
        50_000,
        "training images looked at; of more a stratified subset, drawn by the seed; null: all",
        least=2,
    )
    probes: int = setting(8, "probes shown, the first ones", least=1)
    shown: int = setting(8, "training images shown in a row", least=1)
    penalty: float = setting(1e-3, "L2 penalty of the refitted heads", above=0)
    targets: str = setting(
        "network",
        "what the duals' head is refitted to: what the network says, or the labels",
        choices=("network", "labels"),
    )
    product: str = setting(
        "dot",
        "of gradients, in TracIn: dot (Pruthi 2020), or cosine, which large gradients do not dominate",
        choices=("dot", "cosine"),
    )
    candidates: int = setting(
        16, "images with a self-influence where the head has more than 2,048 weights", least=1
    )
    listed: int = setting(100, "images in a table, beside the first of each class", least=1)
    side: int = setting(96, "side of a tile, in pixels", least=16)

    @property
    def needs_previous(self) -> bool:
        return True  # TracIn is a sum over checkpoints

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar | State | File]:
        head = self._head(subject)
        if isinstance(head, str):
            if subject.rank == 0:
                log.log(subject.log_level("samples"), "samples is left out: %s", head)
            yield File("left-out.txt", f"{head}\n")
            return
        seen = read_training(subject, head, self.images)
        probes = see_probes(subject, head, self.probes)
        refit = Refit(self.penalty, self.targets == "labels")
        scores = score_samples(head, seen, probes, refit, self.product == "cosine")
        sums = self._accumulate(subject, seen, scores.products)
        figures = ProbeFigures(
            subject,
            seen,
            probes,
            scores,
            sums if sums is not None and any(sums.rates) else None,
            self.product == "cosine",
            refit.on_labels,
            self.shown,
            self.side,
        )
        yield from subject.map_sharded(range(len(probes.labels)), figures)
        yield from self._of_set(subject, seen, scores)
        yield Scalar("refit_agreement", scores.agreement)
        yield Scalar("dual_share_of_top_1_percent", share_of_top(scores.sizes))
        yield Scalar("dual_entropy", evenness(scores.sizes))
        if sums is not None:
            yield State(sums.state())

    def _of_set(
        self, subject: Subject, seen: TrainingImages, scores: SampleScores
    ) -> Iterator[Figure | Scalar | File]:
        """What is seen of the training images by themselves."""
        own = seen.features.gather(self_influence(scores.curvature, self.candidates))
        if subject.rank == 0:  # what the others yield does not count
            yield from SuspectFigures(subject, seen, scores.sizes, own, self.shown, self.side, self.listed)()

    def _head(self, subject: Subject) -> LinearHead | str:
        """The network's head; or why there is nothing to show of this network and its data.

        Raises:
            ValueError: there is one class.
        """
        if subject.train is None or not len(subject.train):
            return f"there are no training images: {subject.train_note or 'the split is empty'}"
        try:
            head = head_of(subject)
        except NoLinearHead as error:
            return str(error)
        if len(head.weight) < 2:
            raise ValueError("the network has one class, and nothing to decide: expected at least two")
        return head

    def _accumulate(self, subject: Subject, seen: TrainingImages, products: Tensor) -> Sums | None:
        """TracIn up to this checkpoint; None where its learning rate is unknown."""
        if subject.learning_rate is None:
            if subject.rank == 0:
                text = "samples leaves out TracIn: the checkpoint does not say its learning rate"
                log.log(subject.log_level("samples"), text)
            return None
        probes = subject.probes.indices[: self.probes].tolist()
        of = [self.product == "cosine", len(subject.train), len(seen), subject.seed, *probes]
        before = subject.previous_state.get("samples", {})
        return added(products, subject.learning_rate, subject.step, torch.tensor(of), before)


@dataclass(frozen=True)
class ProbesAlone(Samples):
    """What is seen of probes, and nothing of the training images by themselves."""

    def _of_set(
        self, subject: Subject, seen: TrainingImages, scores: SampleScores
    ) -> Iterator[Figure | Scalar | File]:
        yield from ()


@dataclass(frozen=True)
class TracInAlone(Samples):
    """The sums of TracIn and nothing else, at checkpoints before the one whose figures are wanted."""

    def __call__(self, subject: Subject) -> Iterator[State]:
        head = self._head(subject)
        if isinstance(head, str):
            return
        seen, probes = read_training(subject, head, self.images), see_probes(subject, head, self.probes)
        products = score_gradients(head, seen, probes, self.product == "cosine")
        if (sums := self._accumulate(subject, seen, products)) is not None:
            yield State(sums.state())
