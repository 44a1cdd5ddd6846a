"""Textures that fool a network from all sides, beside the same attack on one view (Athalye 2018).

    python train.py configs/objects.yaml run.name=objects
    python train.py configs/objects-robust.yaml run.name=objects-robust
    python -m benchmarks.objects runs/objects runs/objects-robust [--budgets 32 64 128] [--views-from printed]

Six attacks, a shape each, from a class to the one three further on; counted on views that no attack has seen,
with the light of the data set, or over other ranges. Printed, for each network and budget: how many views are
seen as the target, as a mean over the attacks with its 95 % interval (Student's over the attacks, as views of
one object are not independent), and the least and the largest; the one-view control; the texture's distance
in CIELAB.

Claims: at 128/255 at least 80 % are seen as the target, and at most 10 % of the one-view control's.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks.ratio import hardware
from vitrine.analyses.adversarial_object import CLEAN, EOT, ONE_VIEW, attack_object, pattern_texture
from vitrine.attacks.lab import lab_distance
from vitrine.attacks.textures import TextureAttack
from vitrine.cli.network import find_network
from vitrine.datamodules.object_images import VIEWS
from vitrine.objects import shapes
from vitrine.objects.textures import CLASSES
from vitrine.objects.views import ViewDistribution

DISTRIBUTIONS = {
    "as trained": VIEWS,
    "simulated": ViewDistribution().without_colour(),
    "printed": ViewDistribution(),  # Athalye's ranges for an object that is printed and filmed
}
STUDENT = 2.571  # the 97.5 % quantile of Student's t for six shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of runs of data.name=objects, or checkpoints")
    parser.add_argument("--size", type=int, default=48, help="pixels a side, as in training")
    parser.add_argument("--views", type=int, default=200, help="held out, each attack")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--draws", type=int, default=12, help="views a step")
    parser.add_argument("--budgets", type=float, nargs="+", default=[32, 64, 128], help="of 255, Linf")
    parser.add_argument("--views-from", choices=list(DISTRIBUTIONS), default="as trained")
    options = parser.parse_args()

    print(f"{options.steps} steps of {options.draws} views; {hardware('cpu')}")
    print("| network | budget | all views | one view | as it is | right as it is | CIELAB | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for run in options.runs:
        for budget in options.budgets:
            measure(run, budget, options)


def measure(run: str, budget: float, options: argparse.Namespace) -> None:
    """Attack the six objects within a budget, and print what became of them as a row."""
    source, started = find_network([run], "cpu"), time.process_time()
    shares, away, right = {CLEAN: [], ONE_VIEW: [], EOT: []}, [], []
    for number, shape in enumerate(shapes.SHAPES):
        texture, target = pattern_texture(CLASSES[number], seed=100 + number), (number + 3) % len(CLASSES)
        attack = TextureAttack(
            eps=budget / 255,
            steps=options.steps,
            draws=options.draws,
            views=DISTRIBUTIONS[options.views_from],
        )
        attacked = attack_object(
            source.network, shapes.make(shape), texture, target, attack, options.size, options.views
        )
        for row, share in attacked.shares.items():
            shares[row].append(100 * share[target].item())
        right.append(100 * attacked.shares[CLEAN][number].item())
        away.append(lab_distance(attacked.textures[EOT], texture).item())
    cells = [spread(values) for values in (shares[EOT], shares[ONE_VIEW], shares[CLEAN], right)]
    seconds = time.process_time() - started
    row = [source.name, f"{budget:g}/255", *cells, f"{statistics.mean(away):.1f}", f"{seconds:.0f}"]
    print(f"| {' | '.join(row)} |", flush=True)


def spread(values: list[float]) -> str:
    """The mean with its 95 % interval, within 0 and 100, and the least and the largest, in percent."""
    mean = statistics.mean(values)
    margin = STUDENT * statistics.stdev(values) / len(values) ** 0.5
    low, high = max(0.0, mean - margin), min(100.0, mean + margin)
    return f"{mean:.1f} % [{low:.0f}, {high:.0f}] ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
