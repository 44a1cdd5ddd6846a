"""Accuracy of configs/finetune.yaml on a task that is made of ImageNet photographs, beside what it must beat.

    python -m benchmarks.finetune PHOTOGRAPHS WEIGHTS [--seeds 0 1 2] [--rows recipe ...] [key=value ...]

PHOTOGRAPHS is a folder with a folder for each of ImageNet's 1,000 classes, whose sorted order is ImageNet's;
WEIGHTS those of torchvision's squeezenet1_0. The task: is it a dog, another mammal, a bird, a reptile or
amphibian, a fish, an insect or spider, or food? These are ranges of ImageNet's class order, which follows
WordNet; what is in none of them (objects, landscapes, other invertebrates) is left out, as objects would be
more than half of all. Each seed draws its own quarter of each group's photographs to hold out, and accuracy
is that of the last epoch: nothing is chosen by what is held out.

The weights were trained on ImageNet, perhaps on these very photographs, and know these groups: the table says
what the recipe adds to reading them off the old head, not what new kinds of images would give.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.ratio import hardware
from vitrine.core.random_numbers import permutation
from vitrine.datamodules.decoding import Decoding, to_tensor
from vitrine.modules import load_network
from vitrine.runs.metrics_csv import read_rows

GROUPS = {  # of ImageNet's class order, both ends included
    "bird": [(7, 24), (80, 100), (127, 146)],
    "dog": [(151, 268)],
    "fish": [(0, 6), (389, 397)],
    "food": [(924, 967), (969, 969)],
    "insect-or-spider": [(70, 79), (300, 326)],
    "other-mammal": [(101, 106), (147, 150), (269, 299), (330, 388)],
    "reptile-or-amphibian": [(25, 68)],
}
ROWS = {  # settings that differ from the recipe's
    "recipe": [],
    "its head alone": ["model.unfreeze_epoch=null"],
    "from scratch": [
        "model.freeze=null",
        "model.unfreeze_epoch=null",
        "model.weights=null",
        "optimizer.layer_decay=1",
    ],
}
HELD_OUT = 0.25

Split = dict[str, list[tuple[Path, int]]]  # photographs and labels of train and val


def split(photographs: Path, seed: int) -> Split:
    """The photographs of each group, a quarter of them held out."""
    folders = sorted(p for p in photographs.iterdir() if p.is_dir())
    if len(folders) != 1000:
        raise SystemExit(f"{photographs} has {len(folders)} folders, expected 1000")
    parts: Split = {"train": [], "val": []}
    for label, ranges in enumerate(GROUPS.values()):
        chosen = [folders[i] for first, last in ranges for i in range(first, last + 1)]
        files = [file for folder in chosen for file in sorted(folder.iterdir())]
        held = round(HELD_OUT * len(files))
        order = [files[i] for i in permutation(len(files), seed)]
        parts["val"] += [(file, label) for file in order[:held]]
        parts["train"] += [(file, label) for file in order[held:]]
    return parts


def link(parts: Split, folder: Path) -> None:
    """Folders of links as data.name=folder takes them."""
    for part, samples in parts.items():
        for file, label in samples:
            place = folder / part / list(GROUPS)[label] / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file.resolve())


def of_old_head(parts: Split, weights: str) -> float:
    """Accuracy on the held-out photographs of the group in which the 1,000-class head's answer lies."""
    network = load_network("squeezenet1_0", classes=1000, weights=weights).eval()
    groups = torch.full((1000,), -1)
    for label, ranges in enumerate(GROUPS.values()):
        for first, last in ranges:
            groups[first : last + 1] = label
    correct = 0
    with torch.no_grad():
        for file, label in parts["val"]:
            image = to_tensor(Decoding(3).decode(file, file))[None].float() / 255
            scale = 256 / min(image.shape[-2:])
            size = [round(side * scale) for side in image.shape[-2:]]
            image = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
            top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
            answer = network(image[..., top : top + 224, left : left + 224])[0, groups >= 0].argmax()
            correct += int(groups[groups >= 0][answer] == label)
    return correct / len(parts["val"])


def of_run(folder: Path, weights: str, seed: int, settings: list[str]) -> float:
    """Accuracy of the recipe after its last epoch."""
    given = [f"data.root={folder}", f"model.weights={weights}", f"run.seed={seed}", *settings]
    quiet = ["analysis.mode=off", "logging.wandb.mode=disabled", "trainer.enable_progress_bar=false"]
    with tempfile.TemporaryDirectory() as root:
        place = [f"run.root={root}", "run.name=run"]
        command = [sys.executable, "train.py", "configs/finetune.yaml", *given, *quiet, *place]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return [
            float(row["val/accuracy"]) for row in read_rows(Path(root, "run")) if row.get("val/accuracy")
        ][-1]


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` images."""
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return middle - half, middle + half


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photographs", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("settings", nargs="*", metavar="key=value")
    how = parser.parse_intermixed_args()

    found: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in how.seeds:
        parts = split(how.photographs, seed)
        with tempfile.TemporaryDirectory() as folder:
            link(parts, Path(folder))
            largest = max(sum(label == k for _, label in parts["val"]) for k in range(len(GROUPS)))
            found.setdefault("the largest group", []).append(largest / len(parts["val"]))
            found.setdefault("the group of the old head's answer", []).append(of_old_head(parts, how.weights))
            for row in how.rows:
                start = time.monotonic()
                found.setdefault(row, []).append(
                    of_run(Path(folder), how.weights, seed, [*ROWS[row], *how.settings])
                )
                seconds.setdefault(row, []).append(time.monotonic() - start)
                print(f"seed {seed}, {row}: {found[row][-1]:.1%}, {seconds[row][-1]:.0f} s", file=sys.stderr)
    count = len(parts["val"])
    print(f"{len(parts['train'])} photographs of {len(GROUPS)} groups, {count} held out; {hardware()}")
    print(
        f"| | accuracy, mean of {len(how.seeds)} splits | least | most | 95 % for {count} images | seconds |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for row, values in found.items():
        mean = statistics.mean(values)
        low, high = interval(mean, count)
        took = f"{statistics.median(seconds[row]):.0f}" if row in seconds else ""
        spread = f"{mean:.1%} | {min(values):.1%} | {max(values):.1%} | {low:.0%} to {high:.0%}"
        print(f"| {row} | {spread} | {took} |")


if __name__ == "__main__":
    main()
