"""Adversarial images under physical transformations: rotation, light, blur, print and photograph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.plots import COLOURS, bars
from vitrine.analyses.threat_model import class_index, format_budget, say_nothing_to_attack
from vitrine.analyses.traits import Traits
from vitrine.attacks import EOT, PGD, TRANSFORMATIONS, destruction_rate, is_adversarial
from vitrine.attacks.threat import eps_setting
from vitrine.core.random_numbers import content_keys, fold_in, uniform
from vitrine.core.settings import setting

TITLES = {
    "rotation": "turned",
    "scale": "nearer, farther",
    "perspective": "from the side",
    "light": "light",
    "blur": "blurred",
    "jpeg": "JPEG",
    "print_and_photograph": "photographed",
    "physical": "all at once",
}


@dataclass(frozen=True)
class Physical(Analysis):
    """Adversarial images by targeted PGD and by PGD on the mean over transformations (EOT), under every
    transformation, and the share of them that each transformation destroys.

    Scalars: "destruction/<attack>/<transformation>", of the images that are classified as their target before
    the transformation (Kurakin 2016).
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(section="Adversarial", budget_priority=20)
    enabled: bool = setting(False, "make these pictures at every checkpoint (minutes each)")
    probes: int = setting(8, "probes attacked, the first ones", least=1)
    shown: int = setting(4, "how many of them are shown", least=0)
    target: str | None = setting(None, "class (name or index) to be taken for; null: the one after the true")
    norm: str = setting("linf", "norm of the perturbation", choices=("linf", "l2"))
    eps: float = eps_setting(16 / 255, "largest perturbation, of [0, 1] pixels", above=0)
    steps: int = setting(100, "of both attacks", least=1)
    draws: int = setting(16, "EOT: transformations an image and step", least=1)
    draws_each: int = setting(16, "destruction rate: transformations an image", least=1)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        labels = subject.probes.labels.to(subject.device)
        if self.target is None:
            targets = (labels + 1) % len(subject.classes)
        else:
            targets = torch.full_like(labels, class_index(self.target, subject.classes))
        rows = (targets != labels).nonzero()[: self.probes, 0]
        if not len(rows):
            yield say_nothing_to_attack(subject, "physical", labels.tolist())
            return
        shard = subject.shard(len(rows))
        own = ([], {}, {})
        if shard:
            own = self._attack_probes(subject, rows[shard.start : shard.stop].tolist(), targets)
        figures, successes, destroyed = [], Counter(), Counter()
        for own_figures, own_successes, own_destroyed in subject.all_gather(own):
            figures += own_figures
            successes.update(own_successes)
            destroyed.update(own_destroyed)
        yield from figures[: self.shown]
        rates = {
            name: {
                side: destroyed[name, side] / (self.draws_each * count) if count else math.nan
                for side, count in successes.items()
            }
            for name in TITLES
        }
        for name, sides in rates.items():
            for side, rate in sides.items():
                if not math.isnan(rate):
                    yield Scalar(f"destruction/{side}/{name}", rate)
        success_rates = {side: count / len(rows) for side, count in successes.items()}
        yield self._rates_figure(rates, success_rates, len(rows))

    def _attack_probes(
        self, subject: Subject, probes: list[int], targets: Tensor
    ) -> tuple[list[Figure], dict[str, int], dict[tuple[str, str], int]]:
        """The figures of these probes; by attack, the number of images classified as their target; by
        transformation and attack, the number of draws in which these no longer are."""
        images, labels, targets = (
            tensor[probes]
            for tensor in (subject.probes.images, subject.probes.labels.to(subject.device), targets)
        )
        adversarial_images = self._attack(subject, images, targets)
        figures = []
        for i, probe in list(enumerate(probes))[: self.shown]:
            sides = {name: side[i : i + 1] for name, side in {"image": images, **adversarial_images}.items()}
            figures.append(self._figure(subject, probe, sides, int(labels[i]), int(targets[i])))
        successes, destroyed = {}, {}
        for side, adversarial in adversarial_images.items():
            successes[side] = int(is_adversarial(subject.network, adversarial, targets, targeted=True).sum())
            for name in TITLES:
                rate = destruction_rate(
                    subject.network,
                    images,
                    adversarial,
                    labels,
                    name,
                    targets=targets,
                    draws_each=self.draws_each,
                    seed=subject.seed + 1,  # other draws than the attack's
                )
                draws = self.draws_each * successes[side]
                destroyed[name, side] = round(rate * draws) if draws else 0
        return figures, successes, destroyed

    def _attack(self, subject: Subject, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        # all steps, as in EOT: an image that barely crosses the boundary survives no transformation
        attack = PGD(
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            step=2.5 * self.eps / self.steps if self.norm == "l2" else self.eps / 8,
            targeted=True,
            seed=subject.seed,
            early_stop=False,
        )
        eot = EOT(attack, random_transformation, draws=self.draws)
        return {name: a(subject.network, images, targets) for name, a in {"PGD": attack, "EOT": eot}.items()}

    def _figure(
        self, subject: Subject, probe: int, sides: dict[str, Tensor], label: int, target: int
    ) -> Figure:
        names, longest = subject.classes, max(sides["image"].shape[-2:])
        side_length = min(longest * max(1, round(96 / longest)), 128)
        tiles, captions, highlighted, values, summaries = [], [], [], {}, []
        keys = fold_in(content_keys(sides["image"]), subject.seed + 1)
        for side, image in sides.items():
            transformed = [TRANSFORMATIONS[name]()(image, fold_in(keys, i)) for i, name in enumerate(TITLES)]
            views = torch.cat([image, *transformed])
            with torch.no_grad():
                probabilities = subject.network(views).float().softmax(1)
            predicted = probabilities.argmax(1).tolist()
            tiles.append([paint.resize(paint.picture(view), side_length) for view in views])
            captions.append([f"{names[c]} {probabilities[i, c]:.0%}" for i, c in enumerate(predicted)])
            highlighted.append([c == target for c in predicted])
            for name, probability in zip(("as it is", *TITLES), probabilities):
                values[f"{side}/{name}"] = probability[target].item()
            survived = [TITLES[name] for name, c in zip(TITLES, predicted[1:]) if c == target]
            if side != "image":
                taken = f"is taken for {names[target]} after {len(survived)} of {len(TITLES)}"
                summaries.append(f"{side}: {captions[-1][0]}, {taken}")
        return Figure(
            key=f"probe-{probe:03d}/as {names[target]}",
            image=picture_table(tiles, ["as it is", *TITLES.values()], list(sides), captions, highlighted),
            caption=f"probe {probe}, {names[label]}, to be taken for {names[target]} (red), "
            f"{format_budget(self.norm, self.eps)}, under each transformation. {'; '.join(summaries)}.",
            probe=probe,
            label=target,
            values=values,
        )

    def _rates_figure(
        self, rates: dict[str, dict[str, float]], success_rates: dict[str, float], count: int
    ) -> Figure:
        groups = {
            TITLES[name]: {side: 100 * rate for side, rate in sides.items()} for name, sides in rates.items()
        }
        successes = ", ".join(f"{side} {rate:.0%}" for side, rate in success_rates.items())
        return Figure(
            key="destruction rates",
            image=bars(
                groups,
                {"PGD": COLOURS["pgd"], "EOT": COLOURS["robust"]},
                "destruction rate (% of adversarial images undone)",
                105,
            ),
            caption=f"Which share of the adversarial images ({format_budget(self.norm, self.eps)}) each "
            "transformation undoes, so that they are no longer taken for the target; "
            f"{self.draws_each} draws an image. Taken for it as they are: {successes} of {count} probes.",
            values={
                **{f"reached/{side}": rate for side, rate in success_rates.items()},
                **{f"{side}/{name}": rate for name, sides in rates.items() for side, rate in sides.items()},
            },
        )


def random_transformation(images: Tensor, keys: Tensor) -> Tensor:
    """Images [N, C, H, W], each under a transformation drawn from its key [N]: half of them under all
    transformations at once, the others under a single one or none."""
    names = [None, *TITLES]
    # separate keys: the number that selects must not also parameterize what it selects
    selection, keys = fold_in(keys, 0), fold_in(keys, 1)
    number = (uniform(selection, 1)[:, 0] * 2 * len(TITLES)).long().clamp(max=len(TITLES))
    rows = [(number == i).nonzero()[:, 0] for i in range(len(names))]
    transformed = [
        images[own] if name is None else TRANSFORMATIONS[name]()(images[own], keys[own])
        for name, own in zip(names, rows)
        if len(own)
    ]
    return torch.cat(transformed)[torch.cat(rows).argsort()]
