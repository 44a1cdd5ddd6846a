"""Curves and bars as pictures, uint8 [H, W, 3]: in one style, readable at 600 pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vitrine.analyses.lettering import FAMILY, printable

WIDTH, HEIGHT = 640, 400  # pixels
COLOURS = {"clean": "#9aa5b1", "pgd": "#2166ac", "robust": "#b2182b", "other": "#4d9221"}
_STYLE = {
    "font.family": FAMILY,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


def render_plot(draw: Callable[[Any], None], width: int = WIDTH, height: int = HEIGHT) -> Tensor:
    """The plot that `draw(axes)` draws, as uint8 [height, width, 3]."""
    import matplotlib  # takes half a second, pyplot another: only where it is needed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure.subplots())
        canvas.draw()
        pixels = bytearray(canvas.buffer_rgba())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(height, width, 4)[..., :3].contiguous()


def bars(
    values: Mapping[str, Mapping[str, float]],
    colours: Mapping[str, str],
    label: str,
    limit: float | None = None,
) -> Tensor:
    """Horizontal bars, a group for each outer name from the top down, one for each inner name.

    Args:
        values: group -> series -> value; NaN has no bar.
        colours: series -> colour, in the order of the legend.
        label: what the values are, with their unit.
        limit: the end of the axis.
    """

    def draw(axes: Any) -> None:
        thickness = 0.8 / len(colours)
        for k, (series, colour) in enumerate(colours.items()):
            heights = [i + (k - (len(colours) - 1) / 2) * thickness for i in range(len(values))]
            lengths = [group.get(series, math.nan) for group in values.values()]
            axes.barh(heights, lengths, thickness * 0.92, color=colour, label=series)
            for height, length in zip(heights, lengths):
                if not math.isnan(length):
                    place = {"xy": (length, height), "xytext": (3, 0), "textcoords": "offset points"}
                    axes.annotate(f"{length:.0f}", **place, va="center", size=8)
        names = [printable(name) or "?" for name in values]
        axes.set_yticks(range(len(values)), names, parse_math=False)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xlim(0, limit)
        axes.set_xlabel(label)
        axes.grid(False, axis="y")
        if len(colours) > 1:
            axes.figure.legend(loc="outside upper center", ncols=len(colours))

    return render_plot(draw, height=90 + len(values) * max(22, 15 * len(colours) + 6))


def wilson_interval(hits: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a probability, from `hits` of `count` samples (Wilson 1927)."""
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    margin = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - margin), min(1.0, middle + margin)


def percent(values: Iterable[float]) -> list[float]:
    return [100 * value for value in values]
