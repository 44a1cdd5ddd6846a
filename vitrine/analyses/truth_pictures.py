"""Pictures of how well maps agree with the effects of parts: bars with intervals, and telling scenes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Figure, Table
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.plots import render_plot
from vitrine.analyses.truth_scores import Measured, Scores, on_random
from vitrine.core.bootstrap import bootstrap

BLUE, GREY, PALE, ORANGE = "#2166ac", "#9aa5b1", "#d5dae0", "#d9822b"
_TILE = 192  # pixels a side of a scene or a map
_ROW = 30  # pixels of a group of bars

Interval = tuple[float, float, float]  # mean, low, high


def effects_figure(
    measured: Measured,
    parts: Sequence[str],
    class_parts: Sequence[str],
    scores: Mapping[str, Scores],
    seed: int,
    samples: int,
) -> Figure:
    """What leaving out or replacing each part does to the predicted logit; and a table of all scores.

    Args:
        seed, samples: of the bootstrap.
    """
    absent = ~measured.present
    chosen = [parts.index(name) for name in class_parts]
    left_out = bootstrap(measured.effects[0].masked_fill(absent, torch.nan).T, seed, samples)
    replaced = bootstrap(measured.replaced.masked_fill(absent[:, chosen], torch.nan).T, seed, samples)
    own = dict(zip(parts, zip(*(bound.tolist() for bound in left_out))))
    other = dict(zip(class_parts, zip(*(bound.tolist() for bound in replaced))))
    count = dict(zip(parts, measured.present.sum(0).tolist()))
    shown = [name for name in parts if count[name]]
    rows = {f"{name} ({count[name]})": (own[name], other.get(name)) for name in shown}

    def draw(axes: Any) -> None:
        _bars(axes, {row: own for row, (own, _) in rows.items()}, dict.fromkeys(rows, BLUE), -0.2, 0.36)
        replaced = {row: other for row, (_, other) in rows.items() if other is not None}
        places = list(rows)
        _bars(axes, replaced, dict.fromkeys(replaced, ORANGE), 0.2, 0.36, places)
        _finish(axes, places, "drop of the predicted logit", {"left out": BLUE, "another class's": ORANGE})

    greatest = max(shown, key=lambda name: own[name][0])
    return Figure(
        key="effects",
        image=render_plot(draw, height=90 + _ROW * len(rows)),
        caption=f"What each part of {len(absent)} scenes does to the logit of the predicted class when it is "
        "left out, or replaced by another class's, all else being equal to the bit (in brackets the scenes "
        "that have the part; lines: 95 % intervals over scenes). "
        f"The {greatest} says most for the class, {own[greatest][0]:.2f}.",
        values={name: own[name][0] for name in shown},
        table=_table(scores),
    )


def score_figures(scores: Mapping[str, Scores]) -> Iterator[Figure]:
    """A picture of each score of all maps, with their controls."""
    for key, of in scores.items():
        if of.techniques and not all(mean != mean for mean, _, _ in of.intervals.values()):
            yield Figure(
                key=key,
                image=_score_bars(of),
                caption=f"{of.kind.title.capitalize()}: {of.kind.meaning}. {verdict(of)}",
                values={"clear of controls": len(of.clear)},
            )


def verdict(scores: Scores) -> str:
    """Which maps are above their controls on this network (below, where low is good), and which are not."""
    clear, word = scores.clear, "below" if scores.kind.low_is_good else "above"
    others = [name for name in scores.techniques if name not in clear]
    if not clear:
        return f"On this network no map is {word} its controls, intervals apart: not {_listed(others)}."
    rest = f"; not {_listed(others)}" if others else ""
    return f"On this network {word} their controls, intervals apart: {_listed(clear)}{rest}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _score_bars(scores: Scores) -> Tensor:
    named = {name.replace("_", " "): name for name in [*scores.techniques, *scores.ignorant]}
    clear, techniques = scores.clear, set(scores.techniques)
    colours = {
        row: (BLUE if name in clear else GREY) if name in techniques else ORANGE
        for row, name in named.items()
    }

    def draw(axes: Any) -> None:
        own = {row: scores.intervals[name] for row, name in named.items()}
        twins = {row: scores.intervals[on_random(name)] for row, name in named.items() if name in techniques}
        places = list(named)
        alone = {row: interval for row, interval in own.items() if row not in twins}
        _bars(axes, {row: own[row] for row in twins}, colours, -0.14, 0.5, places)
        _bars(axes, twins, dict.fromkeys(twins, PALE), 0.28, 0.26, places)
        _bars(axes, alone, colours, 0, 0.5, places)
        bounds = [interval[1 if scores.kind.low_is_good else 2] for interval in alone.values()]
        best = min(bounds) if scores.kind.low_is_good else max(bounds)
        axes.axvline(best, color=ORANGE, linewidth=1, linestyle="--")
        legend = {
            "clear of its controls": BLUE,
            "not clear": GREY,
            "on random weights": PALE,
            "knows nothing": ORANGE,
        }
        _finish(axes, places, scores.kind.title, legend)

    return render_plot(draw, height=100 + _ROW * len(named))


def _bars(
    axes: Any,
    intervals: Mapping[str, Interval],
    colours: Mapping[str, str],
    shift: float,
    thickness: float,
    places: Sequence[str] | None = None,
) -> None:
    """A horizontal bar with its interval in the row of each name; NaN has none."""
    places = list(intervals) if places is None else places
    known = {name: interval for name, interval in intervals.items() if interval[0] == interval[0]}
    if not known:
        return
    means, lows, highs = zip(*known.values())
    heights = [places.index(name) + shift for name in known]
    # one call for all: artists are what takes time
    axes.barh(heights, means, thickness, color=[colours[name] for name in known])
    axes.hlines(heights, lows, highs, color="#222222", linewidth=1.2)


def _finish(axes: Any, rows: Sequence[str], label: str, legend: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_xlabel(label)
    axes.grid(False, axis="y")
    handles = [Patch(color=colour, label=name) for name, colour in legend.items()]
    axes.figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9)


def _table(scores: Mapping[str, Scores]) -> Table:
    """All scores of all maps with their intervals, a row a map."""
    names = list(next(iter(scores.values())).intervals)
    columns = {
        of.kind.title: [
            f"{mean:.2f} ({low:.2f} to {high:.2f})" if mean == mean else ""
            for mean, low, high in (of.intervals[name] for name in names)
        ]
        for of in scores.values()
    }
    return Table({"map": [name.replace("_", " ").replace("/", ": ") for name in names], **columns})


def disagreement_figures(
    images: Tensor,
    names: Sequence[str],
    effects: Tensor,
    parts: Sequence[str],
    maps: Mapping[str, Tensor],
    correlations: Mapping[str, Tensor],
) -> Iterator[Figure]:
    """Of each scene a strip: the scene, the effects of its parts as bars, the maps.

    Args:
        images: [N, C, H, W].
        names: what each is, and is taken for.
        effects: [N, P], NaN where a scene has no such part.
        maps: [N, H, W] by technique, with their sign where they have one.
        correlations: [N] by technique, with the effects.
    """
    for i, image in enumerate(images):
        own = {part: value for part, value in zip(parts, effects[i].tolist()) if value == value}
        tiles = [paint.fit_square(paint.picture(image), _TILE), _effect_bars(own)]
        for values in (of[i] for of in maps.values()):
            scale = paint.percentile_scale(values)
            overlay = (
                paint.overlay_signed(values.clamp(-scale, scale), image)
                if (values < 0).any()
                else paint.overlay_heatmap(values.clamp(max=scale), image)
            )
            tiles.append(paint.fit_square(overlay, _TILE))
        captions = [names[i], "drop of the logit", *(f"{correlations[name][i]:.2f}" for name in maps)]
        titles = ["scene", "effects of its parts", *(name.replace("_", " ") for name in maps)]
        greatest = max(own, key=lambda part: own[part])
        yield Figure(
            key=f"disagreement/{i + 1}",
            image=picture_table([tiles], titles, [""], [captions]),
            caption=f"{names[i]}: a scene on which the maps agree least with the effects, of which that of "
            f"the {greatest} is the greatest ({own[greatest]:.2f}). Below each map its rank correlation with "
            "them; where a map has a sign, red is evidence for the predicted class, blue against it.",
            values={
                "rank correlation": torch.stack([of[i] for of in correlations.values()]).nanmean().item()
            },
        )


def _effect_bars(effects: Mapping[str, float]) -> Tensor:
    def draw(axes: Any) -> None:
        colours = ["#b2182b" if value > 0 else BLUE for value in effects.values()]
        axes.barh(range(len(effects)), list(effects.values()), 0.7, color=colours)
        axes.set_yticks(range(len(effects)), list(effects), size=7)
        axes.set_ylim(len(effects) - 0.5, -0.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.tick_params(length=0)
        axes.axvline(0, color="#222222", linewidth=0.8)
        axes.grid(False, axis="y")

    return render_plot(draw, _TILE, _TILE)
