"""Feature visualization beside torch-lucent's: time for one picture, and the activation that pictures reach.

    python -m benchmarks.features [--size 64] [--steps 128] [--short 32] [--units 16] [--picture FILE]

All optimise the same Fourier parameterization by Adam under the same motions (pad, jitter, scale, turn,
jitter, crop), and show the network images of the same size, normalised by the network itself. torch-lucent
does one unit at a time and runs the whole network; it is timed on one unit, Vitrine on all of them. Held
against torch-lucent with its own settings (128 steps of 0.05): Vitrine with the same steps; with fewer and
longer ones, as it takes them unless told otherwise; both in bfloat16; and torch-lucent with these steps.
Activations are measured by torch-lucent's own objective, in float32, on the pictures as they are.

Wanted: 0.12 of torch-lucent's time a picture, and at least its activation for 16 of 16 units. SqueezeNet 1.0
with the weights of the shared folder, or random ones where it is absent. Needs torch-lucent and kornia 0.4.1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop
from torchvision.utils import save_image

from benchmarks.ratio import Timing, compare, hardware
from vitrine.analyses.objectives import channel
from vitrine.analyses.transforms import Transforms
from vitrine.analyses.visualization import SHORTEST, memory, step_length, visualize
from vitrine.modules import load_network

if TYPE_CHECKING:
    from lucent.optvis.objectives import Objective

QUICK = "--size 64 --units 4 --steps 16 --short 8 --timed-steps 4 --rounds 1"
LAYER = "features.7"  # the fourth of eight fire modules
CHANNELS = 256
PRECISIONS = ("float32", "bfloat16")
SHOWN = 8  # units of the picture


def lucent_objective(unit: int) -> Objective:
    from lucent.optvis import objectives

    return objectives.channel(LAYER.replace(".", "_"), unit)


def lucent_picture(network: nn.Module, unit: int, size: int, steps: int, lr: float = SHORTEST) -> Tensor:
    """One picture [1, 3, size, size] by torch-lucent, with the motions of `Transforms`."""
    from lucent.optvis import param, render, transform

    ours = Transforms()
    shrink = min(1.0, size / 128)
    turns = np.linspace(-ours.degrees, ours.degrees, 101).tolist()
    motions = [
        transform.pad(max(1, round(ours.jitter * shrink)), mode="constant", constant_value=0.5),
        transform.jitter(max(2, round(ours.jitter * shrink))),
        transform.random_scale(ours.scales),
        transform.random_rotate(turns),
        transform.jitter(max(2, round(ours.jitter_after * shrink))),
        lambda images: center_crop(images, [size, size]),
    ]
    images = render.render_vis(
        network,
        lucent_objective(unit),
        lambda: param.image(size),
        lambda parameters: torch.optim.Adam(parameters, lr=lr, betas=memory(steps)),
        transforms=motions,
        thresholds=(steps,),
        preprocess=False,
        fixed_image_size=size,
        progress=False,
        show_image=False,
    )
    remove_hooks(network)
    return torch.from_numpy(images[-1]).permute(0, 3, 1, 2)


def lucent_values(network: nn.Module, units: Sequence[int], pictures: Tensor) -> Tensor:
    """Each unit's activation on its picture of [N, 3, H, W]; torch-lucent minimises its negative."""
    from lucent.optvis import render

    with torch.no_grad():
        values = []
        for unit, picture in zip(units, pictures.split(1), strict=True):
            outputs = render.hook_model(network, lambda picture=picture: picture)
            network(picture)
            values.append(-lucent_objective(unit)(outputs))
            remove_hooks(network)
    return torch.stack(values)


def remove_hooks(network: nn.Module) -> None:
    """torch-lucent leaves its hooks, a set for each picture."""
    for module in network.modules():
        module._forward_hooks.clear()


def main() -> None:
    shared = Path(os.environ.get("VITRINE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    known = shared / "weights" / "squeezenet1_0-imagenet.pt"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="pixels on a side; the default run has 64")
    parser.add_argument("--steps", type=int, default=128, help="of torch-lucent, 0.05 long")
    parser.add_argument("--short", type=int, default=32, help="steps of Vitrine")
    parser.add_argument("--timed-steps", type=int, default=16, help="steps of each that are timed")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each")
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--weights", type=Path, default=known if known.exists() else None)
    parser.add_argument("--picture", type=Path, help="a file for pictures of some units by all three, as PNG")
    wanted = parser.parse_args()
    if importlib.util.find_spec("lucent") is None:
        parser.error("lucent is not installed: pip install torch-lucent kornia==0.4.1")
    torch.set_num_threads(wanted.threads)
    # as they come: torch-lucent neither freezes parameters nor stops early
    network = load_network("squeezenet1_0", classes=1000, weights=wanted.weights).eval()
    units = [i * CHANNELS // wanted.units for i in range(wanted.units)]
    objectives = [channel(LAYER, unit) for unit in units]

    def ours(steps: int, lr: float, precision: str) -> Tensor:
        return visualize(
            network, objectives, size=wanted.size, steps=steps, lr=lr, precision=precision, seed=0
        )

    def theirs(steps: int, lr: float) -> Tensor:
        torch.manual_seed(0)  # torch-lucent draws from the global generators
        np.random.seed(0)
        return torch.cat([lucent_picture(network, unit, wanted.size, steps, lr) for unit in units])

    lucent, *vitrine = compare(
        {
            "torch-lucent": lambda: lucent_picture(network, units[0], wanted.size, wanted.timed_steps),
            **{p: lambda p=p: ours(wanted.timed_steps, SHORTEST, p) for p in PRECISIONS},
        },
        rounds=wanted.rounds,
    )
    print(f"{hardware()}; SqueezeNet 1.0, {LAYER}, {len(units)} units, {wanted.size} pixels\n")
    print(
        "| | steps | ms a unit and step | time a picture | quartiles | activation, median | least | as high |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    base = theirs(wanted.steps, SHORTEST)
    reached = lucent_values(network, units, base)

    def row(name: str, timing: Timing, count: int, steps: int, lr: float, pictures: Tensor) -> None:
        factor = steps / wanted.steps / count
        each = timing.median / wanted.timed_steps / count * 1e3
        low, high = (bound * factor for bound in timing.spread)
        ratios = lucent_values(network, units, pictures) / reached
        print(
            f"| {name} | {steps} of {lr:g} | {each:.2f} | {timing.ratio * factor:.3f} "
            f"| {low:.3f} to {high:.3f} | {ratios.median():.2f} | {ratios.min():.2f} "
            f"| {(ratios >= 1).sum()} of {len(units)} |",
            flush=True,
        )

    row("torch-lucent", lucent, 1, wanted.steps, SHORTEST, base)
    long = step_length(wanted.short)
    row("torch-lucent", lucent, 1, wanted.short, long, theirs(wanted.short, long))
    shown = [base]
    for steps, lr in ((wanted.steps, SHORTEST), (wanted.short, long)):
        for precision, timing in zip(PRECISIONS, vitrine):
            pictures = ours(steps, lr, precision)
            row(f"Vitrine, {precision}", timing, len(units), steps, lr, pictures)
            shown += [pictures] if precision == "float32" else []
    if wanted.picture:
        every = max(1, len(units) // SHOWN)
        save_image(
            torch.cat([pictures[::every] for pictures in shown]), wanted.picture, nrow=len(units[::every])
        )


if __name__ == "__main__":
    main()
