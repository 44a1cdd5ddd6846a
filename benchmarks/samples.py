"""Which training images decide: the pass over them, the scores, captum's TracIn, and a tenth of ImageNet.

    python -m benchmarks.samples [--only pass|scores|scale] [--images 6144] [--rounds 7]

Claims: the pass at most 1.05x of a plain forward pass; duals, influence and TracIn together at most 5 s for
6,144 images of 128 features and 8 classes on two cores; never slower than captum's TracInCPFast on the same
features. `scale` keeps random features of 128,000 images x 2,048 in half precision and goes over them
once for each thing that the scores are made of, with 10 and with 1,000 classes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ratio import compare, hardware, table
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.head import LinearHead, linear_head
from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, Hessian, distilled_targets, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, leave_one_out, self_influence
from vitrine.analyses.representers import representers
from vitrine.analyses.sample_scores import Refit, SeenProbes, score_samples
from vitrine.analyses.tracin import gradient_products
from vitrine.analyses.training_pass import TrainingImages, read_training
from vitrine.datamodules.memory import InMemory
from vitrine.modules.convnet import ConvNet
from vitrine.runs.scratch import FileScratch

QUICK = "--only scores --rounds 3"
PENALTY = 1e-3
PROBES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=("pass", "scores", "scale"))
    parser.add_argument(
        "--images", type=int, default=6144, help="of the scores; a quarter of them in the pass"
    )
    parser.add_argument("--scale-images", type=int, default=128_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print(hardware(), end="\n\n")
    torch.manual_seed(0)
    if options.only in (None, "pass"):
        time_pass(options.images // 4, options.rounds)
    if options.only in (None, "scores"):
        time_scores(options.images, options.rounds)
    if options.only in (None, "scale"):
        measure_scale(options.scale_images)


def time_pass(count: int, rounds: int) -> None:
    """What the head reads of training images, beside a plain forward pass of the same batches."""
    network = ConvNet(8).eval().requires_grad_(False)
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)
    data = InMemory(images, torch.arange(count) % 8)
    probes = Probes(images[:2] / 255, data.labels[:2], torch.arange(2))
    subject = Subject(network, probes, data, [str(c) for c in range(8)], {}, train=data)
    head = linear_head(network, probes.images)

    def plain() -> None:
        with torch.no_grad():
            for batch, _ in subject.train_batches():
                network(batch)

    contestants = {"plain forward pass": plain, "the pass": lambda: read_training(subject, head, None)}
    title = f"The pass: {count:,} images of 64 pixels, the default network"
    print(table(compare(contestants, rounds), title), end="\n\n")


def clouds(count: int, width: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of overlapping classes as after a ReLU, labels of which some are wrong, and a head that was
    trained on them for a while, float64 [classes, width + 1]."""
    labels = torch.arange(count) % classes
    features = (torch.randn(classes, width)[labels] + 1.5 * torch.randn(count, width)).clamp_min_(0)
    labels = torch.where(torch.rand(count) < 0.05, torch.randint(classes, (count,)), labels)
    head = nn.Linear(width, classes)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return features, labels, torch.cat([head.weight, head.bias[:, None]], 1).detach().double()


