"""What an analysis yields: pictures, points of curves, alarms, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Histogram:
    """The shares of a set of numbers in bins of equal width from `low` to `high`."""

    low: float
    high: float
    shares: Sequence[float]


@dataclass(frozen=True)
class Table:
    """Names and numbers in columns of one length, by heading: the first names the rows.

    Attributes:
        sort_by: the heading of the column that orders the rows at first, ascending.
        filter_by: the heading of a column of names of which one can be chosen, to see its rows alone.
    """

    columns: Mapping[str, Sequence[str | float | None]]
    sort_by: str = ""
    filter_by: str = ""


@dataclass(frozen=True)
class Turntable:
    """Where on a picture things are shown from all around, a row a thing, a column a view; the page shows a
    column at a time, which is turned by dragging or by a slider.

    Attributes:
        views: the names of the columns: "45°".
        rows: what is said under each view, by the name of the row.
        highlighted: which of that stands out, by the name of the row.
        first: pixels from the left and from the top to the first view.
        size: width and height of a view, in pixels.
        pitch: pixels from a view to the next one, across and down.
    """

    views: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    highlighted: Mapping[str, Sequence[bool]]
    first: Sequence[int]
    size: Sequence[int]
    pitch: Sequence[int]


@dataclass(frozen=True)
class Figure:
    """One picture, and what it is of: layer, unit, probe and label are None where they do not apply."""

    key: str  # path-like, and the same at every checkpoint: "layer3/unit-017", "probe-004/cat"
    image: Tensor  # uint8, [H, W, 3]
    caption: str  # one line a person can read
    layer: str | None = None
    unit: int | None = None
    probe: int | None = None
    label: int | None = None  # a class index
    values: Mapping[str, float] = field(default_factory=dict)  # what the picture cannot say: activation, ...
    indices: Sequence[int] = ()  # into the data set, of the images that the picture is made of, best first
    scores: Sequence[float] = ()  # of these images (activations, ...), in the same order
    class_shares: Mapping[str, float] = field(default_factory=dict)  # of each class among them, by name
    histogram: Histogram | None = None  # of the scores of all images of the data set
    table: Table | None = None  # of what is too much for a picture
    turntable: Turntable | None = None  # where the picture shows things from all around
    trace: Sequence[float] = ()  # by which the technique recognises what this is of at the next checkpoint


@dataclass(frozen=True)
class Scalar:
    """One point of a curve over checkpoints; `key` as in "dead_units/layer3"."""

    key: str
    value: float
    layer: str | None = None
    text: str = ""  # of an alarm: what is wrong, in a sentence or two


ALARM = "alarm/"  # with which the keys of alarms begin, whatever technique they are of


def alarm(name: str, text: str = "") -> Scalar:
    """The scalar "alarm/<name>": 1 with a text, which is logged and stands on the page's overview; else 0."""
    return Scalar(f"{ALARM}{name}", float(bool(text)), text=text)


@dataclass(frozen=True)
class State:
    """Tensors by name that an analysis is given again at the next checkpoint, `Subject.previous_state`."""

    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class File:
    """A file beside the pictures of an analysis, which the page links: text, whose `name` ends in .csv, .tsv,
    .txt, .obj or .mtl, or the bytes of a .png."""

    name: str
    text: str | bytes
