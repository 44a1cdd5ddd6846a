"""Adversarial examples of the probes, and how they change predictions and attribution maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import Effort, attributions, cam_layer, importance
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.pointing import energy_inside
from vitrine.analyses.threat_model import class_index, format_budget, say_nothing_to_attack
from vitrine.analyses.traits import Summary, Traits
from vitrine.attacks import PGD
from vitrine.attacks.threat import eps_setting
from vitrine.core.settings import setting

Inside = dict[str, dict[str, Tensor]]  # by mask and side: the gradient's share in the mask, [N]

AMPLIFICATION = 10  # of the perturbation in one of its two pictures


@dataclass(frozen=True)
class Adversarial(Analysis):
    """Each probe and its adversarial example by PGD, one below the other, each with the gradient of the true
    class and the Grad-CAMs of the true and of the adversarially predicted class.

    Scalars: `fooled`, the share of the correctly classified probes that are misclassified after the attack
    (with a target: of the probes of other classes, the share that is classified as the target);
    `confidence_drop`, the mean decrease of the true class's probability; "gradient_on_<mask>/clean" and
    "/adversarial", the share of the gradient's magnitude inside a mask, where the data set has masks.
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
    target: str | None = setting(None, "class (name or index) to be taken for; null: any wrong one")
    norm: str = setting("linf", "norm of the perturbation", choices=("linf", "l2"))
    eps: float = eps_setting(8 / 255, "largest perturbation, of [0, 1] pixels", above=0)
    steps: int = setting(20, "of PGD", least=1)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        target = None if self.target is None else class_index(self.target, subject.classes)
        labels = subject.probes.labels[: self.probes].tolist()
        probes = [i for i, label in enumerate(labels) if target is None or label != target]
        if not probes:
            yield say_nothing_to_attack(subject, "adversarial", labels)
        results = subject.map_sharded(probes, partial(self._attack_probes, subject, target))
        yield from (figure for figure, _ in results)
        scalars = [own for _, own in results]
        for name in dict.fromkeys(name for own in scalars for name in own):
            yield Scalar(name, torch.tensor([own[name] for own in scalars if name in own]).mean().item())

    def _attack_probes(
        self, subject: Subject, target: int | None, probes: Sequence[int]
    ) -> Iterator[tuple[Figure, dict[str, float]]]:
        """The figure and the scalars of each of these probes."""
        images = subject.probes.images[list(probes)]
        labels = subject.probes.labels[list(probes)].to(subject.device)
        # all steps, also after success: the figure shows how confident the network becomes
        attack = PGD(
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            targeted=target is not None,
            seed=subject.seed,
            early_stop=False,
        )
        attack_labels = labels if target is None else torch.full_like(labels, target)
        adversarial = attack(subject.network, images, attack_labels)
        comparison = _Comparison(subject, images, adversarial, labels, target)
        masks = {name: mask[list(probes)].cpu() for name, mask in (subject.probes.masks or {}).items()}
        inside = {
            name: {side: energy_inside(maps.cpu(), mask) for side, maps in comparison.importance.items()}
            for name, mask in masks.items()
            if subject.probes.masks[name].any()
        }
        for i, probe in enumerate(probes):
            present = [name for name in inside if masks[name][i].any()]
            figure = self._figure(subject, comparison, i, probe, inside)
            yield figure, comparison.scalars(i, target, inside, present)

    def _figure(
        self, subject: Subject, comparison: _Comparison, i: int, probe: int, inside: Inside
    ) -> Figure:
        label, versus = int(comparison.labels[i]), int(comparison.versus[i])
        name, other = subject.classes[label], subject.classes[versus]
        columns = ["image", "perturbation", f"gradient\n{name}", f"Grad-CAM\n{name}", f"Grad-CAM\n{other}"]
        rows, captions, highlighted, values, predictions = [], [], [], {}, {}
        for side, images in comparison.images.items():
            tiles, tile_captions = comparison.row(side, i)
            predicted = int(comparison.predicted[side][i])
            probabilities = comparison.probabilities[side][i]
            predictions[side] = f"{subject.classes[predicted]} {probabilities[predicted]:.0%}"
            on_masks = {mask: shares[side][i].item() for mask, shares in inside.items()}
            tile_captions[0] = predictions[side]
            tile_captions[2] = ", ".join(f"{share:.0%} on the {mask}" for mask, share in on_masks.items())
            rows.append([paint.resize(tile, paint.tile_side(images.shape[-2:])) for tile in tiles])
            captions.append(tile_captions)
            highlighted.append([predicted != label] + [False] * (len(tiles) - 1))
            values |= {
                f"{side}/true": probabilities[label].item(),
                f"{side}/other": probabilities[versus].item(),
                **{f"{side}/gradient_on_{mask}": share for mask, share in on_masks.items()},
            }
        columns = columns[: len(rows[0])]
        attack = f"PGD-{self.steps}{'' if self.target is None else f' towards {other}'}"
        cams = f"; Grad-CAM for {name} and for {other}" if len(columns) > 3 else ""
        return Figure(
            key=f"probe-{probe:03d}/{name if self.target is None else f'as {other}'}",
            image=picture_table(rows, columns, ["as it is", "adversarial"], captions, highlighted),
            caption=f"probe {probe}, {name}: {predictions['clean']} as it is, {predictions['adversarial']} "
            f"after {attack} ({format_budget(self.norm, self.eps)}). Image; perturbation (mid-grey is none), "
            f"{AMPLIFICATION} times and as it is; gradient of the log-probability of {name}{cams}.",
            probe=probe,
            label=label if self.target is None else versus,
            values=values,
        )


