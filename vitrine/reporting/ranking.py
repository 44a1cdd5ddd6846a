"""The numbers by which runs are told apart: a few, flat, of the whole run, however often it was resumed."""

from __future__ import annotations

import math
from pathlib import Path

from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.store import Store

# of the curves in metrics.csv: what is best of each
BEST = {"accuracy": max, "robust_accuracy": max, "loss": min, "ece": min}
_LAST = (*BEST, "robust_gap")
# of the analyses' scalars, at the last checkpoint that has them: whose, how the key starts, and how many of
# its parts stay; the mean is taken over the rest (layers, maps)
_MEANS = (
    ("examples", "dead_units", 1),
    ("localization", "pointing_game", 2),  # by mask
    ("localization", "energy_inside", 2),
    ("localization", "insertion", 1),
    ("localization", "deletion", 1),
    ("adversarial", "fooled", 1),
    ("robustness", "accuracy/robust", 2),  # under AutoAttack
)


def ranking(run_dir: str | Path) -> dict[str, float]:
    """What a run's folder says of it.

    Returns:
        "best/<metric>" and "last/<metric>" of validation (accuracy, robust_accuracy, loss, ece, robust_gap);
        "last/<score>" of the analyses, means over layers or maps ("dead_units", "pointing_game/<mask>", ...);
        "last/step"; "seconds/analyses", all that the analyses took. What was never measured is left out.
    """
    curves = {
        name.removeprefix("val/"): [value for _, value in points]
        for name, points in read_curves(run_dir).items()
        if name.startswith("val/")
    }
    told = {f"best/{name}": best(curves[name]) for name, best in BEST.items() if name in curves}
    told |= {f"last/{name}": curves[name][-1] for name in _LAST if name in curves}
    store = Store(run_dir)
    steps = store.steps()
    for analysis, start, parts in _MEANS:
        found: dict[str, list[float]] = {}
        for step in reversed(steps):
            for scalar in store.scalars(step, analysis):
                if f"{scalar.key}/".startswith(f"{start}/") and math.isfinite(scalar.value):
                    found.setdefault("/".join(scalar.key.split("/")[:parts]), []).append(scalar.value)
            if found:
                break
        told |= {f"last/{name}": sum(values) / len(values) for name, values in found.items()}
    if steps:
        told["last/step"] = steps[-1]
        spent = [r.seconds for step in steps for r in store.results(step).values()]
        told["seconds/analyses"] = round(sum(spent), 1)
    return told
