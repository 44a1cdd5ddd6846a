"""What fools the network, and what that does to where it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import Effort, attributions, cam_layer, strength
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.pointing import energy_inside
from vitrine.analyses.probe_saliency import bright, tile_side
from vitrine.analyses.threat_model import class_index, format_budget
from vitrine.analyses.traits import Summary, Traits
from vitrine.attacks import PGD
from vitrine.core.settings import setting

TIMES = 10  # how much larger than it is the perturbation is shown


@dataclass(frozen=True)
class Adversarial(Analysis):
    """For each probe what PGD makes of it: above the image, below the adversarial image, and beside each the
    gradient of the true class and the Grad-CAMs of the true class and of the one it is taken for.

    Scalars: `fooled`, the share of the rightly classified probes that are not afterwards (with a target: of
    all others' probes, those taken for it); `confidence_drop`, the mean fall of the true class's probability;
    "gradient_on_<mask>/clean" and "/adversarial", the share of the gradient's magnitude that lies on a thing,
    where the data set knows where things are.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Adversarial",
        title="Adversarial examples",
        page_order=70,
        summaries=(Summary("fooled"),),
        confidences={"adversarial/true": "under attack"},
        budget_priority=80,
    )
    probes: int = setting(8, "probes attacked, the first ones", least=1)
    target: str | None = setting(
        None, "class that probes are to be taken for (name or index); null: any wrong one"
    )
    norm: str = setting("linf", "norm of the perturbation", choices=("linf", "l2"))
    eps: float = setting(8 / 255, "largest perturbation, of [0, 1] pixels", above=0)
    steps: int = setting(20, "of PGD", least=1)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        target = None if self.target is None else class_index(self.target, subject.classes)
        labels = subject.probes.labels[: self.probes].tolist()
        chosen = [i for i, label in enumerate(labels) if target is None or label != target]
        pairs = subject.map_sharded(chosen, partial(self._made, subject, target))
        yield from (figure for figure, _ in pairs)
        yield from _scalars([facts for _, facts in pairs])

    def _made(
        self, subject: Subject, target: int | None, chosen: Sequence[int]
    ) -> Iterator[tuple[Figure, dict[str, float]]]:
        """Of each of these probes the figure, and what the curves are made of."""
        images = subject.probes.images[list(chosen)]
        labels = subject.probes.labels[list(chosen)].to(subject.device)
        # all steps, whoever has fallen: how sure the network becomes is part of the picture
        attack = PGD(
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            targeted=target is not None,
            seed=subject.seed,
            early_stop=False,
        )
        goals = labels if target is None else torch.full_like(labels, target)
        pair = _Pair(subject, images, attack(subject.network, images, goals), labels, target)
        masks = {name: mask[list(chosen)].cpu() for name, mask in (subject.probes.masks or {}).items()}
        inside = {
            name: {side: energy_inside(pair.strength[side].cpu(), mask) for side in pair.strength}
            for name, mask in masks.items()
            if subject.probes.masks[name].any()
        }
        for i, probe in enumerate(chosen):
            there = [name for name in inside if masks[name][i].any()]
            yield self._figure(subject, pair, i, probe, inside), pair.facts(i, target, inside, there)

    def _figure(
        self, subject: Subject, pair: _Pair, i: int, probe: int, inside: dict[str, dict[str, Tensor]]
    ) -> Figure:
        label, versus = int(pair.labels[i]), int(pair.versus[i])
        name, other = subject.classes[label], subject.classes[versus]
        columns = ["image", "perturbation", f"gradient\n{name}", f"Grad-CAM\n{name}", f"Grad-CAM\n{other}"]
        rows, words, red, values, predictions = [], [], [], {}, {}
        for side, images in pair.images.items():
            tiles, below = pair.row(side, i)
            predicted = int(pair.predicted[side][i])
            chances = pair.chances[side][i]
            predictions[side] = f"{subject.classes[predicted]} {chances[predicted]:.0%}"
            below[0] = predictions[side]
            below[2] = ", ".join(f"{found[side][i]:.0%} on the {thing}" for thing, found in inside.items())
            rows.append([paint.resize(tile, tile_side(images.shape[-2:])) for tile in tiles])
            words.append(below)
            red.append([predicted != label] + [False] * (len(tiles) - 1))
            values |= {f"{side}/true": chances[label].item(), f"{side}/other": chances[versus].item()}
            values |= {
                f"{side}/gradient_on_{thing}": found[side][i].item() for thing, found in inside.items()
            }
        columns = columns[: len(rows[0])]
        attack = f"PGD-{self.steps}{'' if self.target is None else f' towards {other}'}"
        cams = f"; Grad-CAM for {name} and for {other}" if len(columns) > 3 else ""
        return Figure(
            key=f"probe-{probe:03d}/{name if self.target is None else f'as {other}'}",
            image=picture_table(rows, columns, ["as it is", "adversarial"], words, red),
            caption=f"probe {probe}, {name}: {predictions['clean']} as it is, {predictions['adversarial']} "
            f"after {attack} ({format_budget(self.norm, self.eps)}). Image; perturbation (mid-grey is none), "
            f"{TIMES} times and as it is; gradient of the log-probability of {name}{cams}.",
            probe=probe,
            label=label if self.target is None else versus,
            values=values,
        )


