"""A table with one row a unit: its feature visualization, its examples and its numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vitrine.analyses import traits_of
from vitrine.analyses.base import Figure
from vitrine.analyses.result import AnalysisResult
from vitrine.reporting.bounds import is_of_unit, shown_units


def units_table(
    results: Mapping[str, AnalysisResult],
    picture: Callable[[str, Figure], Any],
    classes: Sequence[str] = (),
) -> tuple[list[str], list[list[Any]]] | None:
    """Columns and rows: layer, unit, pictures, numbers; None without units.

    Columns that a technique has a heading for (`Traits.unit_picture`, `unit_numbers`) come before others, in
    the order of `Traits.unit_rank`; units without such a picture come last. A picture's cell is what
    `picture(technique, figure)` gives.
    """
    of_units = [
        (name, figure)
        for name, result in results.items()
        for figure in result.figures
        if is_of_unit(figure.layer, figure.unit, figure.probe)
    ]
    shown = shown_units((figure.layer, figure.unit) for _, figure in of_units)
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    pictures: dict[str, None] = {}  # ordered sets of columns
    numbers: dict[str, None] = {}
    for name, figure in of_units:
        if (figure.layer, figure.unit) not in shown:
            continue
        row = rows.setdefault((figure.layer, figure.unit), {})
        variant = " ".join(figure.key.split("/")[2:])  # "layer3/unit-017/course"
        column = (not variant and traits_of(name).unit_picture) or f"{name} {variant}".strip()
        if column in row:
            continue
        row[column] = picture(name, figure)
        pictures[column] = None
        for column, value in _numbers(name, figure, classes):
            row.setdefault(column, value)
            numbers[column] = None
    if not rows:
        return None
    declared = sorted((traits_of(name) for name in results), key=lambda traits: traits.unit_rank)
    first_pictures = [traits.unit_picture for traits in declared if traits.unit_picture]
    first_numbers = [column for traits in declared for column in traits.unit_numbers.values()]
    columns = [*_first(first_pictures, pictures), *_first(first_numbers, numbers)]
    ordered = sorted(rows.items(), key=lambda item: not item[1].keys() & set(first_pictures))
    data = [[layer, unit, *(row.get(column) for column in columns)] for (layer, unit), row in ordered]
    return ["layer", "unit", *columns], data


def _numbers(name: str, figure: Figure, classes: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The numbers of a unit's figure, each with its column."""
    values: dict[str, Any] = {key: float(value) for key, value in figure.values.items()}
    if len(figure.scores):
        values["least"] = float(figure.scores[-1])
    if figure.class_shares:
        values["top_class"] = max(figure.class_shares, key=figure.class_shares.__getitem__)
    if figure.label is not None:
        known = 0 <= figure.label < len(classes)
        values["class"] = classes[figure.label] if known else str(figure.label)
    headings = traits_of(name).unit_numbers
    for key, value in values.items():
        yield headings.get(key, f"{name} {key.replace('_', ' ')}"), value


def _first(wanted: Sequence[str], columns: dict[str, None]) -> list[str]:
    """The columns, those wanted before the others."""
    return [*(c for c in wanted if c in columns), *(c for c in columns if c not in wanted)]
