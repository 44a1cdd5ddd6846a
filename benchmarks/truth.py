"""What attribution maps are worth on one network: their scores against the effects of parts, with intervals.

    python -m benchmarks.truth CHECKPOINT [--images 48] [--rounds 3]

CHECKPOINT is one of a run on the embedded signs. The tables hold the sum of a map over a part, which is what
the analysis reports, against the mean; the seconds are those of the analysis at a first checkpoint, and at a
later one, which has the maps on random weights already. Wanted: at most 10 s on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from pathlib import Path

import torch

from benchmarks.ratio import hardware
from vitrine.analyses.attribution import planted_stickers
from vitrine.analyses.base import Analysis, Probes, State, Subject, as_float
from vitrine.analyses.localization import Localization
from vitrine.analyses.truth import Truth
from vitrine.analyses.truth_scores import Scores, score
from vitrine.datamodules.signs import Signs, SignsSettings
from vitrine.modules import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=48, help="scenes")
    parser.add_argument("--rounds", type=int, default=3, help="timings of the analysis; 0: none")
    options = parser.parse_args()

    data = Signs(SignsSettings(train_size=1, cache="never"))
    data.setup()
    network = load_checkpoint(options.checkpoint).eval().requires_grad_(False)
    images, labels = data.val.batch(torch.arange(8))
    probes = Probes(as_float(images), labels, torch.arange(8))
    subject = Subject(network, probes, data.val, data.classes, {})
    technique = Truth(images=options.images)

    planted = planted_stickers(subject)
    indices, measured, _ = technique.measure(planted)
    parts, class_parts = planted.dataset.parts, planted.dataset.class_parts
    chosen = [parts.index(name) for name in class_parts]
    print(f"{options.checkpoint}, {options.images} scenes, each with a sticker")
    print("\n| part | scenes | left out | replaced by another class's |\n|---|---:|---:|---:|")
    for p, name in enumerate(parts):
        has = measured.present[:, p]
        other = f"{measured.replaced[has, chosen.index(p)].mean():.2f}" if p in chosen else ""
        print(f"| {name} | {int(has.sum())} | {measured.effects[0][has, p].mean():.2f} | {other} |")
    areas = torch.stack(list(planted.dataset.part_masks(indices).values()), 1).sum((2, 3)).clamp_min(1)
    means = {name: own / areas for name, own in measured.attributions.items()}
    for title, of in (("sum", measured), ("mean", dataclasses.replace(measured, attributions=means))):
        print(f"\nThe attribution of a part is the {title} over its pixels:\n")
        print(table(score(of, chosen, subject.seed, technique.samples), deletion=title == "sum"))
    if options.rounds:
        print(f"\n{hardware('cpu')}; {options.rounds} rounds\n")
        print("| | seconds, median | least | most | of processors, median |\n|---|---:|---:|---:|---:|")
        for name, spent in seconds(subject, technique, options.rounds).items():
            wall, cpu = zip(*spent)
            cells = [statistics.median(wall), min(wall), max(wall), statistics.median(cpu)]
            print(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")


def seconds(subject: Subject, technique: Truth, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds by the clock and of processors, as in a run: after `localization`, whose maps are shared."""
    spent: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, analysis: Analysis, subject: Subject) -> list[object]:
        begun = time.perf_counter(), time.process_time()
        out = list(analysis(subject))
        spent.setdefault(name, []).append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        return out

    for _ in range(rounds):
        first = dataclasses.replace(subject, cache={})
        timed("localization, for comparison", Localization(), first)
        out = timed("a first checkpoint", technique, first)
        (state,) = (one.tensors for one in out if isinstance(one, State))
        later = dataclasses.replace(subject, cache={}, previous_state={"truth": state})
        for _ in Localization()(later):
            pass
        timed("a later checkpoint", technique, later)
        timed("a first checkpoint, alone", technique, dataclasses.replace(subject, cache={}))
    return spent


def table(scores: dict[str, Scores], deletion: bool) -> str:
    """A row a map, its controls below; bold where it is clear of them. Deletion is of the order by sums."""
    shown = {key: of for key, of in scores.items() if deletion or key != "deletion"}
    lines = [
        f"| map | {' | '.join(of.kind.title for of in shown.values())} |",
        "|---|" + "---|" * len(shown),
    ]
    for name in next(iter(shown.values())).intervals:
        cells = []
        for of in shown.values():
            mean, low, high = of.intervals[name]
            cell = f"{mean:.2f} ({low:.2f} to {high:.2f})"
            cells.append(f"**{cell}**" if name in of.clear else cell)
        lines.append(f"| {name.replace('_', ' ').replace('/', ': ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
