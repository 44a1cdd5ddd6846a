"""How many cars a mesh on the roof hides from a LiDAR detector, beside random meshes and benign loads.

    python -m vitrine lidar run.name=lidar
    python -m benchmarks.lidar runs/lidar [--overlap 0.5] [--thresholds 0.5 0.3] [--extents 1.2 1.2 0.5]

Meshes of 162 vertices within 0.7 x 0.7 x 0.5 m (--extents) are optimised on scenes of the validation split,
by gradients through soft rays and by an evolution strategy, and counted on held-out scenes: of the cars
that are found without a load (score >= threshold, IoU >= overlap), the share that is not found with it,
with 95 % intervals from 2,000 bootstrap draws of cars. Random meshes: the mean over several. The last row
is no mesh: of each car the cells of the box on the roof are flipped, one by one, as its score falls most.
Printed last: how many points more cars than random meshes each optimised one hides, and what the detector
goes by. Another detector is another RUN, such as one with grid.cell=0.5 grid.slices=6, or with
trainer.max_epochs=3 detector.width=8.

Claim looked for (Tu et al. 2020): at least 30 points more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.ratio import hardware
from vitrine.cli.hide import find_checkpoint, read_detector
from vitrine.core.bootstrap import bootstrap
from vitrine.lidar.boxes import contains, from_above
from vitrine.lidar.detector import Detector
from vitrine.lidar.grid import hard_occupancy
from vitrine.lidar.hiding import car_scores, ellipsoid, find_targets, hidden, roof_box, score_among
from vitrine.lidar.mesh_attacks import GradientAttack, SearchAttack
from vitrine.lidar.network import places
from vitrine.lidar.roof_mesh import EXTENTS, from_roof, random_mesh, shape, sphere_mesh
from vitrine.lidar.roof_targets import RoofTarget, hard_views, returned

RANDOM = "random mesh"
FREE = "any cells of the box, each car its own"  # no mesh: by the score alone, whatever the IoU
RANGES = ((0, 15), (15, 25), (25, 100))  # metres
HEIGHTS = ((1.1, 10), (0.6, 1.1), (0.1, 0.6), (0.6, 10))  # metres above the ground


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", help="folder of a run of `vitrine lidar`, or a checkpoint")
    parser.add_argument("--train", type=int, default=96, help="cars to optimise on, each in its own scene")
    parser.add_argument("--held-out", type=int, default=150, help="cars to count")
    parser.add_argument("--random", type=int, default=3, help="random meshes")
    parser.add_argument("--steps", type=int, default=GradientAttack.steps)
    parser.add_argument("--generations", type=int, default=SearchAttack.generations)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="IoU from which on a detection is the car's"
    )
    parser.add_argument(
        "--extents",
        type=float,
        nargs=3,
        default=EXTENTS,
        help="metres along, across and up of the box that meshes fill or are within",
    )
    parser.add_argument("--save", type=Path, help="file for the meshes and scores")
    options = parser.parse_args()

    detector = read_detector(find_checkpoint(options.run))
    extents = tuple(options.extents)
    train = find_targets(detector, "val", options.train, extents=extents)
    held_out = find_targets(detector, "held_out", options.held_out, extents=extents)
    print(f"{options.run}; {len(train)} cars to optimise on, {len(held_out)} held out; {hardware('cpu')}")
    print(f"meshes within {' x '.join(f'{side:g}' for side in extents)} m")
    error = crop_error(detector, held_out[:8])
    print(
        f"best scores at cars in what attacks see and in whole scenes differ by {error:.2g} at most",
        flush=True,
    )
    clean = car_scores(detector, held_out, None, options.overlap)
    meshes: dict[str, list[Tensor]] = {}
    scores: dict[str, Tensor] = {}

    def count(name: str, some: list[Tensor]) -> None:
        meshes[name] = some
        scores[name] = torch.stack([car_scores(detector, held_out, one, options.overlap) for one in some])
        share = spread(hidden(clean, scores[name], options.thresholds[0]))
        print(f"{name}: {share} at {options.thresholds[0]}", flush=True)
        if options.save:
            torch.save({"meshes": meshes, "clean": clean, "scores": scores}, options.save)

    count("ellipsoid", [ellipsoid(extents)])
    count("rounded box", [roof_box(extents)])
    count(RANDOM, [random_mesh(seed, extents=extents) for seed in range(options.random)])
    search, gradient = SearchAttack(options.generations), GradientAttack(options.steps)
    searched = timed("search", lambda: search(detector, train))
    count("search", [shape(searched, extents)])
    count("gradient", [shape(timed("gradient", lambda: gradient(detector, train)), extents)])
    both = timed("search, then gradient", lambda: gradient(detector, train, searched))
    count("search, then gradient", [shape(both, extents)])
    scores[FREE] = torch.tensor([[free_cells(detector, target) for target in held_out]])
    for threshold in options.thresholds:
        print_table(held_out, clean, scores, threshold)
    print_heeded(detector, held_out, clean, options.overlap, options.thresholds[0])


@torch.no_grad()
def free_cells(detector: Detector, target: RoofTarget, flips: int = 8) -> float:
    """A car's best score (within 2 m) after cells of the box on its roof are flipped one by one, each time
    that which lowers it most: what no mesh need be able to do, and for this car alone."""
    along, across, up = (torch.linspace(0.02, 0.98, 9) * extent for extent in target.extents)
    box = torch.cartesian_prod(along - target.extents[0] / 2, across - target.extents[1] / 2, up)
    cells = target.grid.cells_of(from_roof(box, target.car) + target.shift).floor().long().unique(dim=0)
    cells = cells[cells[:, 0] < target.grid.slices]
    near = (places(target.grid) - target.truth[:2]).norm(dim=-1) < 2
    view = hard_occupancy(target.grid, returned(target, None, sphere_mesh()[1]) + target.shift)
    best = detector(view[None])[0][0][near].max()
    rows = torch.arange(len(cells))
    for _ in range(flips):
        views = view.repeat(len(cells), 1, 1, 1)
        views[rows, cells[:, 0], cells[:, 1], cells[:, 2]] = (
            1 - views[rows, cells[:, 0], cells[:, 1], cells[:, 2]]
        )
        lowest, which = detector(views)[0][:, near].amax(1).min(0)
        if lowest >= best:
            break
        best, view = lowest, views[which]
    return best.sigmoid().item()


def timed(name: str, attack: Callable[[], Tensor]) -> Tensor:
    """What an attack finds; prints how long it took."""
    started = time.process_time()
    found = attack()
    print(f"{name}: {time.process_time() - started:.0f} s of CPU", flush=True)
    return found


@torch.no_grad()
def crop_error(detector: Detector, targets: list[RoofTarget]) -> float:
    """The largest difference between a car's best score (within 2 m) in what attacks see around it and in the
    whole scene."""
    vertices, faces = ellipsoid(targets[0].extents), sphere_mesh()[1]
    worst = 0.0
    for target, view in zip(targets, hard_views(targets, vertices, faces)):
        whole = hard_occupancy(detector.grid, returned(target, vertices, faces))
        scores = [detector(one[None])[0].sigmoid() for one in (whole, view)]
        middles = [places(grid) for grid in (detector.grid, target.grid)]
        spots = (target.car[:2], target.truth[:2])
        near = [(at - spot).norm(dim=-1) < 2 for at, spot in zip(middles, spots)]
        best = [score[0][close].max() for score, close in zip(scores, near)]
        worst = max(worst, (best[0] - best[1]).abs().item())
    return worst


def print_table(
    held_out: list[RoofTarget], clean: Tensor, scores: dict[str, Tensor], threshold: float
) -> None:
    """A row a load, a column a range."""
    ranges = torch.tensor([target.range for target in held_out])
    groups = [torch.ones_like(ranges).bool(), *((ranges >= low) & (ranges < high) for low, high in RANGES)]
    found = [int((clean[group] >= threshold).sum()) for group in groups]
    print(f"\nscore >= {threshold}: {found[0]} of {len(clean)} cars are found without a load\n")
    heads = ["all", *(f"{low} to {high} m" if high < 100 else f"from {low} m" for low, high in RANGES)]
    print(f"| hidden by | {' | '.join(f'{head} ({count})' for head, count in zip(heads, found))} |")
    print(f"|{'---|' * (len(groups) + 1)}")
    for name, of in scores.items():
        cells = [spread(hidden(clean[group], of[:, group], threshold)) for group in groups]
        print(f"| {name} | {' | '.join(cells)} |")
    random = hidden(clean, scores[RANDOM], threshold)
    for name, of in scores.items():
        if name != RANDOM:
            print(f"{name} minus random mesh: {spread(hidden(clean, of, threshold) - random)}")


def print_heeded(
    detector: Detector, held_out: list[RoofTarget], clean: Tensor, overlap: float, threshold: float
) -> None:
    """How many cars are no longer found when their own returns from between two heights are taken away: what
    the detector goes by."""
    print(f"\nnothing on the roof, and without the car's returns, score >= {threshold}; hidden:")
    for low, high in HEIGHTS:
        scores = []
        for target in held_out:
            points = returned(target, None, sphere_mesh()[1])
            outline = from_above(target.car) + points.new_tensor([0, 0, 0.4, 0.4, 0])
            own = contains(outline, points[:, :2]) & (points[:, 2] >= low) & (points[:, 2] < high)
            scores.append(score_among(detector, target, points[~own], overlap))
        name = f"from {low:g} m up" if high > 9 else f"from {low:g} to {high:g} m"
        print(f"  {name}: {spread(hidden(clean, torch.tensor(scores), threshold))}", flush=True)


def spread(values: Tensor) -> str:
    """The mean and its interval, in percent."""
    mean, low, high = bootstrap(values, seed=0, samples=2000)
    return f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
