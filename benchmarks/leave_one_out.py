"""How well scores foretell what leaving out one training image does to the head, beside heads refitted
without it.

    python train.py run.name=NAME analysis.mode=off
    python -m benchmarks.leave_one_out runs/NAME [--left-out 100]

The head of the run's last checkpoint is refitted to the labels of all training images, and then without
each of so many of them, drawn at random, to the point where the gradient vanishes. For each of 48
validation images the scores of the images left out are held against the change of its loss: Spearman's
correlation over the images left out, averaged over the validation images. The intervals are those of the
bootstrap over validation images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.lds import correlations, interval
from benchmarks.ratio import hardware
from benchmarks.scores import PENALTY, read_head
from vitrine import load_checkpoint
from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, leave_one_out
from vitrine.analyses.tracin import cosines, gradient_products
from vitrine.assembly.parts import build_data
from vitrine.config import load

PROBES = 48


def stationary(problem: HeadProblem, start: Tensor) -> Tensor:
    """The refitted head [K, D]; a last step by the whole matrix of second derivatives leaves no more than
    rounding, which the change by one image in thousands has to stand out from."""
    weight = fit_head(problem, start)
    return weight - Curvature.at(problem, weight).solve(problem.evaluate(weight)[1][None])[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--left-out", type=int, default=100)
    how = parser.parse_args()

    begun = time.monotonic()
    data = build_data(load([str(how.run / "config.yaml")]))
    train, classes = data.train, len(data.classes)
    network = load_checkpoint(max(Path(how.run, "checkpoints").glob("step=*.ckpt")))
    own, features = read_head(network, train)
    probes = read_head(network, data.val, PROBES)[1][:]
    labels = data.val.labels[:PROBES]

    def losses(weight: Tensor) -> Tensor:
        return F.cross_entropy(probes @ weight.T, labels, reduction="none")

    count = len(train)
    problem = HeadProblem(features, label_targets(train.labels, classes), PENALTY)
    weight = stationary(problem, own)
    errors = F.one_hot(labels, classes) - (probes @ weight.T).softmax(1)
    own_errors = F.one_hot(labels, classes) - (probes @ own.T).softmax(1)
    scores = {
        "head influence": leave_one_out(Curvature.at(problem, weight), probes, errors),
        "duals": (errors @ problem.duals(slice(None), features[:], weight).T) * (probes @ features[:].T),
        "TracIn, last layer, one checkpoint": gradient_products(
            features, problem.targets, own, probes, own_errors, cosine=False
        ),
        "nearest by features, of its class": cosines(features, probes) * (labels[:, None] == train.labels),
    }
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: how.left_out]
    before, changes = losses(weight), []
    for left_out in chosen.tolist():
        rest = torch.arange(count) != left_out
        without = Features(features.values[rest], bias=features.bias)
        targets = label_targets(train.labels[rest], classes)
        # so that the sum of losses loses one term, and no other and not the penalty changes its weight
        penalty = PENALTY * count / (count - 1)
        changes.append(losses(stationary(HeadProblem(without, targets, penalty), weight)) - before)
    actual = torch.stack(changes)

    accuracy = (probes @ weight.T).argmax(1).eq(labels).double().mean().item()
    print(
        f"{len(chosen)} of {count:,} images left out, {PROBES} validation images, {accuracy:.0%} recognised; "
        f"{time.monotonic() - begun:.0f} s; {hardware()}"
    )
    print("\n| | Spearman | 95 % | least of a validation image |\n|---|---:|---:|---:|")
    for name, values in scores.items():
        found = correlations(values[:, chosen].T, actual)
        low, high = interval(found)
        print(f"| {name} | {found.mean():.3f} | {low:.3f} to {high:.3f} | {found.min():.3f} |")
    predicted = scores["head influence"][:, chosen].T
    ratio = (predicted * actual).sum() / predicted.square().sum()
    print(f"\nChange of the loss per predicted change: {ratio:.3f}")


if __name__ == "__main__":
    main()
