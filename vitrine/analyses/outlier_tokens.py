"""Patch tokens whose norm is far from the rest's, in which networks keep what is global (Darcet 2024)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.attention_structure import TokenGrid, spread
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject, Table, alarm
from vitrine.analyses.hooks import output_hooks
from vitrine.analyses.layout import layouts
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.subject_attention import log_missing_attention, structure_of
from vitrine.analyses.traits import Summary, Traits
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.settings import setting

log = logging.getLogger(__name__)

DEVIATIONS = 6  # above the median, of a normal distribution with the norms' interquartile range
LEAST = 2  # medians


def outlier_cut(norms: Tensor) -> float:
    """The norm above which a token is an outlier among tokens of these norms.

    Six standard deviations above the median, and at least twice the median; the deviation is the
    interquartile range / 1.349, which outliers do not change. Darcet 2024 take a fixed cut of the networks
    that they look at (150 in DINOv2 ViT-g, where most norms are below 60).
    """
    low, median, high = (
        norms.flatten().double().quantile(norms.new_tensor([0.25, 0.5, 0.75]).double()).tolist()
    )
    return max(median + DEVIATIONS * (high - low) / 1.349, LEAST * median)


@in_eager_eval_mode
def token_norms(
    network: nn.Module, images: Tensor, layers: Sequence[str], grids: Mapping[str, TokenGrid] | None = None
) -> dict[str, Tensor]:
    """The L2 norms of the patch tokens that blocks give, as maps [B, h, w] by block; prefix tokens left out.

    Args:
        grids: of the tokens of those layers that give [B, tokens, C] and whose places are known; those of
            others are measured.

    Raises:
        UnknownName: there is no such layer; ValueError: its output is no grid of tokens.
    """
    grids, norms = grids or {}, {}
    layout = layouts(network, images, [layer for layer in layers if layer not in grids])

    def keep(layer: str, output: Tensor) -> None:
        if layer in grids:
            norms[layer] = grids[layer].to_map(output.float().norm(dim=-1)[:, None])
        else:
            norms[layer] = layout[layer].maps(output).float().norm(dim=1)

    with torch.no_grad(), output_hooks(network, layers, keep, stop=True):
        network(images)
    return norms


@dataclass(frozen=True)
class OutlierTokens(Analysis):
    """For each probe the norms of its patch tokens in blocks spread over the depth, outliers framed.

    Scalars: "outlier_share/<block>", the share of outliers (`outlier_cut`) among the patch tokens of all
    probes, for the blocks shown; "alarm/outlier_tokens", 1 as soon as any block has one. A network
    without attention yields nothing.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Attention",
        title="Outlier tokens",
        page_order=36,
        summaries=(Summary("alarm/outlier_tokens", parts=2),),
        budget_priority=85,
    )
    probes: int = setting(8, "probes shown, the first ones; shares are of all", least=1)
    blocks: int = setting(4, "blocks shown, evenly over the depth, with the last", least=1)
    side: int = setting(96, "longer side of a map, in pixels", least=8)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        grids = _known_grids(subject)
        names = _blocks_with_maps(subject, grids)
        if not names:
            log_missing_attention(subject, "outlier_tokens")
            return
        compute = partial(_norms, subject, names, grids)
        per_probe = subject.map_sharded(range(len(subject.probes)), compute)
        norms = {name: torch.stack([of[name] for of in per_probe]) for name in names}  # [probes, h, w]
        cuts = {name: outlier_cut(of) for name, of in norms.items()}
        shares = {name: (norms[name] > cuts[name]).double().mean().item() for name in names}
        shown = [names[i] for i in spread(len(names), self.blocks)]
        titles = ["image", *(f"block {names.index(name)}" for name in shown)]
        for probe in range(min(self.probes, len(subject.probes))):
            yield self._figure(subject, probe, {name: norms[name][probe] for name in shown}, cuts, titles)
        for name in shown:
            yield Scalar(f"outlier_share/{name}", shares[name])
        found = {name: share for name, share in shares.items() if share}
        worst = max(found, key=found.__getitem__, default="")
        text = f"{len(found)} of {len(names)} blocks have tokens of outlying norm, {worst} most: "
        yield alarm("outlier_tokens", text + f"{found[worst]:.1%} of its patch tokens" if found else "")

    def _figure(
        self,
        subject: Subject,
        probe: int,
        norms: dict[str, Tensor],
        cuts: dict[str, float],
        titles: list[str],
    ) -> Figure:
        label = int(subject.probes.labels[probe])
        picture = paint.resize(paint.picture(subject.probes.images[probe]), self.side)
        tiles, notes = [picture], [subject.classes[label]]
        for name, values in norms.items():
            outliers = values > cuts[name]
            tiles.append(_draw_norms(values / cuts[name], outliers, picture.shape[:2]))
            notes.append(f"{int(outliers.sum())} of {outliers.numel()}")
        counts = {name: int((values > cuts[name]).sum()) for name, values in norms.items()}
        columns = {
            "block": list(norms),
            "outliers": [float(count) for count in counts.values()],
            "cut": [cuts[name] for name in norms],
            "median norm": [values.median().item() for values in norms.values()],
            "largest norm": [values.max().item() for values in norms.values()],
        }
        return Figure(
            f"probe-{probe:03d}",
            picture_table([tiles], titles, [""], [notes], [[False, *(bool(c) for c in counts.values())]]),
            f"probe {probe}, {subject.classes[label]}: norms of patch tokens, black 0, brightest at the cut, "
            f"above which they are outliers (framed); in {', '.join(norms)}",
            probe=probe,
            label=label,
            values={"outliers": float(sum(counts.values()))},
            table=Table(columns),
        )