class _Comparison:
    """Images and their adversarial examples: predictions and attribution maps of both sides, "clean" and
    "adversarial"."""

    def __init__(
        self, subject: Subject, images: Tensor, adversarial: Tensor, labels: Tensor, target: int | None
    ):
        self.labels, self.images = labels, {"clean": images, "adversarial": adversarial}
        with torch.no_grad():
            self.probabilities = {k: subject.network(v).float().softmax(1) for k, v in self.images.items()}
        self.predicted = {side: probabilities.argmax(1) for side, probabilities in self.probabilities.items()}
        others = self.probabilities["adversarial"].scatter(1, labels[:, None], -1)
        # the class that the true one is shown beside: the target, or the most probable wrong one
        self.versus = others.argmax(1) if target is None else torch.full_like(labels, target)
        images_twice = torch.cat([*self.images.values()] * 2)
        classes = torch.cat([labels, labels, self.versus, self.versus])
        count, layer = len(images), cam_layer(subject)
        attribute = partial(
            attributions, subject.network, layer=layer, effort=Effort(batch_size=subject.batch_size)
        )
        gradient = attribute(["gradient"], images_twice[: 2 * count], classes[: 2 * count])["gradient"]
        cams = attribute(["grad_cam"] if layer else [], images_twice, classes)
        self.gradient = dict(zip(self.images, gradient.split(count)))
        self.importance = {side: importance("gradient", maps) for side, maps in self.gradient.items()}
        parts = cams["grad_cam"].split(count) if cams else ()
        self.cams = {"clean": parts[0::2], "adversarial": parts[1::2]}

    def scalars(self, i: int, target: int | None, inside: Inside, present: Sequence[str]) -> dict[str, float]:
        """The scalars of image i; `present`: the masks that are not empty on it."""
        label, attacked = int(self.labels[i]), int(self.predicted["adversarial"][i])
        scalars = {}
        if target is not None:
            scalars["fooled"] = float(attacked == target)
        elif int(self.predicted["clean"][i]) == label:
            scalars["fooled"] = float(attacked != label)
        true = {side: probabilities[i, label] for side, probabilities in self.probabilities.items()}
        scalars["confidence_drop"] = (true["clean"] - true["adversarial"]).item()
        for mask in present:
            scalars |= {f"gradient_on_{mask}/{side}": own[i].item() for side, own in inside[mask].items()}
        return scalars

    def row(self, side: str, i: int) -> tuple[list[Tensor], list[str]]:
        """The pictures of one side of image i, and a caption for each."""
        image, gradient = self.images[side][i], self.gradient[side][i]
        change = self.images["adversarial"][i] - self.images["clean"][i]
        factor = AMPLIFICATION if side == "clean" else 1
        tiles = [
            paint.picture(image),
            paint.signed_picture(change * factor, scale=0.5),
            paint.signed_picture(gradient, paint.percentile_scale(gradient.abs().amax(0))),
            *(paint.overlay_heatmap(cam[i], image) for cam in self.cams[side]),
        ]
        return tiles, ["", f"× {factor}", "", *(f"maximum {cam[i].max():.2g}" for cam in self.cams[side])]
