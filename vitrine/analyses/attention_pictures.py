"""To what the heads of a transformer attend on the probes, how far and how evenly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attention_maps import Attention, attention_hooks
from vitrine.analyses.attention_statistics import attended_maps, entropy, mean_distance, rollout_step
from vitrine.analyses.attention_structure import AttentionBlock, AttentionStructure
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject, Table
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.plots import render_plot
from vitrine.analyses.subject_attention import log_missing_attention, structure_of
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting

BATCH_SIZE = 8  # images whose attention is in memory at once, of one block at a time


@dataclass(frozen=True)
class AttentionPictures(Analysis):
    """For each probe to what each head attends in blocks spread over the depth, and the attention rollout,
    where all blocks attend among the same tokens; for all heads of all blocks how far they look and how
    evenly, as one picture.

    Maps show what the class token attends to where the logits are read from it, or the mean of several such
    tokens, otherwise what patches receive on average. Scalars, means over heads and probes:
    "attention_distance/<block>", in pixels; "attention_entropy/<block>", as a share of the largest. A network
    without attention yields nothing.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Attention", title="Attention", page_order=34, budget_priority=90
    )
    probes: int = setting(8, "probes shown, the first ones; numbers are means over all", least=1)
    blocks: int = setting(4, "blocks shown, evenly over the depth, with the last", least=1)
    heads: int = setting(12, "heads shown a block, evenly spaced", least=1)
    side: int = setting(64, "longer side of a map, in pixels", least=8)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        structure = structure_of(subject)
        if not any(block.grid is not None for block in structure.blocks):
            log_missing_attention(subject, "attention")
            return
        compute = partial(self._examine, subject, structure)
        results = subject.map_sharded(range(len(subject.probes)), compute)
        for figures, _ in results:
            yield from figures
        means = {
            module: torch.stack([heads[module] for _, heads in results]).mean(0) for module in results[0][1]
        }  # module -> [distance and entropy, heads]
        yield _figure_of_heads(structure, means)
        for block in structure.spread(self.blocks):
            distance, evenness = means[block.module].mean(1).tolist()
            yield Scalar(f"attention_distance/{block.block}", distance)
            yield Scalar(f"attention_entropy/{block.block}", evenness)

    def _examine(
        self, subject: Subject, structure: AttentionStructure, probes: Sequence[int]
    ) -> Iterator[tuple[list[Figure], dict[str, Tensor]]]:
        """For each probe its figures, and for each module [distance and entropy, heads]."""
        size = min(BATCH_SIZE, subject.batch_size)
        for start in range(0, len(probes), size):
            chosen = list(probes[start : start + size])
            images = subject.probes.images[chosen]
            found = _Found(structure, structure.spread(self.blocks), tuple(images.shape[-2:]))
            with torch.no_grad(), attention_hooks(subject.network, found.add):
                subject.network(images)
            for i, probe in enumerate(chosen):
                figures = self._figures(subject, found, i, probe) if probe < self.probes else []
                yield figures, {module: numbers[i] for module, numbers in found.numbers.items()}

    def _figures(self, subject: Subject, found: _Found, i: int, probe: int) -> list[Figure]:
        picture = paint.resize(paint.picture(subject.probes.images[probe]), self.side)
        image, label = picture.permute(2, 0, 1) / 255, int(subject.probes.labels[probe])
        readers = found.structure.readers
        query = "the class token attends to" if readers else "patches receive on average"
        if len(readers) > 1:  # with a distillation token
            query = "the tokens that the head reads attend to on average"
        widths = [found.maps[block.module].shape[1] for block in found.shown]
        most = min(self.heads, max(widths))
        rows, titles = [], []
        for block, width in zip(found.shown, widths):
            maps = found.maps[block.module][i]
            shown = (maps.mean(0), *maps[_evenly(width, min(most, width))])
            tiles = [paint.overlay_heatmap(of, image) for of in shown]
            rows.append(tiles + [torch.full_like(picture, paint.BACKGROUND)] * (most + 1 - len(tiles)))
            titles.append(f"block {found.structure.blocks.index(block)}")
        same = len(set(widths)) == 1
        columns = ["mean", *(f"head {h}" if same else "" for h in _evenly(widths[0], most))]
        name = f"probe-{probe:03d}"
        names = ", ".join(block.block for block in found.shown)
        figures = [
            Figure(
                f"{name}/heads",
                picture_table(rows, columns, titles),
                f"probe {probe}, {subject.classes[label]}: what {query}, each head on its own scale, and "
                f"their mean, in {names}",
                probe=probe,
                label=label,
            )
        ]
        if found.joint is not None:
            grid = found.structure.trunk[-1].grid
            flow = attended_maps(found.joint[i : i + 1, None], grid, readers)[0, 0]
            figures.append(
                Figure(
                    f"{name}/rollout",
                    paint.row([paint.resize(picture, 2 * self.side), _large(flow, image, 2 * self.side)]),
                    f"probe {probe}, {subject.classes[label]}: attention rollout (Abnar 2020) over "
                    f"{len(found.structure.trunk)} blocks",
                    probe=probe,
                    label=label,
                )
            )
        return figures


