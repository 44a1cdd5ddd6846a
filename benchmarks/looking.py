"""One look at a network of ImageNet's size: seconds and memory of each default technique, beside an epoch.

    python -m benchmarks.looking [--networks resnet50 vit_b_16] [--techniques saliency ...] [--device cuda]
        [--images 20] [--probes 2] [--units 2] [--size 224] [--classes 1000]

8 probes, 8 units a layer, 50,000 validation and 1.28 million training images. Measured is a part of it, which
the first lines state; the rest is extrapolated: passes over a split by images, what is made of probes by
probes, of units by units, of steps by steps; and an epoch from some training steps. `samples` is measured in
two parts, as it needs more images than classes: a forward pass an image, and what comes after it on features
drawn from a cluster a class, in as many steps as it takes for these: passes over them grow with images.

Seconds are this machine's; what carries over to another is the share. On a GPU it is not this one, as small
batches fill a GPU less than large ones: measure it there by `--device cuda`.

Wanted: all default techniques at most 5 % of an epoch (so of a run of 90 epochs at one look an epoch);
`saliency` at most 1.1x of the passes that its maps need, which are made by hand in full batches, in turn with
it; its memory at most 1.5x of one such forward and backward pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import warnings

import torch
from torch import nn

from benchmarks.look_parts import (
    PROBES,
    Part,
    TimedSubject,
    head_alone,
    parts,
    pick_subject,
    timed_features,
)
from benchmarks.peak_memory import Peak
from benchmarks.ratio import compare, hardware
from benchmarks.saliency_passes import Passes, count_maps, passes_by_hand, passes_needed
from vitrine.analyses import choose_analyses, paint
from vitrine.analyses.attribution import COPIES
from vitrine.analyses.pass_size import images_at_once
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.result import AnalysisResult
from vitrine.examination.budget import Choice
from vitrine.examination.runner import run_analysis
from vitrine.modules import load_network

QUICK = "--networks resnet18 --size 64 --classes 20 --images 8 --picture-steps 1 --features 100 --steps 1"
VALIDATION, TRAINING, EPOCHS = 50_000, 1_281_167, 90


def build(name: str, classes: int, size: int, device: str) -> nn.Module:
    """An untrained network of torchvision, its running statistics those of random images."""
    torch.manual_seed(0)
    network = load_network(name, classes=classes, image_size=size)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight, std=0.01)  # a vision transformer's starts from 0
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches: this one
    with torch.no_grad():
        network.train()(torch.rand(8, 3, size, size))
    return network.to(device).eval()


def epoch_seconds(network: nn.Module, size: int, batch: int, steps: int, device: str) -> float:
    """Of an epoch of training, extrapolated from the median of some steps of SGD after another one."""
    network.train().requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    images, labels = (
        torch.rand(batch, 3, size, size, device=device),
        torch.zeros(batch, dtype=int, device=device),
    )
    seconds = []
    for _ in range(steps + 1):
        with Peak(device) as peak:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        seconds.append(peak.seconds)
    optimizer.zero_grad(set_to_none=True)
    return float(torch.tensor(seconds[1:]).median()) / batch * TRAINING


def measure(name: str, subject: TimedSubject, part: Part) -> tuple[float, float, AnalysisResult]:
    """Of a technique: seconds in all, peak memory beyond what there was before, and what it gave."""
    subject.clock.clear()
    with Peak(subject.device) as peak:
        result = run_analysis(name, part.analysis, part.reduce(subject), Choice())
    rest = peak.seconds - sum(subject.clock.seconds.values())
    total = max(0.0, rest) * part.factor
    for split, seconds in subject.clock.seconds.items():
        total += seconds / subject.clock.images[split] * part.images(split, VALIDATION, TRAINING)
    return total, peak.memory, result


def row(name: str, seconds: float, epoch: float, memory: float, note: str) -> str:
    return f"| {name} | {seconds:,.0f} | {seconds / epoch:.2%} | {memory / 2**20:,.0f} | {note} |"


def examine(name: str, options: argparse.Namespace) -> None:
    device, size = options.device, options.size
    network = build(name, options.classes, size, device)
    epoch = epoch_seconds(network, size, options.batch, options.steps, device)
    network.eval().requires_grad_(False)
    subject = pick_subject(network, options)
    count = images_at_once(size, size, subject.device, COPIES)  # as many as maps are made of at once
    batch = subject.probes.images.repeat(-(-count // PROBES), 1, 1, 1)[:count]
    by_hand = passes_by_hand(network, batch, options.rounds)
    picture_table([[paint.colorize(torch.zeros(8, 8))]], ["a"], ["b"])  # matplotlib is loaded once a process
    print(
        f"**{name}**: an epoch of training {epoch:,.0f} s, from {options.steps} steps of {options.batch} "
        f"images; a forward pass {by_hand.forward:.3f} s an image, a backward pass to pixels "
        f"{by_hand.backward:.3f} s, in batches of {by_hand.images} with {by_hand.memory / 2**20:,.0f} MiB\n"
    )
    print("| technique | seconds | share of an epoch | peak MiB | |\n|---|---:|---:|---:|---|")
    total, most = 0.0, 0.0
    chosen = choose_analyses()
    for technique, part in parts(chosen, options).items():
        if technique == "saliency":
            seconds, memory, result, text = beside_passes(subject, part, by_hand, options.rounds)
            part = dataclasses.replace(part, text=f"{part.text}; {text}")
        elif technique != "samples":
            seconds, memory, result = measure(technique, subject, part)
        else:
            count = part.images("train", VALIDATION, TRAINING)
            head = head_alone(network, options)
            with timed_features(head.clock):
                seconds, memory, result = measure(technique, head, part)
            of = f"{len(head.train)} features of {len(head.classes)} classes"
            part = dataclasses.replace(part, text=f"{seconds:,.0f} s after the pass, from {of}")
            seconds += by_hand.forward * count
        if result.inapplicable:
            continue
        print(row(technique, seconds, epoch, memory, result.error or part.text), flush=True)
        total, most = total + seconds, max(most, memory)
    print(row("all", total, epoch, most, ""))
    print(
        f"\nOne look an epoch adds {total / epoch:.2%} to training, to {EPOCHS} epochs as to one: "
        f"{EPOCHS * total / 3600:,.0f} hours to {EPOCHS * epoch / 3600:,.0f}, from the parts above.\n"
    )


def beside_passes(
    subject: TimedSubject, part: Part, by_hand: Passes, rounds: int
) -> tuple[float, int, AnalysisResult, str]:
    """As `measure` gives `saliency`, and its time and memory beside those of the passes that its maps need,
    in turn, in words."""
    images, shape = part.analysis.probes, subject.probes.images.shape
    maps = count_maps(subject.network, subject.probes, images)
    needed = passes_needed(subject.network, part.analysis, images, maps, shape[-2:])
    batch = subject.probes.images.repeat(-(-by_hand.images // shape[0]), 1, 1, 1)[: by_hand.images]
    memory: list[int] = []
    runs: list[tuple[float, int, AnalysisResult]] = []

    def passes() -> None:
        with Peak(subject.device) as peak:
            needed.run(subject.network, batch)
        memory.append(peak.memory)

    def technique() -> None:
        runs.append(measure("saliency", subject, part))

    _, ours = compare({"by hand": passes, "technique": technique}, rounds, warmup=0, device=subject.device)
    low, high = ours.spread
    most = max(own for _, own, _ in runs)
    text = (
        f"{ours.ratio:.2f}x ({low:.2f} to {high:.2f}) of {needed.plain + needed.graphs} forward and "
        f"{needed.backward} backward passes by hand; {most / by_hand.memory:.2f}x of the memory of one "
        f"batch, {most / max(memory):.2f}x of that of all these passes"
    )
    return statistics.median(seconds for seconds, _, _ in runs), most, runs[-1][2], text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", nargs="+", default=["resnet50", "vit_b_16"], help="torchvision's")
    parser.add_argument(
        "--techniques", nargs="+", default=[], help="these alone; all default ones unless given"
    )
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=20, help="validation images of 50,000")
    parser.add_argument("--probes", type=int, default=2, help="probes of 8")
    parser.add_argument("--units", type=int, default=2, help="units a layer of 8")
    parser.add_argument("--picture-steps", type=int, default=2, help="steps of feature visualization")
    parser.add_argument("--features", type=int, default=2000, help="drawn in place of images of `samples`")
    parser.add_argument("--steps", type=int, default=2, help="training steps that an epoch is measured from")
    parser.add_argument(
        "--rounds", type=int, default=2, help="of passes by hand, and of `saliency` beside them"
    )
    parser.add_argument("--batch", type=int, default=8, help="images of a training step")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(hardware(options.device))
    print(
        f"measured: {options.images} validation images of {VALIDATION:,}, {options.probes} probes of 8 (the "
        f"first of every four wrongly classified), {options.units} units a layer of 8, "
        f"{options.picture_steps} steps of feature visualization; the rest is extrapolated\n"
    )
    for name in options.networks:
        examine(name, options)


if __name__ == "__main__":
    main()
