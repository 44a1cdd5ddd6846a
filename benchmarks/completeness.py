"""Integrated gradients with chosen points beside Gauss's rule: points, completeness, and distance from many
points.

    python train.py analysis.mode=off run.name=plain && python -m benchmarks.completeness runs/plain
        [--probes 8] [--steps 16 50] [--exact 400]

Of the true and the predicted class of a run's probes, at its checkpoints: how many points a path had; by what
share of the score's rise from mid-grey the map's sum is off it; and how far the map is from one of so many
points that more would not change it, relative to that. Wanted of chosen points: sums off by no more than with
as many of Gauss's, and maps no farther, from fewer points.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.ratio import hardware
from vitrine import assembly, config, load_checkpoint
from vitrine.analyses.integrated_gradients import integrated_gradients
from vitrine.analyses.target_scores import true_and_predicted
from vitrine.examination.subject import make_subject
from vitrine.runs.checkpoint_files import checkpoint_files

TOLERANCE = 0.015  # of the score's rise


class Counter(nn.Module):
    """The network, and how many images have passed it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, images: Tensor) -> Tensor:
        self.count += len(images)
        return self.network(images)


def gauss(network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> Tensor:
    return integrated_gradients(network, images, targets, steps=steps)


def chosen(network: nn.Module, images: Tensor, targets: Tensor, steps: int) -> Tensor:
    return integrated_gradients(network, images, targets, steps=steps, tolerance=TOLERANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--probes", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[16, 50], help="points, at most")
    parser.add_argument("--exact", type=int, default=400, help="points that are taken for all there are")
    options = parser.parse_args()
    settings = config.load_saved(options.run, [])
    data = assembly.build_data(settings)
    ways = {f"Gauss, {n} points": (gauss, n) for n in (8, 12, *options.steps)}
    ways |= {f"chosen, of {n} at most": (chosen, n) for n in options.steps}
    points, off, far, seconds = (defaultdict(list) for _ in range(4))
    files = [file for _, file in checkpoint_files(options.run / "checkpoints")]
    for file in files:
        subject = make_subject(load_checkpoint(file), data, settings.analysis)
        network = Counter(subject.network)
        probes = subject.probes.images[: options.probes], subject.probes.labels[: options.probes]
        rows, targets, logits = true_and_predicted(network, *probes)
        images = probes[0][rows]
        with torch.no_grad():
            rise = (logits[rows] - network(torch.full_like(images[:1], 0.5))).gather(1, targets[:, None])[
                :, 0
            ]
        exact = gauss(network, images, targets, options.exact).flatten(1)
        for name, (way, steps) in ways.items():
            way(network, images, targets, steps)
            network.count, start = 0, time.perf_counter()
            found = way(network, images, targets, steps).flatten(1)
            seconds[name].append((time.perf_counter() - start) / len(images))
            points[name].append(network.count / len(images))
            off[name] += ((found.sum(1) - rise).abs() / rise.abs()).tolist()
            far[name] += ((found - exact).norm(dim=1) / exact.norm(dim=1)).tolist()
    print(f"{hardware()}; {len(files)} checkpoints of {options.run}, {len(off[name])} maps\n")
    print("| | points | ms a map | off by, median | mean | 90 % below | most | from exact: median | most |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in ways:
        of, away = torch.tensor(off[name]), torch.tensor(far[name])
        figures = of.median(), of.mean(), of.quantile(0.9), of.max(), away.median(), away.max()
        shares = " | ".join(f"{100 * figure:.2f} %" for figure in figures)
        took = 1000 * torch.tensor(seconds[name]).median()
        print(f"| {name} | {torch.tensor(points[name]).mean():.1f} | {took:.1f} | {shares} |")


if __name__ == "__main__":
    main()