class _Pair:
    """The images and what became of them: predictions and maps of both, by side.

    Attributes:
        versus: the target; else what the adversarial image is taken for, or next to that for its own class.
    """

    def __init__(
        self, subject: Subject, images: Tensor, adversarial: Tensor, labels: Tensor, target: int | None
    ):
        self.labels, self.images = labels, {"clean": images, "adversarial": adversarial}
        with torch.no_grad():
            self.chances = {k: subject.network(v).float().softmax(1) for k, v in self.images.items()}
        self.predicted = {side: chances.argmax(1) for side, chances in self.chances.items()}
        others = self.chances["adversarial"].scatter(1, labels[:, None], -1)
        self.versus = others.argmax(1) if target is None else torch.full_like(labels, target)
        both = torch.cat([*self.images.values()] * 2)
        classes = torch.cat([labels, labels, self.versus, self.versus])
        count, effort, layer = len(images), Effort(), cam_layer(subject)
        gradient = attributions(
            subject.network, ["gradient"], both[: 2 * count], classes[: 2 * count], layer, effort
        )["gradient"]
        cams = attributions(subject.network, ["grad_cam"] if layer else [], both, classes, layer, effort)
        self.gradient = dict(zip(self.images, gradient.split(count)))
        self.strength = {side: strength("gradient", maps) for side, maps in self.gradient.items()}
        parts = cams["grad_cam"].split(count) if cams else ()
        self.cams = {"clean": parts[0::2], "adversarial": parts[1::2]}

    def facts(
        self, i: int, target: int | None, inside: dict[str, dict[str, Tensor]], there: Sequence[str]
    ) -> dict[str, float]:
        """What the curves are made of, for image i; `there`: the things that are in it."""
        label, after = int(self.labels[i]), int(self.predicted["adversarial"][i])
        facts = {}
        if target is not None:
            facts["fooled"] = float(after == target)
        elif int(self.predicted["clean"][i]) == label:
            facts["fooled"] = float(after != label)
        true = {side: chances[i, label] for side, chances in self.chances.items()}
        facts["confidence_drop"] = (true["clean"] - true["adversarial"]).item()
        for thing in there:
            facts |= {f"gradient_on_{thing}/{side}": own[i].item() for side, own in inside[thing].items()}
        return facts

    def row(self, side: str, i: int) -> tuple[list[Tensor], list[str]]:
        """The pictures of one side of image i, and what is to be said of each."""
        image, gradient = self.images[side][i], self.gradient[side][i]
        change = self.images["adversarial"][i] - self.images["clean"][i]
        times = TIMES if side == "clean" else 1
        tiles = [
            paint.picture(image),
            paint.signed_picture(change * times, scale=0.5),
            paint.signed_picture(gradient, bright(gradient.abs().amax(0))),
            *(paint.overlay_heatmap(cam[i], image) for cam in self.cams[side]),
        ]
        return tiles, ["", f"× {times}", "", *(f"maximum {cam[i].max():.2g}" for cam in self.cams[side])]


def _scalars(facts: Sequence[dict[str, float]]) -> Iterator[Scalar]:
    """The mean of every fact over the probes that have it."""
    for name in dict.fromkeys(name for one in facts for name in one):
        yield Scalar(name, torch.tensor([one[name] for one in facts if name in one]).mean().item())
