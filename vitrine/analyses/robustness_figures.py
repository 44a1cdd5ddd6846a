"""Figures of a robustness evaluation: accuracy against eps, by class, and the health report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vitrine.analyses.base import Figure
from vitrine.analyses.plots import COLOURS, bars, percent, render_plot, wilson_interval
from vitrine.analyses.threat_model import format_budget
from vitrine.attacks.evaluation import Evaluation
from vitrine.attacks.health import HealthReport

MAX_CLASSES = 24  # in a figure


def eps_figure(
    robust: Mapping[float, Tensor],
    evaluation: Evaluation,
    report: HealthReport,
    *,
    norm: str,
    eps: float,
    steps: int,
    precision: str,
    classes: int,
) -> Figure:
    """PGD's accuracy over eps with its 95 % interval, AutoAttack's at its eps, and chance.

    Args:
        robust: by eps, rising from 0: which images are robust to PGD of so many `steps`, bool [N].
        evaluation, norm, eps, precision: AutoAttack's; the last is said where it is not float32.
        report: its verdict goes into the caption.
        classes: their number.
    """
    count = len(evaluation.broken_by)
    accuracies = {budget: right.float().mean().item() for budget, right in robust.items()}
    unit = 255 if norm == "linf" else 1
    budgets = [budget * unit for budget in accuracies]
    bounds = [percent(b) for b in zip(*(wilson_interval(a * count, count) for a in accuracies.values()))]

    def draw(axes: Any) -> None:
        axes.fill_between(budgets, *bounds, color=COLOURS["pgd"], alpha=0.15, linewidth=0)
        pgd = {"color": COLOURS["pgd"], "markersize": 4, "label": f"PGD-{steps}, with its 95 % interval"}
        axes.plot(budgets, percent(accuracies.values()), "o-", **pgd, clip_on=False)
        autoattack = {"color": COLOURS["robust"], "label": "AutoAttack", "zorder": 5}
        axes.plot(eps * unit, 100 * evaluation.accuracy, "D", **autoattack, clip_on=False)
        axes.axhline(100 / classes, color="#888888", linestyle=":", linewidth=1, label="chance")
        axes.set_xlim(0, budgets[-1])
        axes.set_xticks(budgets, [f"{budget:.3g}" for budget in budgets])
        axes.set_ylim(0, 100)
        unit_name = "Linf, 1/255 of the pixel range" if unit == 255 else "L2, pixels in [0, 1]"
        axes.set_xlabel(f"eps ({unit_name})")
        axes.set_ylabel(f"accuracy (% of {count} images)")
        axes.legend(loc="upper right")

    after = evaluation.report()
    parts = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in after.items() if name != "clean")
    searched = "" if precision == "float32" else f", searched in {precision},"
    missing = f"; left out for want of classes: {', '.join(evaluation.skipped)}" if evaluation.skipped else ""
    return Figure(
        key="accuracy against eps",
        image=render_plot(draw),
        caption=f"{after['clean']:.1%} of {count} images are right, {evaluation.accuracy:.1%} stand "
        f"AutoAttack at {format_budget(norm, eps)}{searched} (after {parts}{missing}). {verdict(report)}",
        values={
            **{f"autoattack/{name}": accuracy for name, accuracy in after.items()},
            "autoattack": evaluation.accuracy,
            **{f"pgd/{format_budget(norm, budget)}": accuracy for budget, accuracy in accuracies.items()},
        },
    )


def class_figure(
    classes: Sequence[str], labels: Tensor, evaluation: Evaluation, *, norm: str, eps: float
) -> Figure:
    """Each class's clean accuracy and accuracy under AutoAttack; of many classes the least robust ones."""
    labels, broken_by = labels.cpu(), evaluation.broken_by.cpu()
    shares = {}
    for index in labels.unique().tolist():
        outcomes = broken_by[labels == index]
        clean, robust = (outcomes != 0).float().mean().item(), (outcomes < 0).float().mean().item()
        shares[index] = {"clean": clean, "robust": robust, "images": len(outcomes)}
    weakest = sorted(shares, key=lambda index: (shares[index]["robust"], shares[index]["clean"]))
    shown = sorted(weakest[:MAX_CLASSES])
    cut = f"the {MAX_CLASSES} weakest of {len(shares)} classes"
    which = cut if len(shares) > MAX_CLASSES else "each class"
    names = {"as they are": "clean", "under AutoAttack": "robust"}
    return Figure(
        key="accuracy by class",
        image=bars(
            {
                f"{classes[i]} ({shares[i]['images']})": {k: 100 * shares[i][v] for k, v in names.items()}
                for i in shown
            },
            {name: COLOURS[side] for name, side in names.items()},
            "accuracy (%)",
            105,
        ),
        caption=f"Accuracy of {which} as the images are and under AutoAttack at {format_budget(norm, eps)}; "
        f"in brackets: how many images. Weakest: {', '.join(classes[i] for i in weakest[:3])}.",
        values={
            f"{side}/{classes[i]}": share[side] for i, share in shares.items() for side in ("clean", "robust")
        },
    )


def health_figure(report: HealthReport, evaluation: Evaluation, queries: int) -> Figure:
    """Accuracy under each attack, weakest attack first: in a sound evaluation it only falls."""
    accuracies = {
        "as they are": report.clean,
        f"Square, {queries} queries": report.square,
        "PGD-10": report.pgd10,
        "PGD-50": report.pgd50,
        "AutoAttack": evaluation.accuracy,
        "any image allowed": report.unbounded,
    }
    listing = ", ".join(f"{name} {share:.1%}" for name, share in accuracies.items())
    return Figure(
        key="health",
        image=bars(
            {name: {"share": 100 * share} for name, share in accuracies.items()},
            {"share": COLOURS["pgd"]},
            f"accuracy (% of {report.images} images), strongest attack last",
            105,
        ),
        caption=f"{verdict(report)} Accuracy: {listing}. Zero gradients: {report.zero_gradients:.1%}. Loss "
        f"along PGD-50: from {report.losses[0]:.3g} to {report.losses[-1]:.3g}.",
        values={
            **accuracies,
            "zero gradients": report.zero_gradients,
            "only Square": report.only_square,
            "first loss": report.losses[0],
            "last loss": report.losses[-1],
            "warnings": len(report.warnings),
        },
    )


def verdict(report: HealthReport) -> str:
    """The warnings of the health report in a sentence."""
    if report.healthy:
        return "Health: nothing speaks against this evaluation."
    return f"Health: {'; '.join(report.warnings)}."
