"""The numbers that rank runs: a few, flat, of the whole run, however often it was resumed."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from vitrine.analyses import traits_of
from vitrine.analyses.traits import Summary
from vitrine.runs import held_out
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.stamps import stamp
from vitrine.runs.store import Store

# of the curves in metrics.csv: what is best of each
BEST = {"accuracy": max, "robust_accuracy": max, "macro_f1": max, "loss": min, "ece": min}
_LAST = (*BEST, "robust_gap")


def ranking(run_dir: str | Path) -> dict[str, float]:
    """The summary of a run's folder.

    Returns:
        "best/<metric>" and "last/<metric>" of validation (accuracy, robust_accuracy, macro_f1, loss,
        ece, robust_gap);
        "last/<summary>" of the analyses, see `Traits.summaries` ("dead_units", "pointing_game/<mask>", ...),
        at the last checkpoint that has it; "last/step"; "seconds/analyses", the sum over all analyses;
        "test/<metric>" and "test/step" of the test split. What was never measured is left out.
    """
    curves = {
        name.removeprefix("val/"): [value for _, value in points]
        for name, points in read_curves(run_dir).items()
        if name.startswith("val/")
    }
    store = Store(run_dir)
    numbers: dict[str, float] = {}
    for _, means in _summaries(store):
        numbers |= means
    numbers |= {f"best/{name}": best(curves[name]) for name, best in BEST.items() if name in curves}
    numbers |= {f"last/{name}": curves[name][-1] for name in _LAST if name in curves}
    if tested := held_out.read(run_dir):
        metrics = tested[-1]["metrics"] | {"test/step": tested[-1]["step"]}
        numbers |= {name: value for name, value in metrics.items() if value is not None}
    if steps := store.steps():
        numbers["last/step"] = steps[-1]
        seconds = sum(result.seconds for step in steps for result in store.results(step).values())
        numbers["seconds/analyses"] = round(seconds, 1)
    return numbers


def headlines(run_dir: str | Path) -> list[str]:
    """The keys of `ranking` that are headlines (`Summary.headline`), in the order of the page."""
    return [key for summary, means in _summaries(Store(run_dir)) if summary.headline for key in means]


def _summaries(store: Store) -> Iterator[tuple[Summary, dict[str, float]]]:
    """Each summary of the techniques that ran, with its means."""
    steps = store.steps()
    names = dict.fromkeys(name for step in steps for name in store.results(step))
    for name in sorted(names, key=lambda name: traits_of(name).page_order):
        for summary in traits_of(name).summaries:
            yield summary, _means(store, steps, name, summary)


def _means(store: Store, steps: Sequence[int], name: str, summary: Summary) -> dict[str, float]:
    """The means of a summary's scalars at the last step that has any."""
    for step in reversed(steps):
        folder = store.step_folder(step)
        files = folder / "complete.json", folder / name / "scalars.json"
        if found := _means_at(folder.parent.parent, step, name, summary, tuple(map(stamp, files))):
            return dict(found)
    return {}


@lru_cache(maxsize=1 << 14)  # steps without such scalars would be read again at every one
def _means_at(run_dir: Path, step: int, name: str, summary: Summary, _: object) -> dict[str, float]:
    """The means at a step, whose files have these stamps."""
    found: dict[str, list[float]] = {}
    for scalar in Store(run_dir).scalars(step, name):
        if f"{scalar.key}/".startswith(f"{summary.key}/") and math.isfinite(scalar.value):
            found.setdefault("/".join(scalar.key.split("/")[: summary.parts]), []).append(scalar.value)
    return {f"last/{key}": sum(values) / len(values) for key, values in found.items()}
