"""PGD-10 beside ten passes by hand and its peers; AutoAttack beside the reference implementation's schedule.

    python -m benchmarks.attacks [--device cuda] [--images 64] [--rounds 5] [--only pgd|autoattack]
    python -m benchmarks.attacks --only autoattack --steps 100 --queries 5000      the standard budgets
    OMP_NUM_THREADS=1 python -m benchmarks.attacks --only autoattack --cpu-time --contestants before float32
    python -m benchmarks.attacks --only autoattack --run runs/signs-robust         a network that was hardened
    python -m benchmarks.attacks --only autoattack --run runs/signs --standing 0.5   or one that was not

Claims: PGD-10 takes at most 1.03x of ten forward and input-only backward passes with a step by hand, and
never longer than torchattacks or foolbox (where installed). AutoAttack takes at most half of the reference
implementation's schedule at the same verdicts: there images leave between the attacks alone, FAB sorts the
pixels to project, and the network is asked as it is. It also takes at most half of that with images that
leave as they fall, which is what it was before its steps became cheaper (but for Square's proposals, which
were dearer). Of the contestant "nobody", where nobody leaves, it takes at most 0.6.

Without --run the network is a CIFAR resnet20 with the shared weights, where there are any, on test images of
CIFAR-10; else one with random weights, on noise: the arithmetic is the same. Labels are the network's own
answers. eps is searched so that the share wanted stands under PGD-20. With --run it is the run's last
checkpoint, on validation images and their labels, and eps is 8/255 unless --standing is given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.attack_subjects import middling, run_subject, subject
from benchmarks.ratio import compare, hardware, table
from vitrine.attacks import PGD, AutoAttack, fab, is_adversarial

QUICK = "--only pgd --rounds 3 --images 16"
STEPS, EPS = 10, 8 / 255
STANDING = 0.4
CONTESTANTS = {
    "reference": "images leave between attacks, sorted projection, as in the reference implementation",
    "before": "images leave as they fall, as before",
    "newton": "and FAB projects by Newton's steps",
    "float32": "and the search asks a folded double, Square of what a square changes (the default)",
    "bfloat16": "and the search is in bfloat16 (precision=bfloat16)",
    "nobody": "nobody leaves",
    "torchattacks": "torchattacks AutoAttack",
}


def by_hand(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """PGD-10 as one would write it for this case alone."""
    points = images + torch.empty_like(images).uniform_(-EPS, EPS)
    points = points.clamp_(0, 1)
    for _ in range(STEPS):
        points.requires_grad_()
        loss = F.cross_entropy(network(points), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
        points = points.detach() + EPS / 4 * gradient.sign()
        points = (images + (points - images).clamp(-EPS, EPS)).clamp(0, 1)
    return points


def peers(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    """The same attack by other libraries, those that are installed."""
    found: dict[str, Callable[[], object]] = {}
    try:
        import torchattacks

        theirs = torchattacks.PGD(network, eps=EPS, alpha=EPS / 4, steps=STEPS)
        found["torchattacks PGD"] = lambda: theirs(images, labels)
    except ImportError:
        pass
    try:
        import foolbox

        model = foolbox.PyTorchModel(network, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=EPS / 4)
        found["foolbox LinfPGD"] = lambda: attack(model, images, labels, epsilons=EPS)
    except ImportError:
        pass
    return found


def pgd(network: nn.Module, images: Tensor, labels: Tensor, rounds: int) -> None:
    checked = PGD(eps=EPS, steps=STEPS, early_stop=False)
    leaving = replace(checked, early_stop=True)
    timings = compare(
        {
            "ten passes by hand": lambda: by_hand(network, images, labels),
            "PGD-10": lambda: checked(network, images, labels),
            "PGD-10, unchecked (in training)": lambda: checked(network, images, labels, check=False),
            "PGD-10, images leave as they fall": lambda: leaving(network, images, labels),
            **peers(network, images, labels),
        },
        rounds,
        device=images.device,
    )
    print(table(timings, f"PGD-10 on {len(images)} images, eps 8/255"), "\n")
    seconds = {t.name: t.median for t in timings}
    print(f"PGD-10: {timings[1].ratio:.3f} of the passes by hand (wanted: at most 1.03)")
    for t in timings[4:]:
        print(f"PGD-10: {seconds['PGD-10'] / t.median:.3f} of {t.name}")
    print()


def reference_schedule(attack: AutoAttack, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The reference implementation's: each attack takes the images that stand all the way; which stand."""
    standing = ~is_adversarial(network, images, labels)
    with mock.patch.object(fab, "project_onto_hyperplane", project_by_sorting):
        for part in replace(attack, early_stop=False).parts().values():
            rows = standing.nonzero()[:, 0]
            for own in rows.split(attack.batch_size):
                ended = part(network, images[own], labels[own])
                standing[own] = ~is_adversarial(network, ended, labels[own])
    return standing


def theirs(network: nn.Module, eps: float, steps: int, targets: int, queries: int) -> Callable[..., Tensor]:
    """The standard version of torchattacks with budgets of choice; it tries every wrong class."""
    import torchattacks as ta

    with torch.no_grad():
        classes = network(torch.zeros(1, 3, 32, 32, device=next(network.parameters()).device)).shape[1]
    if targets < classes - 1:
        raise SystemExit(f"--targets is {targets}: torchattacks tries all {classes - 1} wrong classes")
    common = {"eps": eps, "norm": "Linf"}
    parts = [
        ta.APGD(network, **common, steps=steps, loss="ce"),
        ta.APGDT(network, **common, steps=steps, n_classes=classes),
        ta.FAB(network, **common, steps=steps, multi_targeted=True, n_classes=classes),
        ta.Square(network, **common, n_queries=queries, resc_schedule=False),
    ]
    return ta.MultiAttack(parts)


