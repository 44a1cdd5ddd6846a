"""How well wrong labels are told from right ones: the area under the ROC curve of scores of training images.

    python -m benchmarks.mislabels [--seeds 0 1 2 3 4] [--runs FOLDER] [key=value ...]

Trains configs/signs-mislabeled.yaml without analyses, once a seed: a tenth of 6,144 training labels are
another class, each seed has its own images, wrong labels and network. At every checkpoint each training
image is scored, as it is, by the label that it was given. AUC: the probability that an image with a wrong
label is ranked above one with a right label, ties counted half; 0.5 is chance.

The same for a small network (63,000 parameters, 1,024 signs, 32 pixels a side) that is trained for 30
epochs, longer than is good for it.

Mean over the seeds, and its 95 % interval by Student's t. Runs in --runs that are there are not trained
again.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from scipy.stats import rankdata
from scipy.stats import t as student
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import retraining
from benchmarks.ratio import hardware
from benchmarks.scores import PENALTY, Scored, read_head
from vitrine import load_checkpoint
from vitrine.analyses.head_fit import HeadProblem, distilled_targets, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, self_influence
from vitrine.core.image_dataset import ImageDataset
from vitrine.datamodules.mislabeling import mislabel
from vitrine.datamodules.signs import CLASSES, Signs, SignsSettings
from vitrine.modules.network_record import record_of

RECIPE, SHARE = "configs/signs-mislabeled.yaml", 0.1
SMALL = 1024  # images
SHOWN = ("self-influence, head refitted on the labels", "loss")  # of which the curves are printed

Checkpoint = tuple[str, float, nn.Module]  # what it is called, its learning rate, the network
Found = dict[str, dict[str, list[float]]]  # by checkpoint and score, the AUC of each seed


def auc(scores: Tensor, positive: Tensor) -> float:
    """Area under the ROC curve of scores [N] for telling the positive ones [N] (Mann and Whitney 1947)."""
    ranks = torch.from_numpy(rankdata(scores.numpy()))
    count = int(positive.sum())
    above = ranks[positive].sum() - count * (count + 1) / 2
    return (above / (count * (len(scores) - count))).item()


def train(seed: int, root: Path, settings: list[str]) -> Path:
    """The run of a seed."""
    run = root / f"seed-{seed}"
    if not run.exists():
        quiet = ["analysis.mode=off", "logging.wandb.mode=disabled", "trainer.enable_progress_bar=false"]
        place = [f"run.root={root}", f"run.name={run.name}", f"run.seed={seed}"]
        command = [sys.executable, "train.py", RECIPE, *place, *quiet, *settings]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def of_run(run: Path) -> Iterator[Checkpoint]:
    """The checkpoints of a run, in order."""
    for file in sorted(Path(run, "checkpoints").glob("step=*.ckpt")):
        network = load_checkpoint(file)
        yield file.stem, record_of(network).learning_rate, network


def of_small(split: ImageDataset, seed: int) -> Iterator[Checkpoint]:
    """Those of a small network on few images, trained for long."""
    trained = retraining.train(split, torch.arange(len(split)), seed, keep=True)
    checkpoints = Scored(trained, split, split).checkpoints()
    for epoch, (rate, network) in zip(retraining.CHECKPOINTS, checkpoints):
        yield f"epoch {epoch}", rate, network


def scores_of(checkpoints: Iterable[Checkpoint], split: ImageDataset) -> dict[str, dict[str, Tensor]]:
    """Of each checkpoint, the scores [N] of the training images by name; a sum over checkpoints is over those
    so far."""
    labels, found = split.labels, {}
    tracin = torch.zeros(len(split), dtype=torch.float64)
    losses = tracin.clone()
    for number, (where, rate, network) in enumerate(checkpoints, 1):
        own, features = read_head(network, split)
        logits, by_label = features[:] @ own.T, label_targets(labels, len(own))
        loss = F.cross_entropy(logits, labels, reduction="none")
        error = (F.one_hot(labels, len(own)) - logits.softmax(1)).norm(dim=1)
        norm = error * features[:].norm(dim=1)
        tracin = tracin + rate * norm.square()
        losses = losses + loss
        scores = {
            "loss": loss,
            "loss, mean over checkpoints": losses / number,
            "gradient norm, last layer": norm,
            "TracInCP of itself, last layer": tracin,
        }
        problem = HeadProblem(features, by_label, PENALTY)
        refits = {"the labels": by_label, "its own probabilities": distilled_targets(own)}
        for name, targets in refits.items():
            weight = fit_head(HeadProblem(features, targets, PENALTY), own)
            curvature = Curvature.at(problem, weight)
            scores[f"self-influence, head refitted on {name}"] = self_influence(curvature, len(split))
        found[where] = scores
    return found


def measure(checkpoints: Iterable[Checkpoint], split: ImageDataset, found: Found) -> None:
    """Add the AUC of each score at each checkpoint."""
    for step, scores in scores_of(checkpoints, split).items():
        for name, values in scores.items():
            found.setdefault(step, {}).setdefault(name, []).append(auc(values, split.mislabeled))


def report(title: str, split: ImageDataset, found: Found) -> None:
    """Print the AUC at the last checkpoint, and over checkpoints."""
    print(f"\n**{title}**, {int(split.mislabeled.sum())} of {len(split):,} labels wrong")
    last = list(found)[-1]
    print(f"\n| at {last} | AUC | 95 % | seeds |\n|---|---:|---:|---:|")
    for name, values in found[last].items():
        print(f"| {name} | {summary(values)} |")
    print("\n| over checkpoints | " + " | ".join(found) + " |\n|---|" + "---:|" * len(found))
    for name in SHOWN:
        every = [scores[name] for scores in found.values()]
        cells = (f"{statistics.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in every)
        print(f"| {name} | " + " | ".join(cells) + " |")


def summary(values: list[float]) -> str:
    """Mean, its 95 % interval, least and most, as cells."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.3f} | | "
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} | {mean - half:.3f} to {mean + half:.3f} | {min(values):.3f} to {max(values):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", type=Path, help="folder of the runs; by default one that is deleted")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    how = parser.parse_intermixed_args()

    print(f"{len(how.seeds)} seeds; {hardware()}")
    found: Found = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in how.seeds:
            data = Signs(SignsSettings(mislabeled=SHARE), seed=seed)
            data.setup()
            run = train(seed, how.runs or Path(folder), how.settings)
            measure(of_run(run), data.train, found)
    report(RECIPE, data.train, found)
    found = {}
    for seed in how.seeds:
        split = retraining.signs(SMALL, seed)
        mislabel(split, SHARE, len(CLASSES), seed)
        measure(of_small(split, seed), split, found)
    report("a small network, trained for long", split, found)


if __name__ == "__main__":
    main()
