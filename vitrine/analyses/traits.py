"""What a technique declares about itself, so that nothing else has to know it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LAST = 1000  # of what is ordered by a number


@dataclass(frozen=True)
class Summary:
    """Scalars of a technique that rank runs, as the mean over what their keys end in."""

    key: str  # how the keys begin: "pointing_game" for "pointing_game/sign/gradient"
    parts: int = 1  # how many parts of a key are kept; the mean is taken over the others (layers, maps)
    headline: bool = False  # its curves are among those that the page shows first


@dataclass(frozen=True)
class Traits:
    """How a technique is shown on the page and on dashboards, and what a budget may do to it."""

    section: str = ""  # of a dashboard; its own, called after the technique, unless given
    title: str = ""  # of its pictures on the page; after the technique unless given
    page_order: int = LAST  # its place on the page, ascending
    summaries: tuple[Summary, ...] = ()  # its scalars that rank runs
    # its values that are the network's confidence in a class, each with what sets it apart from others in the
    # page's chart ("" for the image as it is)
    confidences: Mapping[str, str] = field(default_factory=dict)
    unit_rank: int = LAST  # where techniques show the same unit, the least is shown first
    image_rank: int = LAST  # the least shows the images in the page's overview
    unit_picture: str = ""  # heading of its picture of a unit in the dashboard's table of units
    # headings of its values there; "top_class" is the class with the largest share
    unit_numbers: Mapping[str, str] = field(default_factory=dict)
    # variants of its pictures of a unit ("" for the unit's own, "negative" for "<layer>/unit-017/negative")
    # that begin with a square which is shown without the rest
    square_variants: tuple[str, ...] = ()
    own_page: bool = False  # its pictures of the whole network have a page of their own, with its curves
    at_input: bool = False  # where only it shows a layer, that layer is at the network's input
    budget_priority: int = 0  # where time is short, the technique with the least is left out first
    # what is reduced before: "units" where its time grows with the units of a layer, "steps" where its
    # setting `steps` improves pictures and measures nothing
    reducible: tuple[Literal["units", "steps"], ...] = ()
