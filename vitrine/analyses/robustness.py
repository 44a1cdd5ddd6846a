"""How robust the network is: AutoAttack, accuracy against eps, class by class, and whether to believe it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.robustness_figures import class_figure, eps_figure, health_figure
from vitrine.analyses.traits import Summary, Traits
from vitrine.attacks import PGD, AutoAttack, robustness_curve
from vitrine.attacks.evaluation import Evaluation, fingerprint
from vitrine.attacks.health import HealthReport, check_health
from vitrine.attacks.threat import eps_setting
from vitrine.core.random_numbers import permutation
from vitrine.core.settings import SettingError, setting

_AUTOCAST = {"float32": "32-true", "bfloat16": "bf16-mixed"}


@dataclass(frozen=True)
class Robustness(Analysis):
    """Robust accuracy on a seeded sample of the data set: AutoAttack, PGD over eps, and a health report.

    An interrupted run continues where it was: AutoAttack's state is saved after each batch, the curve and the
    health report when they are complete.

    Scalars: `accuracy/clean`, "accuracy/<part of AutoAttack>" (after it and those before it),
    `accuracy/robust`, "accuracy/pgd_at_<share>_eps", and `healthy` (1, or 0 where the health report has
    warnings).
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Robustness",
        page_order=80,
        summaries=(Summary("accuracy/robust", parts=2),),
        budget_priority=10,
    )
    enabled: bool = setting(False, "make these pictures at every checkpoint (minutes to hours each)")
    images: int = setting(256, "images of the data set that are attacked, a seeded draw", least=1)
    norm: str = setting("linf", "norm of the perturbation", choices=("linf", "l2"))
    eps: float = eps_setting(8 / 255, "largest perturbation, of [0, 1] pixels", above=0)
    version: str = setting(
        "standard",
        "of AutoAttack; rand is for networks that draw random numbers",
        choices=("standard", "rand"),
    )
    steps: int = setting(100, "AutoAttack: gradient steps a run", least=1)
    targets: int = setting(9, "AutoAttack: wrong classes tried", least=1)
    queries: int = setting(5000, "AutoAttack: forward passes of Square", least=1)
    batch_size: int = setting(128, "images attacked at once; progress is kept after each batch", least=1)
    fold: bool = setting(
        True, "AutoAttack: search with batch normalisation folded; successes are confirmed without"
    )
    precision: str = setting(
        "float32",
        "AutoAttack: of its search (successes are confirmed in float32); bfloat16 takes 0.5 to 0.8 of the "
        "time on processors that have it",
        choices=("float32", "bfloat16"),
    )
    curve: list[float] = setting([0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4], "the curve's budgets, in shares of eps")
    curve_steps: int = setting(20, "the curve: steps of PGD", least=1)
    health_queries: int = setting(500, "the health report: forward passes of Square", least=1)

    def __post_init__(self) -> None:
        if list(self.curve) != sorted(set(self.curve)) or any(share <= 0 for share in self.curve):
            raise SettingError("curve", f"is {list(self.curve)}, expected rising numbers above 0")

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        sample = permutation(len(subject.dataset), subject.seed)[: self.images]
        shard = subject.shard(len(sample))
        own = sample.sort().values[shard.start : shard.stop]
        parts = subject.all_gather(self._evaluate(subject, own) if shard else None)
        evaluation, robust, report, labels = _merge([part for part in parts if part is not None])
        for part, accuracy in evaluation.report().items():
            yield Scalar(f"accuracy/{part}", accuracy)
        yield Scalar("accuracy/robust", evaluation.accuracy)
        for share, robust_at_share in zip(self.curve, robust[1:]):
            yield Scalar(f"accuracy/pgd_at_{share:g}_eps", robust_at_share.float().mean().item())
        yield Scalar("healthy", float(report.healthy))
        budget = {"norm": self.norm, "eps": self.eps}
        yield eps_figure(
            dict(zip(self._budgets, robust)),
            evaluation,
            report,
            **budget,
            steps=self.curve_steps,
            precision=self.precision,
            classes=len(subject.classes),
        )
        yield class_figure(subject.classes, labels, evaluation, **budget)
        yield health_figure(report, evaluation, self.health_queries)

    def _evaluate(self, subject: Subject, indices: Tensor) -> _Outcome:
        images, labels = subject.images(indices)
        evaluation = self._run_autoattack(subject, images, labels)
        broken_by = evaluation.broken_by.cpu()
        outcome = dataclasses.replace(evaluation, adversarial=images[:0], broken_by=broken_by)
        robust = self._curve(subject, images, labels)
        return outcome, robust, self._health(subject, images, labels), labels.cpu()

    @property
    def _budgets(self) -> list[float]:
        return [0.0, *(share * self.eps for share in self.curve)]

    def _run_autoattack(self, subject: Subject, images: Tensor, labels: Tensor) -> Evaluation:
        attack = AutoAttack(
            norm=self.norm,
            eps=self.eps,
            version=self.version,
            steps=self.steps,
            targets=self.targets,
            queries=self.queries,
            batch_size=self.batch_size,
            seed=subject.seed,
            fold=self.fold,
            precision=_AUTOCAST[self.precision],
        )
        # all that the outcome depends on but the weights: scratch belongs to these weights
        key = f"{fingerprint(images, labels)} {dataclasses.replace(attack, batch_size=1)}"
        state = subject.scratch.load(key)
        run = attack.run(subject.network, images, labels, state=state)
        for evaluation in subject.progress(run, "AutoAttack", None):
            subject.scratch.save(key, evaluation.state_dict(pixels=False))
        return evaluation

    def _curve(self, subject: Subject, images: Tensor, labels: Tensor) -> Tensor:
        """Which images are robust at an eps of 0 and of each share, bool [1 + shares, N]."""
        attack = PGD(norm=self.norm, eps=self.eps, steps=self.curve_steps, seed=subject.seed)
        # in Linf a budget of 1 is every image there is, and attacks take none beyond
        budgets = [min(eps, 1.0) if self.norm == "linf" else eps for eps in self._budgets]

        def compute() -> dict[str, Any]:
            parts = []
            for batch in self._batches(subject, "accuracy against eps", images, labels):
                curve = robustness_curve(attack, subject.network, *batch, sorted(set(budgets)))
                robust = {point.eps: point.robust for point in curve}
                parts.append(torch.stack([robust[eps] for eps in budgets]))
            return {"standing": torch.cat(parts, 1).cpu()}

        key = f"{fingerprint(images, labels)} {attack} {self._budgets}"
        return _cached(subject, key, compute)["standing"]

    def _health(self, subject: Subject, images: Tensor, labels: Tensor) -> HealthReport:
        budget = {"norm": self.norm, "eps": self.eps, "queries": self.health_queries, "seed": subject.seed}

        def compute() -> dict[str, Any]:
            batches = self._batches(subject, "health", images, labels)
            parts = [check_health(subject.network, *batch, **budget) for batch in batches]
            return dataclasses.asdict(mean_report(parts))

        return HealthReport(**_cached(subject, f"{fingerprint(images, labels)} health {budget}", compute))

    def _batches(
        self, subject: Subject, description: str, images: Tensor, labels: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = list(zip(images.split(self.batch_size), labels.split(self.batch_size)))
        return subject.progress(pairs, description, len(pairs))


_Outcome = tuple[Evaluation, Tensor, HealthReport, Tensor]
"""AutoAttack on some images (without them), which are robust at each eps, health, and labels."""


def _merge(parts: Sequence[_Outcome]) -> _Outcome:
    """The outcome on all images from those of the shards."""
    evaluations, robust, reports, labels = zip(*parts)
    broken_by = torch.cat([evaluation.broken_by for evaluation in evaluations])
    evaluation = dataclasses.replace(evaluations[0], broken_by=broken_by)
    return evaluation, torch.cat(robust, 1), mean_report(reports), torch.cat(labels)


def mean_report(parts: Sequence[HealthReport]) -> HealthReport:
    """The health report of all batches' images: every number is a mean over images."""
    count = sum(part.images for part in parts)

    def mean(values: Sequence[float]) -> float:
        return sum(value * part.images for value, part in zip(values, parts)) / count

    names = [f.name for f in dataclasses.fields(HealthReport) if f.name not in ("images", "losses")]
    shares = {name: mean([getattr(part, name) for part in parts]) for name in names}
    losses = [mean(at_step) for at_step in zip(*(part.losses for part in parts))]
    return HealthReport(count, losses=losses, **shares)


def _cached(subject: Subject, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The state that an earlier run of this analysis saved; else computed, and saved."""
    state = subject.scratch.load(key)
    if state is None:
        state = compute()
        subject.scratch.save(key, state)
    return state
