"""Linear datamodeling scores: how well scores of training images foretell networks trained on half of them.

    python -m benchmarks.lds [--subsets 100] [--again 50] [--networks 5] [--keep FILE]

A small convnet (63,000 parameters, 32 pixels a side, crops, 30 epochs) is trained on 1,024 signs; each
technique scores its training images for 48 validation images. Then it is trained anew on random halves,
stratified by class, and the sum of the scores of a half is held against the margin, log p / (1 - p) of the
true class, that the network trained on it has: Spearman's correlation over the halves for each validation
image, averaged over these (Park 2023). 0: the scores know nothing. What a second training on the same
halves, from another seed, foretells of the first is printed beside: as that is off by its own seed, too,
scores that knew the mean over all seeds would reach about its square root, and nothing can do better.

"Same class", a score of 1 for the training images of the true class and else 0, is the control that scores
of classifiers have to beat on any random subsets. On stratified halves its sum is the same for all, which
leaves the controls that choose within a class: the nearest, by the network's features or by pixels.

Intervals: 95 %, from the bootstrap over validation images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from scipy.stats import rankdata
from torch import Tensor

from benchmarks import retraining
from benchmarks.ratio import hardware
from benchmarks.scores import Scored, control_scores, gradient_scores, head_scores
from vitrine.core.bootstrap import bootstrap
from vitrine.core.image_dataset import ImageDataset

SIZE, PROBES = 1024, 48
DRAWS = 10_000
CONTROL = "nearest by features, of its class"


def outcomes(split: ImageDataset, probes: ImageDataset, seeds: range, first: int, say: Callable) -> Tensor:
    """The margins of the probes, [S, m], by networks trained on the halves drawn by `seeds`."""
    images, rows = retraining.as_pixels(probes), []
    for seed in seeds:
        chosen = retraining.stratified_half(split.labels, seed)
        network = retraining.train(split, chosen, first + seed).network
        with torch.no_grad():
            rows.append(retraining.margins(network(images), probes.labels))
        say(f"half {seed + 1} of {len(seeds)}")
    return torch.stack(rows)


def correlations(predicted: Tensor, actual: Tensor) -> Tensor:
    """Spearman's correlation over the rows of each column, [m]; NaN where one does not vary."""
    ranks = [torch.from_numpy(rankdata(of.double().numpy(), axis=0)) for of in (predicted, actual)]
    a, b = (rank - rank.mean(0) for rank in ranks)
    return (a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()


def interval(values: Tensor) -> tuple[float, float]:
    """The bootstrap's 95 % interval of the mean of [m]."""
    _, low, high = bootstrap(values, seed=0, samples=DRAWS)
    return low.item(), high.item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subsets", type=int, default=100, help="halves that are trained on")
    parser.add_argument("--again", type=int, default=50, help="of them, from another seed as well")
    parser.add_argument("--networks", type=int, default=5, help="trained on all images, to be scored")
    parser.add_argument("--keep", type=Path, help="file of the margins: written, or read if it is there")
    how = parser.parse_args()

    begun = time.monotonic()
    split, probes = retraining.signs(SIZE, seed=1), retraining.signs(PROBES, seed=2)
    if how.keep and how.keep.exists():
        kept = torch.load(how.keep, weights_only=True)
    else:
        trained = partial(outcomes, split, probes, say=partial(print, end="\r", flush=True))
        kept = {
            "outcomes": trained(range(how.subsets), 1000),
            "again": trained(range(min(how.again, how.subsets)), 2000),
        }
        if how.keep:
            torch.save(kept, how.keep)
    actual, again = kept["outcomes"], kept["again"]
    masks = torch.zeros(len(actual), SIZE, dtype=torch.float64)
    for seed, mask in enumerate(masks):
        mask[retraining.stratified_half(split.labels, seed)] = 1

    found: dict[str, list[Tensor]] = {}  # of each network, the scores [m, N]
    for seed in range(how.networks):
        network = retraining.train(split, torch.arange(SIZE), 3000 + seed, keep=True)
        scored = Scored(network, split, probes)
        for technique in (control_scores, head_scores, gradient_scores):
            for name, scores in technique(scored).items():
                found.setdefault(name, []).append(scores)

    of_probes = {
        name: torch.stack([correlations(masks @ scores.T, actual) for scores in several])
        for name, several in found.items()
    }
    together = {
        name: correlations(masks @ torch.stack(several).mean(0).T, actual).mean()
        for name, several in found.items()
    }
    control = of_probes[CONTROL].mean(0)
    right = [(of > 0).double().mean().item() for of in (actual, again)]
    print(f"{hardware()}; {time.monotonic() - begun:.0f} s")
    print(
        f"{len(actual)} halves of {SIZE} images, {PROBES} validation images, {how.networks} networks scored; "
        f"p > 1/2 of the true class in {statistics.mean(right):.0%} of all outcomes"
    )
    print(f"\n| | one network | 95 % | networks | beyond {CONTROL} | mean of {how.networks} |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, values in of_probes.items():
        mean = values.mean(0)
        if mean.isnan().any():
            print(f"| {name} | constant | | | | |")
            continue
        each = values.mean(1)
        low, high = interval(mean)
        below, above = interval(mean - control)
        beyond = "" if name == CONTROL else f"{below:+.3f} to {above:+.3f}"
        spread = f"{each.min():.3f} to {each.max():.3f}"
        print(
            f"| {name} | {mean.mean():.3f} | {low:.3f} to {high:.3f} | {spread} | {beyond} "
            f"| {together[name]:.3f} |"
        )
    if len(again) > 2:
        ceiling = correlations(again, actual[: len(again)])
        low, high = interval(ceiling)
        print(
            f"| (a second training on the same halves) | {ceiling.mean():.3f} "
            f"| {low:.3f} to {high:.3f} | | | |"
        )


if __name__ == "__main__":
    main()