def time_scores(count: int, rounds: int, width: int = 128, classes: int = 8) -> None:
    """Each score from features that are there already; and captum's TracIn from the same features."""
    features, labels, head = clouds(count, width, classes)
    stored = Features(features)
    to_labels = label_targets(labels, classes)
    distilled = HeadProblem(stored, distilled_targets(head), PENALTY)
    labelled = HeadProblem(stored, to_labels, PENALTY)
    probes, said = stored[:PROBES], labels[:PROBES]
    errors = F.one_hot(said, classes) - (probes @ head.T).softmax(1)
    weight, label_weight = fit_head(distilled, head), fit_head(labelled, head)
    same = ((stored[:] @ weight.T).argmax(1) == (stored[:] @ head.T).argmax(1)).double().mean()

    def influence() -> None:
        found = Curvature.at(labelled, label_weight)
        leave_one_out(found, probes, errors)
        self_influence(found, 16)

    def products() -> Tensor:
        return gradient_products(stored, to_labels, head, probes, errors, cosine=False)

    linear = LinearHead("head", head[:, :-1].float(), head[:, -1].float())
    losses = F.cross_entropy(stored[:] @ head.T, labels, reduction="none")
    seen = TrainingImages(torch.arange(count), "", labels, labels, losses, slice(0, count), stored)
    seen_probes = SeenProbes(probes, said, (probes @ head.T).softmax(1))
    contestants: dict[str, Callable[[], object]] = {
        "all scores": lambda: score_samples(linear, seen, seen_probes, Refit(PENALTY, False)),
        "duals: refit to the network": lambda: fit_head(distilled, head),
        "duals: what images add": lambda: representers(distilled, weight, probes, said),
        "influence: refit to the labels": lambda: fit_head(labelled, weight),
        "influence: of all on all probes and themselves": influence,
        "TracIn of one checkpoint": products,
    }
    try:
        from captum.influence import TracInCPFast
    except ImportError:
        print("captum is not installed")
    else:
        network = nn.Sequential(nn.Identity(), nn.Linear(width, classes))
        network[1].load_state_dict({"weight": linear.weight, "bias": linear.bias})
        oracle = TracInCPFast(
            network,
            network[1],
            torch.utils.data.TensorDataset(features, labels),
            [0],
            checkpoints_load_func=lambda *_: 1.0,
            loss_fn=nn.CrossEntropyLoss(reduction="sum"),
            batch_size=1024,
        )
        given = (features[:PROBES], said)
        contestants["captum TracInCPFast, without the bias"] = lambda: oracle.influence(given)
    title = f"Scores: {count:,} images, {width} features, {classes} classes, {PROBES} probes"
    timings = compare(contestants, rounds)
    print(table(timings, title))
    seconds = {t.name: t.median for t in timings}
    steps = {
        "the refit to the network": lambda: fit_head(distilled, head),
        "that to the labels": lambda: fit_head(labelled, weight),
        "influence on 8 probes, of a head too large to factorise": lambda: leave_one_out(
            Curvature.at(labelled, label_weight, dense=0), probes, errors
        ),
        "on 16 images themselves": lambda: self_influence(Curvature.at(labelled, label_weight, dense=0), 16),
    }
    counted = ", ".join(f"{count_products(compute)} {what}" for what, compute in steps.items())
    print(f"\nProducts of the second derivatives with a direction: {counted}.")
    print(f"\nThe refitted head says the same as the network of {same:.2%} of the images.")
    if len(contestants) > 6:
        ours, theirs = seconds["TracIn of one checkpoint"], seconds["captum TracInCPFast, without the bias"]
        print(f"TracIn: {theirs / ours:.1f} times as fast as captum's.")
    print()


def count_products(compute: Callable[[], object]) -> int:
    """With how many directions the second derivatives are multiplied."""
    counted, product = [], Hessian.__call__

    def count(hessian: Hessian, directions: Tensor) -> Tensor:
        counted.append(len(directions))
        return product(hessian, directions)

    with mock.patch.object(Hessian, "__call__", count):
        compute()
    return sum(counted)


def measure_scale(count: int, width: int = 2048) -> None:
    """Random features in half precision in a scratch file, and what goes over all of them."""
    with tempfile.TemporaryDirectory() as folder:
        values = FileScratch(Path(folder)).empty("features", (count, width), torch.float16)
        for part in values.split(8192):
            part.copy_(torch.rand(part.shape))
        size = count * width * 2 / 2**30
        print(
            f"**Scale: {count:,} x {width:,} random features, {size:.2f} GiB in half precision in a file**\n"
        )
        print("| classes | what | seconds | peak memory, GiB |\n|---:|---|---:|---:|")
        stored = Features(values, torch.ones(count))
        for classes in (10, 1000):
            _go_over(stored, torch.arange(count) % classes, classes)


def _go_over(stored: Features, labels: Tensor, classes: int) -> None:
    """Time what the scores are made of."""
    head = torch.randn(classes, stored.width).double() / stored.width**0.5
    problem, by_label = HeadProblem(stored, distilled_targets(head), PENALTY), label_targets(labels, classes)
    probes, said = stored[:PROBES], labels[:PROBES]
    errors = F.one_hot(said, classes) - (probes @ head.T).softmax(1)

    def timed(what: str, compute: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        result = compute()
        seconds = time.perf_counter() - start
        print(f"| {classes:,} | {what} | {seconds:.1f} | {_peak():.2f} |", flush=True)
        return result

    timed("value and gradient", lambda: problem.evaluate(head)[1])
    hessian, directions = Hessian(problem, head, torch.float32), head[None].float()
    timed("product with the second derivatives, float32", lambda: hessian(directions))
    timed("what images add to 8 logits", lambda: representers(problem, head, probes, said).sizes)
    timed("TracIn, 8 probes", lambda: gradient_products(stored, by_label, head, probes, errors, cosine=False))


def _peak() -> float:
    """The largest resident memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
