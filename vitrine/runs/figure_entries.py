"""Figures as entries of figures.json and back, those that earlier versions wrote included."""

import math
import re
from dataclasses import asdict
from typing import Any

from torch import Tensor

from vitrine.analyses.base import Figure, Histogram, Table, Turntable


def to_entry(figure: Figure, file: str) -> dict[str, Any]:
    """A figure without its picture as JSON's own types; `file` is the picture's, relative to figures.json.

    Numbers that are not finite become None. Typed fields that a figure does not have are left out.
    """
    numbers = {name: getattr(figure, name) for name in ("unit", "probe", "label")}  # some from tensors
    entry: dict[str, Any] = {
        "key": figure.key,
        "file": file,
        "caption": figure.caption,
        "layer": figure.layer,
        **{name: None if number is None else int(number) for name, number in numbers.items()},
        "values": {name: finite(value) for name, value in figure.values.items()},
    }
    typed = {
        "indices": [int(index) for index in figure.indices],
        "scores": [finite(score) for score in figure.scores],
        "class_shares": {name: finite(share) for name, share in figure.class_shares.items()},
        "histogram": asdict(figure.histogram) if figure.histogram is not None else None,
        "trace": [finite(value) for value in figure.trace],
        "table": _table(figure.table) if figure.table is not None else None,
        "turntable": asdict(figure.turntable) if figure.turntable is not None else None,
    }
    return entry | {name: value for name, value in typed.items() if value}


def _table(table: Table) -> dict[str, Any]:
    return {name: value for name, value in asdict(table).items() if value or name != "filter_by"}


def to_figure(entry: dict[str, Any], image: Tensor) -> Figure:
    """The figure that an entry describes, with its picture."""
    fields = {name: value for name, value in entry.items() if name != "file"}
    fields["values"] = {name: number(value) for name, value in entry["values"].items()}
    fields["scores"] = [number(score) for score in entry.get("scores", ())]
    if "histogram" in entry:
        fields["histogram"] = Histogram(**entry["histogram"])
    if "table" in entry:
        fields["table"] = Table(**entry["table"])
    if "turntable" in entry:
        fields["turntable"] = Turntable(**entry["turntable"])
    return Figure(image=image, **fields)


def upgraded(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry in the form of `to_entry`; versions up to 0.1 kept all in `values`, under names to be parsed.

    Of their scores only the first and the last are known.
    """
    old = entry["values"]
    if "index-1" not in old:
        return entry
    bins = [value for name, value in old.items() if re.fullmatch(r"bin-\d+", name)]
    parsed = re.compile(r"(index|bin)-\d+|class/.+|lowest|least|top_class", re.DOTALL)
    new = entry | {
        "values": {name: value for name, value in old.items() if not parsed.fullmatch(name)},
        "indices": [int(value) for name, value in old.items() if name.startswith("index-")],
        "class_shares": {name[6:]: value for name, value in old.items() if name.startswith("class/")},
        "scores": [old[name] for name in ("activation", "least") if name in old],
    }
    if bins:
        new["histogram"] = {"low": old["lowest"], "high": old["activation"], "shares": bins}
    return new


def finite(value: Any) -> float | None:
    """A number as JSON can hold it."""
    value = float(value)
    return value if math.isfinite(value) else None


def number(value: float | None) -> float:
    """The number that `finite` has written."""
    return math.nan if value is None else value