def project_by_sorting(points: Tensor, normals: Tensor, offsets: Tensor, norm: str) -> Tensor:
    """As `fab.project_onto_hyperplane`, by the times at which pixels stop in order (Croce & Hein 2020)."""
    gap = offsets - (normals * points).sum(1)
    direction = torch.where(gap[:, None] < 0, -normals, normals).sign()
    size = normals.abs()
    rate = torch.ones_like(size) if norm == "linf" else size
    room = torch.where(direction > 0, 1 - points, points)
    stop, order = torch.where(size > 0, room / rate.clamp(min=1e-38), 0).sort(dim=1)
    slope = (size * rate).gather(1, order)
    stopped = (slope * stop).cumsum(1)
    moving = slope.flip(1).cumsum(1).flip(1) - slope
    gap = gap.abs()[:, None]
    piece = torch.searchsorted(stopped + stop * moving, gap).clamp(max=points.shape[1] - 1)
    before = (piece - 1).clamp(min=0)
    first = piece == 0
    rate_left = torch.where(first, moving[:, :1] + slope[:, :1], moving.gather(1, before))
    done = torch.where(first, 0, stopped.gather(1, before))
    time = ((gap - done) / rate_left.clamp(min=1e-38)).clamp(max=stop.gather(1, piece))
    return direction * torch.minimum(rate * time.clamp(min=0), room)


def autoattack(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    rounds: int,
    budget: dict[str, int],
    chosen: list[str],
    cpu_time: bool,
) -> None:
    attack = AutoAttack(eps=eps, batch_size=len(images), **budget)
    stands: dict[str, Tensor] = {}

    def run(name: str, **settings: bool | str) -> None:
        ended = replace(attack, **settings)(network, images, labels)
        stands[name] = ~is_adversarial(network, ended, labels)

    def reference() -> None:
        stands["reference"] = reference_schedule(attack, network, images, labels)

    def before() -> None:
        with mock.patch.object(fab, "project_onto_hyperplane", project_by_sorting):
            run("before", fold=False)

    def torchattacks() -> None:
        ended = theirs(network, eps, **budget)(images, labels)
        stands["torchattacks"] = ~is_adversarial(network, ended, labels)

    every: dict[str, Callable[[], object]] = {
        "reference": reference,
        "before": before,
        "newton": lambda: run("newton", fold=False),
        "float32": lambda: run("float32"),
        "bfloat16": lambda: run("bfloat16", precision="bf16-mixed"),
        "nobody": lambda: run("nobody", fold=False, early_stop=False),
        "torchattacks": torchattacks,
    }
    timings = compare(
        {CONTESTANTS[name]: every[name] for name in chosen},
        rounds,
        warmup=0,
        device=images.device,
        clock=time.process_time if cpu_time else time.perf_counter,
    )
    said = ", ".join(f"{name} {value}" for name, value in budget.items())
    clock = "CPU time" if cpu_time else "by the clock"
    print(
        table(timings, f"AutoAttack on {len(images)} images, eps {attack.eps * 255:.2f}/255, {said}, {clock}")
    )
    print()
    seconds = {name: timing.median for name, timing in zip(chosen, timings)}
    for name, wanted in (("reference", 0.5), ("before", 0.5), ("nobody", 0.6), ("torchattacks", 0.5)):
        for own in ("float32", "bfloat16"):
            if name in seconds and own in seconds:
                share = seconds[own] / seconds[name]
                print(f"{own}: {share:.3f} of {name} (wanted: {wanted})")
    first = stands[chosen[0]]
    for name, verdicts in stands.items():
        differ = (verdicts != first).sum().item()
        stand = f"{verdicts.float().mean():.1%} stand"
        print(f"{name}: {stand}, verdicts differ from {chosen[0]}'s on {differ} images (wanted: 0)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["pgd", "autoattack"])
    parser.add_argument("--steps", type=int, default=10, help="AutoAttack: of APGD and FAB (standard: 100)")
    parser.add_argument("--targets", type=int, default=9)
    parser.add_argument("--queries", type=int, default=500, help="AutoAttack: of Square (standard: 5000)")
    parser.add_argument("--run", type=Path, help="a run's folder: its network in place of resnet20")
    parser.add_argument("--standing", type=float, help="AutoAttack: search an eps at which this share stands")
    parser.add_argument(
        "--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS)[:5], help="of AutoAttack"
    )
    parser.add_argument("--cpu-time", action="store_true", help="of AutoAttack: for one thread beside others")
    arguments = parser.parse_args()
    if arguments.run:
        network, images, labels = run_subject(arguments.run, arguments.images, arguments.device)
    else:
        network, images, labels = subject(arguments.images, arguments.device)
    print(f"{arguments.run.name if arguments.run else 'resnet20'}, {hardware(arguments.device)}\n")
    if arguments.only != "autoattack":
        pgd(network, images, labels, arguments.rounds)
    if arguments.only != "pgd":
        budget = {"steps": arguments.steps, "targets": arguments.targets, "queries": arguments.queries}
        share = arguments.standing or (None if arguments.run else STANDING)
        eps = EPS if share is None else middling(network, images, labels, share)
        chosen = sorted(set(arguments.contestants), key=list(CONTESTANTS).index)
        autoattack(network, images, labels, eps, arguments.rounds, budget, chosen, arguments.cpu_time)


if __name__ == "__main__":
    main()
