"""In the physical world: adversarial images turned, lit, blurred, printed and photographed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.plots import COLOURS, bars
from vitrine.analyses.threat_model import class_index, format_budget
from vitrine.analyses.traits import Traits
from vitrine.attacks import EOT, PGD, TRANSFORMATIONS, destruction_rate, is_adversarial
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
    """Each probe, made to be taken for a target by plain PGD and by PGD on the mean over transformations
    (EOT), under every transformation; and which share of the adversarial images each transformation undoes.

    Scalars: "destruction/<attack>/<transformation>", of those taken for their target as they are (Kurakin
    2016).
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(section="Adversarial", budget_priority=20)
    enabled: bool = setting(False, "make these pictures at every checkpoint (minutes each)")
    probes: int = setting(8, "probes attacked, the first ones", least=1)
    shown: int = setting(4, "how many of them are shown", least=0)
    target: str | None = setting(
        None, "class to be taken for (name or index); null: the one after the true one in the list"
    )
    norm: str = setting("linf", "norm of the perturbation", choices=("linf", "l2"))
    eps: float = setting(16 / 255, "largest perturbation, of [0, 1] pixels", above=0)
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
            return
        own = subject.shard(len(rows))
        made = self._made(subject, rows[own.start : own.stop].tolist(), targets) if own else ([], {}, {})
        parts = subject.all_gather(made)
        shown = [figure for figures, _, _ in parts for figure in figures]
        yield from shown[: self.shown]
        reached, undone = (_sum(part[place] for part in parts) for place in (1, 2))
        rates = {
            name: {
                side: undone[name, side] / (self.draws_each * count) if count else math.nan
                for side, count in reached.items()
            }
            for name in TITLES
        }
        for name, sides in rates.items():
            for side, rate in sides.items():
                if not math.isnan(rate):
                    yield Scalar(f"destruction/{side}/{name}", rate)
        yield self._rates_figure(
            rates, {side: count / len(rows) for side, count in reached.items()}, len(rows)
        )

    def _made(
        self, subject: Subject, probes: list[int], targets: Tensor
    ) -> tuple[list[Figure], dict[str, int], dict[tuple[str, str], int]]:
        """The figures of these probes; how many are taken for their target by attack; and by transformation
        and attack, in how many draws they no longer are."""
        images, labels, targets = (
            whole[probes]
            for whole in (subject.probes.images, subject.probes.labels.to(subject.device), targets)
        )
        found = self._attacked(subject, images, targets)
        figures = []
        for i, probe in list(enumerate(probes))[: self.shown]:
            sides = {name: side[i : i + 1] for name, side in {"image": images, **found}.items()}
            figures.append(self._figure(subject, probe, sides, int(labels[i]), int(targets[i])))
        reached, undone = {}, {}
        for side, adversarial in found.items():
            reached[side] = int(is_adversarial(subject.network, adversarial, targets, targeted=True).sum())
            for name in TITLES:
                rate = destruction_rate(
                    subject.network,
                    images,
                    adversarial,
                    labels,
                    name,
                    targets=targets,
                    draws_each=self.draws_each,
                    seed=subject.seed + 1,  # other draws than the search has seen
                )
                undone[name, side] = round(rate * self.draws_each * reached[side]) if reached[side] else 0
        return figures, reached, undone

    def _attacked(self, subject: Subject, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        # all steps, as EOT's: an image that barely crosses the boundary survives nothing
        attack = PGD(
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            step=2.5 * self.eps / self.steps if self.norm == "l2" else self.eps / 8,
            targeted=True,
            seed=subject.seed,
            early_stop=False,
        )
        eot = EOT(attack, one_of_them, draws=self.draws)
        return {name: a(subject.network, images, targets) for name, a in {"PGD": attack, "EOT": eot}.items()}

    def _figure(
        self, subject: Subject, probe: int, sides: dict[str, Tensor], label: int, target: int
    ) -> Figure:
        names, side_length = subject.classes, _tile_side(sides["image"].shape[-2:])
        tiles, words, red, values, told = [], [], [], {}, []
        keys = fold_in(content_keys(sides["image"]), subject.seed + 1)
        for side, image in sides.items():
            seen = [TRANSFORMATIONS[name]()(image, fold_in(keys, place)) for place, name in enumerate(TITLES)]
            seen = torch.cat([image, *seen])
            with torch.no_grad():
                chances = subject.network(seen).float().softmax(1)
            predicted = chances.argmax(1).tolist()
            tiles.append([paint.resize(paint.picture(one), side_length) for one in seen])
            words.append([f"{names[c]} {chances[i, c]:.0%}" for i, c in enumerate(predicted)])
            red.append([c == target for c in predicted])
            for name, chance in zip(("as it is", *TITLES), chances):
                values[f"{side}/{name}"] = chance[target].item()
            kept = [TITLES[name] for name, c in zip(TITLES, predicted[1:]) if c == target]
            if side != "image":
                told.append(
                    f"{side}: {words[-1][0]}, is taken for {names[target]} after {len(kept)} of {len(TITLES)}"
                )
        return Figure(
            key=f"probe-{probe:03d}/as {names[target]}",
            image=picture_table(tiles, ["as it is", *TITLES.values()], list(sides), words, red),
            caption=f"probe {probe}, {names[label]}, to be taken for {names[target]} (red), "
            f"{format_budget(self.norm, self.eps)}, under each transformation. {'; '.join(told)}.",
            probe=probe,
            label=target,
            values=values,
        )

    def _rates_figure(
        self, rates: dict[str, dict[str, float]], reached: dict[str, float], count: int
    ) -> Figure:
        groups = {
            TITLES[name]: {side: 100 * rate for side, rate in sides.items()} for name, sides in rates.items()
        }
        told = ", ".join(f"{side} {share:.0%}" for side, share in reached.items())
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
            f"{self.draws_each} draws an image. Taken for it as they are: {told} of {count} probes.",
            values={
                **{f"reached/{side}": share for side, share in reached.items()},
                **{f"{side}/{name}": rate for name, sides in rates.items() for side, rate in sides.items()},
            },
        )


def _sum(counts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for some in counts:
        total.update(some)
    return dict(total)


def one_of_them(images: Tensor, keys: Tensor) -> Tensor:
    """Images [N, C, H, W] under a transformation each, drawn from its key [N].

    Half of them under all at once, the others under a single one or none.
    """
    names = [None, *TITLES]
    # else the number that chooses would also be the first that is drawn in what is chosen
    choice, keys = fold_in(keys, 0), fold_in(keys, 1)
    number = (uniform(choice, 1)[:, 0] * 2 * len(TITLES)).long().clamp(max=len(TITLES))
    rows = [(number == place).nonzero()[:, 0] for place in range(len(names))]
    seen = [
        images[own] if name is None else TRANSFORMATIONS[name]()(images[own], keys[own])
        for name, own in zip(names, rows)
        if len(own)
    ]
    return torch.cat(seen)[torch.cat(rows).argsort()]


def _tile_side(size: tuple[int, ...]) -> int:
    """Pixels a side of a tile: small images enlarged by whole pixels to about 96, large ones made smaller."""
    side = max(size)
    return min(side * max(1, round(96 / side)), 128)
