"""Whether a network takes the shortcut that was planted, whether the alarm says so, and which maps show it.

    python -m benchmarks.shortcut [--seeds 0 1 2 3 4] [--images 48] [--runs FOLDER] [key=value ...]

Trains configs/signs-shortcut.yaml and, as the control, configs/signs.yaml, once a seed, with the analysis
`shortcut` alone: each seed has its own images, network and batches. The effects of the sticker and of the
sign are those at the last checkpoint, as is the accuracy. There the maps of the analysis `truth` are taken of
scenes with a sticker: a map names the part of a scene on which most of it lies, and points at the sticker
where it names that more often than random, the centre, the edges, and itself on random weights do (95 %
intervals by bootstrap over scenes that lie apart).

Runs in --runs that are there are not trained again.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.ratio import hardware
from vitrine import assembly, load_checkpoint
from vitrine.analyses import ANALYSES
from vitrine.analyses.attribution import planted_stickers
from vitrine.analyses.part_scores import names_most_important
from vitrine.analyses.truth import Truth
from vitrine.analyses.truth_scores import Kind, Measured, Scores, on_random, score
from vitrine.config import load_saved
from vitrine.core.bootstrap import bootstrap
from vitrine.examination.subject import make_subject
from vitrine.runs.checkpoint_files import checkpoint_files
from vitrine.runs.metrics_csv import read_curves
from vitrine.runs.store import Store

RECIPES = ("signs-shortcut", "signs")
PART = "sticker"
NAMED = f"names the {PART}"


@dataclass(frozen=True)
class Found:
    """What was found of a run."""

    accuracy: float  # of validation
    scalars: Mapping[int, Mapping[str, float]]  # of `shortcut`, by step
    scores: Mapping[str, Scores]  # at the last checkpoint, `truth`'s and NAMED

    def last(self, metric: str) -> float:
        """A scalar at the last checkpoint."""
        return self.scalars[max(self.scalars)][metric]

    @property
    def alarms(self) -> list[int]:
        """The steps at which the alarm went off."""
        return [step for step, of in self.scalars.items() if of["alarm/shortcut"] > 0]


def train(recipe: str, seed: int, root: Path, settings: Sequence[str]) -> Path:
    """The run of a seed, with one analysis."""
    run = root / f"{recipe}-{seed}"
    if not run.exists():
        others = [f"analysis.{name}.enabled=false" for name in ANALYSES if name != "shortcut"]
        quiet = ["logging.wandb.mode=disabled", "trainer.enable_progress_bar=false"]
        place = [f"run.root={root}", f"run.name={run.name}", f"run.seed={seed}"]
        command = [sys.executable, "train.py", f"configs/{recipe}.yaml", *place, *quiet, *others, *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def examine(run: Path, images: int) -> Found:
    """The metrics of a run, and the scores of maps at its last checkpoint."""
    saved = load_saved(run, [])
    step, file = max(checkpoint_files(run / "checkpoints"))
    subject = make_subject(load_checkpoint(file), assembly.build_data(saved), saved.analysis, step)
    subject = planted_stickers(subject) or subject
    technique = Truth(images=images)
    _, measured, _ = technique.measure(subject)
    parts = subject.dataset.parts
    class_parts = [parts.index(name) for name in subject.dataset.class_parts]
    scores = score(measured, class_parts, subject.seed, technique.samples)
    named = name_part(measured, parts.index(PART), subject.seed, technique.samples)
    store = Store(run)
    scalars = {step: {of.key: of.value for of in store.scalars(step, "shortcut")} for step in store.steps()}
    accuracy = read_curves(run)["val/accuracy"][-1][1]
    return Found(accuracy, scalars, {**scores, NAMED: named})


def name_part(measured: Measured, part: int, seed: int, samples: int) -> Scores:
    """How often a map has its highest attribution on a part, of the scenes that have it."""
    only = torch.zeros_like(measured.present, dtype=torch.float)
    only[:, part] = 1
    values = {
        name: names_most_important(own[0], only, measured.present).where(measured.present[:, part], torch.nan)
        for name, own in measured.attributions.items()
    }
    bounds = bootstrap(torch.stack(list(values.values())), seed, samples)
    intervals = {name: (m, low, high) for name, m, low, high in zip(values, *(b.tolist() for b in bounds))}
    techniques = [name for name in values if on_random(name) in values]
    return Scores(Kind(NAMED, "how often most of a map lies on it"), values, intervals, techniques)


def cell(value: float, form: str) -> str:
    """A number for a table; NaN is empty."""
    return "" if math.isnan(value) else format(value, form).replace("%", " %")


def spread(values: Sequence[float], form: str) -> str:
    """Mean, least and most; empty where one is not known."""
    mean, least, most = (cell(of(values), form) for of in (statistics.mean, min, max))
    return f"{mean} ({least} to {most})" if mean else ""


def report_runs(found: Mapping[str, Mapping[int, Found]]) -> None:
    """Print a row a run, and one for the spread of each recipe."""
    columns = {
        f"fall of the logit without the {PART}": (lambda of: of.last(f"effect/{PART}"), ".2f"),
        "without the sign": (lambda of: of.last("effect/sign"), ".2f"),
        f"changed by another class's {PART}": (lambda of: of.last(f"flips/{PART}"), ".0%"),
        "sign": (lambda of: of.last("flips/sign"), ".0%"),
        "validation accuracy": (lambda of: of.accuracy, ".1%"),
        "alarm at checkpoints": (lambda of: len(of.alarms), ".3g"),
        "from step": (lambda of: min(of.alarms, default=math.nan), ".3g"),
        f"maps that point at the {PART}": (lambda of: len(of.scores[NAMED].clear), ".3g"),
    }
    print(f"\n| | {' | '.join(columns)} |\n|---|" + "---:|" * len(columns))
    for recipe, of_seeds in found.items():
        for seed, of in of_seeds.items():
            cells = [cell(value(of), form) for value, form in columns.values()]
            print(f"| {recipe}, seed {seed} | {' | '.join(cells)} |")
        cells = [spread(list(map(value, of_seeds.values())), form) for value, form in columns.values()]
        print(f"| **{recipe}** | {' | '.join(cells)} |")


def report_maps(recipe: str, of_seeds: Mapping[int, Found]) -> None:
    """Print how often each map names the part, and at how many seeds it is clear of its controls."""
    every = [found.scores for found in of_seeds.values()]
    shown = {NAMED: NAMED, "rank_correlation": "rank correlation", "most_important": "most important part"}
    print(f"\n**{recipe}**, {len(every)} seeds\n")
    print(f"| map | {NAMED} | clear of its controls, seeds: {' | '.join(shown.values())} |")
    print("|---|---:|" + "---:|" * len(shown))
    first = every[0][NAMED]
    for name in (*first.techniques, *first.ignorant):
        shares = spread([scores[NAMED].intervals[name][0] for scores in every], ".0%")
        clear = [sum(name in scores[key].clear for scores in every) for key in shown]
        cells = [f"{count}" if name in first.techniques else "" for count in clear]
        print(f"| {name.replace('_', ' ')} | {shares} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--images", type=int, default=48, help="scenes whose maps are taken")
    parser.add_argument("--runs", type=Path, help="folder of the runs; by default one that is deleted")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    how = parser.parse_intermixed_args()

    print(f"{len(how.seeds)} seeds, {how.images} scenes; {hardware()}")
    found: dict[str, dict[int, Found]] = {recipe: {} for recipe in RECIPES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in how.seeds:
            for recipe in RECIPES:
                run = train(recipe, seed, how.runs or Path(folder), how.settings)
                found[recipe][seed] = examine(run, how.images)
    report_runs(found)
    for recipe, of_seeds in found.items():
        report_maps(recipe, of_seeds)


if __name__ == "__main__":
    main()