class _Found:
    """What is kept of the attention of a batch, one block after another."""

    def __init__(
        self, structure: AttentionStructure, shown: list[AttentionBlock], image_size: tuple[int, int]
    ):
        self.structure, self.shown, self.image_size = structure, shown, image_size
        self.blocks = {block.module: block for block in structure.blocks if block.grid is not None}
        self.rolled = [block.module for block in structure.trunk] if structure.is_columnar else []
        self.numbers: dict[str, Tensor] = {}  # module -> [B, distance and entropy, heads]
        self.maps: dict[str, Tensor] = {}  # module -> [B, heads, h, w], of those shown
        self.joint: Tensor | None = None  # the rollout so far

    def add(self, attention: Attention) -> None:
        block, a = self.blocks.get(attention.module), attention.probabilities
        if block is None:
            return
        numbers = [mean_distance(a, block.grid, self.image_size), entropy(a, block.grid)]
        self.numbers[attention.module] = torch.stack(numbers, 1).float().cpu()
        if block in self.shown:
            maps = attended_maps(a, block.grid, self.structure.readers)
            self.maps[attention.module] = maps.float().cpu()
        if attention.module in self.rolled:
            self.joint = rollout_step(self.joint, a)


def _evenly(width: int, count: int) -> list[int]:
    return [h * width // count for h in range(count)]


def _large(values: Tensor, image: Tensor, side: int) -> Tensor:
    return paint.overlay_heatmap(values, paint.resize(paint.picture(image), side).permute(2, 0, 1) / 255)


def _figure_of_heads(structure: AttentionStructure, means: dict[str, Tensor]) -> Figure:
    """Every head as a dot: its distance over its block's number, coloured by its entropy."""
    numbers = {block.module: i for i, block in enumerate(structure.blocks)}
    names = {block.module: block.block for block in structure.blocks}
    rows = [
        (names[module], numbers[module], head, *of_head)
        for module, of_module in means.items()
        for head, of_head in enumerate(of_module.T.tolist())
    ]
    block, depth, head, distance, evenness = (list(column) for column in zip(*rows))

    def draw(axes: Any) -> None:
        dots = axes.scatter(depth, distance, c=evenness, s=26, cmap="viridis", vmin=0, vmax=1)
        axes.figure.colorbar(dots, ax=axes, label="entropy, of the largest")
        axes.set_xlabel("block")
        axes.set_ylabel("mean attention distance in pixels")
        axes.set_ylim(0, 1.08 * max(distance))
        axes.set_xlim(-0.5, max(depth) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return Figure(
        "heads",
        render_plot(draw, height=320),
        "how far each head of each block looks, the mean over probes, and how evenly: 1 at all patches alike",
        table=Table(
            {
                "head": [f"{name}, head {h}" for name, h in zip(block, head)],
                "distance": distance,
                "entropy": evenness,
            }
        ),
    )
