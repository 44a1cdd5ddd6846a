"""Feature visualization beside torch-lucent's: time for one unit, and the activation that the pictures reach.

    python -m benchmarks.features [--size 64] [--steps 128] [--units 16] [--threads N] [--weights FILE]

Both optimise the same Fourier parameterization by the same Adam, for as many steps, under the same motions
(pad, jitter, scale, turn, jitter, crop), and show the network images of the same size, normalised by the
network itself. torch-lucent does one unit at a time and runs the whole network; it is timed on one unit,
Vitrine on all of them. SqueezeNet 1.0 with the weights of the shared folder, or random ones where it is
absent. Needs torch-lucent.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from lucent.optvis import objectives as lucent_objectives
from lucent.optvis import param, render, transform
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from benchmarks.ratio import compare, hardware
from vitrine.analyses.objectives import channel
from vitrine.analyses.transforms import Transforms
from vitrine.analyses.visualization import objective_values, visualize
from vitrine.modules import load_network

QUICK = "--size 64 --steps 16 --timed-steps 4 --rounds 2 --units 8"
LAYER = "features.7"  # the fourth of eight fire modules
CHANNELS = 256


def lucent_picture(network: nn.Module, unit: int, size: int, steps: int) -> Tensor:
    """One picture [1, 3, size, size] by torch-lucent, with the motions of `Transforms`."""
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
        lucent_objectives.channel(LAYER.replace(".", "_"), unit),
        lambda: param.image(size),
        transforms=motions,
        thresholds=(steps,),
        preprocess=False,
        fixed_image_size=size,
        progress=False,
        show_image=False,
    )
    return torch.from_numpy(images[-1]).permute(0, 3, 1, 2)


def main() -> None:
    shared = Path(os.environ.get("VITRINE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    known = shared / "weights" / "squeezenet1_0-imagenet.pt"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="pixels on a side; the default run has 64")
    parser.add_argument("--steps", type=int, default=128, help="of Adam, for the activations")
    parser.add_argument("--timed-steps", type=int, default=16, help="of Adam, for the time")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each")
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--weights", type=Path, default=known if known.exists() else None)
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    # as they come: torch-lucent neither freezes parameters nor stops early
    network = load_network("squeezenet1_0", classes=1000, weights=wanted.weights).eval()
    units = [i * CHANNELS // wanted.units for i in range(wanted.units)]
    objectives = [channel(LAYER, unit) for unit in units]

    def ours(steps: int) -> Tensor:
        return visualize(network, objectives, size=wanted.size, steps=steps, seed=0)

    lucent, vitrine = compare(
        {
            "torch-lucent": lambda: lucent_picture(network, units[0], wanted.size, wanted.timed_steps),
            "Vitrine": lambda: ours(wanted.timed_steps),
        },
        rounds=wanted.rounds,
    )
    low, high = (bound / len(units) for bound in vitrine.spread)
    print(f"{hardware()}; SqueezeNet 1.0, {LAYER}, {len(units)} units, {wanted.size} pixels\n")
    print("| | milliseconds a unit and step | ratio | quartiles |\n|---|---:|---:|---:|")
    print(f"| torch-lucent | {lucent.median / wanted.timed_steps * 1e3:.2f} | 1 | |")
    each = vitrine.median / wanted.timed_steps / len(units) * 1e3
    print(f"| Vitrine | {each:.2f} | {vitrine.ratio / len(units):.3f} | {low:.3f} to {high:.3f} |\n")
    if not wanted.steps:
        return
    torch.manual_seed(0)  # torch-lucent draws from the global generators
    np.random.seed(0)
    theirs = torch.cat([lucent_picture(network, unit, wanted.size, wanted.steps) for unit in units])
    here, there = (
        objective_values(network, objectives, pictures) for pictures in (ours(wanted.steps), theirs)
    )
    print(f"Activation on the picture as it is, {wanted.steps} steps\n")
    print("| unit | torch-lucent | Vitrine | ratio |\n|---:|---:|---:|---:|")
    for unit, a, b in zip(units, there.tolist(), here.tolist()):
        print(f"| {unit} | {a:.4g} | {b:.4g} | {b / a:.2f} |")
    print(f"\nVitrine reaches at least as much for {(here >= there).sum()} of {len(units)} units.")


if __name__ == "__main__":
    main()
