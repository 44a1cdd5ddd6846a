"""Each probe beside the maps of relevance that a transformer's attention gives, and its Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import Effort, attributions, cam_layer
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.subject_attention import log_missing_attention, structure_of
from vitrine.analyses.target_scores import true_and_predicted
from vitrine.analyses.traits import Traits
from vitrine.core.registry import UnknownName
from vitrine.core.settings import setting

TITLES = {
    "legrad": "LeGrad",
    "chefer": "Chefer's relevance",
    "attention_gradient": "attention x gradient",
    "rollout": "attention rollout",
}


@dataclass(frozen=True)
class ProbeRelevance(Analysis):
    """Each probe, its Grad-CAM and its maps of relevance: a row for the true class and, where it is another,
    one for the predicted class. A network without attention yields nothing.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Class maps",
        title="Relevance of image tokens",
        page_order=35,
        confidences={"probability": ""},
        budget_priority=115,
    )
    probes: int = setting(8, "probes shown, the first ones", least=1)
    maps: list[str] = setting(list(TITLES), f"maps beside Grad-CAM, left to right: {', '.join(TITLES)}")

    def __post_init__(self) -> None:
        for name in self.maps:
            if name not in TITLES:
                raise UnknownName("map", name, TITLES)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        if not structure_of(subject).blocks:
            log_missing_attention(subject, "relevance")
            return
        probes = range(min(self.probes, len(subject.probes)))
        yield from subject.map_sharded(probes, partial(self._figures, subject))

    def _figures(self, subject: Subject, probes: Sequence[int]) -> Iterator[Figure]:
        images, labels = subject.probes.images[list(probes)], subject.probes.labels[list(probes)]
        of, targets, logits = true_and_predicted(subject.network, images, labels)
        probabilities = logits.softmax(1)
        level, effort = subject.log_level("relevance"), Effort(batch_size=subject.batch_size)
        maps = attributions(subject.network, self.maps, images[of], targets, None, effort, level)
        if not maps:
            return
        layer = cam_layer(subject)
        if layer is not None:
            maps = attributions(subject.network, ["grad_cam"], images[of], targets, layer, effort) | maps
        titles = {name: TITLES.get(name, "Grad-CAM") for name in maps}
        less = ", LeGrad's minimum subtracted before"
        for i, probe in enumerate(probes):
            rows = (of == i).nonzero()[:, 0].tolist()
            names = [subject.classes[int(targets[row])] for row in rows]
            shares = [probabilities[i, targets[row]].item() for row in rows]
            roles = ["true", "predicted"] if len(rows) > 1 else ["true and predicted"]
            classes = [f"{n} ({role}, {share:.0%})" for n, share, role in zip(names, shares, roles)]
            yield Figure(
                key=f"probe-{probe:03d}/maps",
                image=_table(
                    images[i],
                    {titles[name]: values[rows] for name, values in maps.items()},
                    [f"{name} {share:.0%}" for name, share in zip(names, shares)],
                ),
                caption=f"probe {probe}, {', below it '.join(classes)}: image, {', '.join(titles.values())}, "
                f"each divided by its maximum{less * ('legrad' in titles)}"
                f"{'; rollout is of all classes alike' * ('rollout' in titles)}",
                probe=probe,
                label=int(labels[i]),
                values={
                    "probability": shares[0],
                    **{name: values[rows[0]].max().item() for name, values in maps.items()},
                },
            )


def _table(image: Tensor, maps: dict[str, Tensor], titles: list[str]) -> Tensor:
    """The image and its maps, each [rows, H, W], with the maps' titles above and the rows' beside them."""
    side = paint.tile_side(image.shape[-2:])
    rows = [
        [paint.picture(image), *(paint.overlay_heatmap(values[r], image) for values in maps.values())]
        for r in range(len(titles))
    ]
    tiles = [[paint.resize(tile, side) for tile in row] for row in rows]
    return picture_table(tiles, ["image", *maps], titles)
