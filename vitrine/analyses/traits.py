"""What a technique declares about itself, so that nothing else has to know it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LAST = 1000  # of what is ordered by a number


@dataclass(frozen=True)
class Summary:
    """Scalars of a technique that rank runs, as the mean over what their keys end in.

    Attributes:
        key: how the keys begin: "pointing_game" for "pointing_game/sign/gradient".
        parts: how many parts of a key are kept; the mean is taken over the others (layers, maps).
        headline: its curves are among those that the page shows first.
    """

    key: str
    parts: int = 1
    headline: bool = False


@dataclass(frozen=True)
class Traits:
    """How a technique is shown on the page and on dashboards, and what a budget may do to it.

    Attributes:
        section: of a dashboard; its own, called after the technique, unless given.
        title: of its pictures on the page; after the technique unless given.
        page_order: its place on the page, ascending.
        summaries: its scalars that rank runs.
        confidences: its values that are the network's confidence in a class, each with what sets it apart
            from others in the page's chart ("" for the image as it is).
        unit_rank: where techniques show the same unit, the least is shown first.
        image_rank: the least shows the images in the page's overview.
        unit_picture: heading of its picture of a unit in the dashboard's table of units.
        unit_numbers: headings of its values there; "top_class" is the class with the largest share.
        square_variants: variants of its pictures of a unit ("" for the unit's own, "negative" for
            "<layer>/unit-017/negative") that begin with a square which is shown without the rest.
        at_input: where only it shows a layer, that layer is at the network's input.
        budget_priority: where time is short, the technique with the least is left out first.
        reducible: what is reduced before: "units" where its time grows with the units of a layer, "steps"
            where its setting `steps` improves pictures and measures nothing.
    """

    section: str = ""
    title: str = ""
    page_order: int = LAST
    summaries: tuple[Summary, ...] = ()
    confidences: Mapping[str, str] = field(default_factory=dict)
    unit_rank: int = LAST
    image_rank: int = LAST
    unit_picture: str = ""
    unit_numbers: Mapping[str, str] = field(default_factory=dict)
    square_variants: tuple[str, ...] = ()
    at_input: bool = False
    budget_priority: int = 0
    reducible: tuple[Literal["units", "steps"], ...] = ()
