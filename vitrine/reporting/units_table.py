"""A table with a row a unit: what it would like to see, what excites it, and the numbers of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vitrine.analyses.base import Figure
from vitrine.analyses.result import AnalysisResult

# what a person asks of a unit comes first: (technique, the rest of the figure's key)
_PICTURES = {("features", ""): "feature", ("examples", ""): "examples"}
# and the numbers: (technique, value)
_NUMBERS = {
    ("features", "activation"): "activation reached",
    ("examples", "activation"): "activation of the best example",
    ("examples", "top_class"): "top class",
    ("examples", "class_entropy"): "class entropy",
    ("examples", "top_class_share"): "share of the top class",
}


def units_table(
    results: Mapping[str, AnalysisResult],
    picture: Callable[[str, Figure], Any],
    classes: Sequence[str] = (),
) -> tuple[list[str], list[list[Any]]] | None:
    """Columns and rows: layer, unit, pictures (feature, examples, others), numbers; None without units.

    Args:
        picture: a technique's name and a figure of it to what stands in the table's cell.
        classes: class names.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    others: dict[str, None] = {}  # an ordered set of columns
    numbers: dict[str, None] = {}
    for name, result in results.items():
        for figure in result.figures:
            if figure.layer is None or figure.unit is None or figure.probe is not None:
                continue
            row = rows.setdefault((figure.layer, figure.unit), {})
            rest = " ".join(figure.key.split("/")[2:])  # "layer3/unit-017/course"
            column = _PICTURES.get((name, rest), f"{name} {rest}".strip())
            if column in row:
                continue
            row[column] = picture(name, figure)
            others[column] = None
            for column, value in _told(name, figure, classes).items():
                row.setdefault(column, value)
                numbers[column] = None
    if not rows:
        return None
    columns = [*_first(others, _PICTURES), *_first(numbers, _NUMBERS)]
    told = sorted(rows.items(), key=lambda item: not item[1].keys() & set(_PICTURES.values()))  # filters last
    data = [[layer, unit, *(row.get(column) for column in columns)] for (layer, unit), row in told]
    return ["layer", "unit", *columns], data


def _told(name: str, figure: Figure, classes: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key, value in figure.values.items():
        told[_NUMBERS.get((name, key), f"{name} {key.replace('_', ' ')}")] = float(value)
    if len(figure.scores):
        told[f"{name} least"] = float(figure.scores[-1])
    if figure.class_shares:
        top = max(figure.class_shares, key=figure.class_shares.__getitem__)
        told[_NUMBERS.get((name, "top_class"), f"{name} top class")] = top
    if figure.label is not None:
        told[f"{name} class"] = _class(figure.label, classes)
    return told


def _first(columns: Mapping[str, None], known: Mapping[Any, str]) -> list[str]:
    """The known columns in their order, then the others."""
    wanted = list(known.values())
    return [*(c for c in wanted if c in columns), *(c for c in columns if c not in wanted)]


def _class(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)
