"""A figure's table as dashboards show it: in the order in which the page does, and how it has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vitrine.analyses.base import Table
from vitrine.reporting.bounds import ends

Columns = Mapping[str, Sequence[str | float | None]]


def dashboard_table(table: Table, before: Columns) -> tuple[list[str], list[list[Any]]]:
    """Headings and rows of a table, those first that the page has first; beside the number that orders them a
    column of how it has changed, empty where it was not there. Of too many rows the first and the last.

    Args:
        before: columns of the same table at the checkpoint before; empty if there was none.
    """
    columns, by = dict(table.columns), table.sort_by
    order = list(range(len(next(iter(columns.values()), ()))))
    if by in columns:
        order.sort(key=lambda i: _place(columns[by][i]))  # stable
        if not any(isinstance(value, str) for value in columns[by]):
            columns = _with_change(columns, by, before)
    return list(columns), [[column[i] for column in columns.values()] for i in ends(order)]


def _place(value: str | float | None) -> tuple[bool, bool, Any]:
    """What is missing comes last, as on the page."""
    missing = value is None or value == ""
    return missing, isinstance(value, str), 0 if missing else value


def _with_change(columns: dict[str, Any], by: str, before: Columns) -> dict[str, Any]:
    heading = next(iter(columns))
    was = dict(zip(_numbered(before.get(heading, ())), before.get(by, ())))
    change = []
    for name, value in zip(_numbered(columns[heading]), columns[by]):
        known = value is not None and isinstance(was.get(name), (int, float))
        change.append(value - was[name] if known else None)
    found: dict[str, Any] = {}
    for own, column in columns.items():
        found[own] = column
        if own == by:
            found[f"change of {by}"] = change
    return found


def _numbered(names: Sequence[Any]) -> list[tuple[Any, int]]:
    """Each name, and how many of those before it are the same: two rows may have one (ImageNet's cranes)."""
    before: Counter[Any] = Counter()
    numbered = []
    for name in names:
        numbered.append((name, before[name]))
        before[name] += 1
    return numbered