def _known_grids(subject: Subject) -> dict[str, TokenGrid]:
    """The grids of the blocks that give the tokens among which they attend, all among all."""
    blocks = {b.block: b for b in structure_of(subject).blocks if b.is_global and b.block}
    if not blocks:
        return {}
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(layer: str, output: Tensor) -> None:
        shapes[layer] = tuple(output.shape)

    with suppress(ValueError), torch.no_grad(), output_hooks(subject.network, list(blocks), keep, stop=True):
        subject.network(subject.probes.images[:1])
    return {
        name: block.grid
        for name, block in blocks.items()
        if len(shapes.get(name, ())) == 3 and shapes[name][1] == block.shape[-1]
    }


def _blocks_with_maps(subject: Subject, grids: Mapping[str, TokenGrid]) -> list[str]:
    """The blocks with attention whose output is a grid of tokens, a known one or another."""
    names = list(dict.fromkeys(block.block for block in structure_of(subject).blocks if block.block))

    def have_maps(layers: list[str]) -> bool:
        try:
            layouts(subject.network, subject.probes.images[:1], [n for n in layers if n not in grids])
        except ValueError:
            return False
        return True

    if have_maps(names):  # in one pass
        return names
    found = [name for name in names if have_maps([name])]
    if found:
        unseen = ", ".join(name for name in names if name not in found)
        level = subject.log_level("outlier_tokens")
        log.log(level, "outlier_tokens leaves out %s: the output is no grid of tokens", unseen)
    return found


def _norms(
    subject: Subject, names: list[str], grids: Mapping[str, TokenGrid], probes: Sequence[int]
) -> Iterator[dict[str, Tensor]]:
    for chosen in torch.tensor(list(probes)).split(subject.batch_size):
        of_batch = token_norms(subject.network, subject.probes.images[chosen], names, grids)
        of_batch = {name: norms.cpu() for name, norms in of_batch.items()}
        yield from ({name: norms[i] for name, norms in of_batch.items()} for i in range(len(chosen)))


def _draw_norms(values: Tensor, outliers: Tensor, size: Sequence[int]) -> Tensor:
    """Norms [h, w], 1 at the cut, as a picture of `size` with a frame around each outlier."""
    colours = paint.colorize(values).permute(2, 0, 1)[None].float()
    picture = F.interpolate(colours, tuple(size), mode="nearest")[0].permute(1, 2, 0).to(torch.uint8)
    scale = [size[axis] / values.shape[axis] for axis in (0, 1)]
    for row, column in outliers.nonzero().tolist():
        box = [row * scale[0], column * scale[1], (row + 1) * scale[0], (column + 1) * scale[1]]
        picture = paint.draw_box(picture, [round(edge) for edge in box], colour=(0, 220, 255))
    return picture
