"""How much of a deep network a dashboard shows: everything is on the run's page, a dashboard is glanced at.

A dashboard's keys do not grow with layers, units and classes beyond these numbers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from vitrine.analyses.base import ALARM
from vitrine.analyses.result import AnalysisResult

CURVES = 24  # of scalars that differ in the last part of their keys ("dead_units/layer3")
LAYERS = 12  # of a technique that have a picture; also tables of a technique
UNITS = 240  # rows of the table of units
ROWS = 10_000  # of another table; W&B would cut off what is beyond
_ALL = {
    "minimum": min,
    "median": statistics.median,
    "maximum": max,
}  # over the curves of which some are left out

_Item = TypeVar("_Item")


def evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    if most < 2:
        return list(items[:most])
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def shown_layers(layers: Iterable[str | None]) -> list[str | None]:
    """The layers of a technique, in the order in which they come, of which a dashboard has pictures.

    None, what is of no layer, is always among them.
    """
    each = list(dict.fromkeys(layers))
    chosen = evenly([layer for layer in each if layer is not None], LAYERS)
    return [layer for layer in each if layer is None or layer in chosen]


def shown_tables(keys: Iterable[str]) -> list[str]:
    """The figures of a technique, by key, whose tables a dashboard has."""
    return evenly(list(dict.fromkeys(keys)), LAYERS)


def ends(rows: Sequence[_Item]) -> list[_Item]:
    """The rows of a table that a dashboard has: all, or of too many the first and the last."""
    if len(rows) <= ROWS:
        return list(rows)
    return [*rows[: ROWS - ROWS // 2], *rows[len(rows) - ROWS // 2 :]]


def shown_units(units: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """The units, each with its layer, that a dashboard's table has a row for: as many of each layer shown."""
    by_layer: dict[str, list[int]] = {}
    for layer, unit in dict.fromkeys(units):
        by_layer.setdefault(layer, []).append(unit)
    if sum(map(len, by_layer.values())) <= UNITS:
        return {(layer, unit) for layer, own in by_layer.items() for unit in own}
    layers = shown_layers(by_layer)
    return {
        (layer, unit) for layer in layers for unit in evenly(sorted(by_layer[layer]), UNITS // len(layers))
    }


def shown_curves(values: Mapping[str, float]) -> dict[str, float]:
    """Scalars of an analysis by key: of a family with too many the evenly spaced ones, and in place of the
    others the minimum, the median and the maximum over all, "dead_units/all/median"."""
    shown: dict[str, float] = {}
    for family, keys in _families(values).items():
        shown |= {key: values[key] for key in evenly(keys, CURVES)}
        if len(keys) > CURVES:
            finite = [values[key] for key in keys if math.isfinite(values[key])]
            shown |= {f"{family}/all/{name}": of(finite) for name, of in _ALL.items() if finite}
    return shown


def left_out(results: Mapping[str, AnalysisResult]) -> list[str]:
    """What a dashboard does not show of these results, in words: "examples: pictures of 88 of 100 layers"."""
    phrases, units = [], {}
    for name, result in results.items():
        for family, keys in _families([scalar.key for scalar in result.scalars]).items():
            if len(keys) > CURVES:
                phrases.append(f"{name}: {len(keys) - CURVES} of {len(keys)} curves of {family}")
        layers = {figure.layer for figure in result.figures} - {None}
        if len(layers) > LAYERS:
            phrases.append(f"{name}: pictures of {len(layers) - LAYERS} of {len(layers)} layers")
        tables = [figure.key for figure in result.figures if figure.table is not None]
        if len(tables) > LAYERS:
            phrases.append(f"{name}: {len(tables) - LAYERS} of {len(tables)} tables")
        for figure in result.figures:
            rows = 0 if figure.table is None else max(map(len, figure.table.columns.values()), default=0)
            if rows > ROWS:
                phrases.append(f"{name}: {rows - ROWS} of {rows} rows of {figure.key}")
        units |= dict.fromkeys(
            (figure.layer, figure.unit)
            for figure in result.figures
            if is_of_unit(figure.layer, figure.unit, figure.probe)
        )
    if rest := len(units) - len(shown_units(units)):
        phrases.append(f"table of units: {rest} of {len(units)} units")
    return phrases


def left_out_classes(metrics: Iterable[str], classes: int) -> list[str]:
    """Of how many classes validation logs no curve, in words, given the names of its metrics."""
    families = [name.partition("/")[2].partition("/")[0] for name in metrics if name.startswith("val/")]
    worst, best = families.count("worst_classes"), families.count("best_classes")
    if "class_accuracy" not in families or classes <= worst + best:
        return []
    return [
        f"curves of {classes - worst - best} of {classes} classes"
        f" (the worst {worst} and the best {best} of a validation have one, by rank)"
    ]


def is_of_unit(layer: str | None, unit: int | None, probe: int | None) -> bool:
    """Whether a figure of these is in the table of units."""
    return layer is not None and unit is not None and probe is None


def _families(keys: Iterable[str]) -> dict[str, list[str]]:
    """Keys by what precedes their last part; an alarm, and a key of one part, is alone."""
    families: dict[str, list[str]] = {}
    for key in keys:
        family = key.rpartition("/")[0]
        families.setdefault(key if key.startswith(ALARM) or not family else family, []).append(key)
    return families
