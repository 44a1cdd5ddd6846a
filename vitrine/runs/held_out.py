"""`test.json`: what a run was measured at on its test split, apart from the curves of its validation."""

import json
from pathlib import Path
from typing import Any

from vitrine.core import atomic

NAME = "test.json"
NO_TEST_SPLIT = (
    "the data have no test split: a folder test/ beside train/, or one held out before training "
    "(data.test_fraction, data.val_fraction of a standard data set)"
)


def read(run_dir: str | Path) -> list[dict[str, Any]]:
    """The measurements, in their order; empty if there are none that can be read.

    Each has `checkpoint` (its file), `chosen` (as what), `step`, `weights_hash`, `images`, `metrics`
    (by name, "test/accuracy"), `classes` (name, images, accuracy of each that occurs) and `measured` (when).
    """
    try:
        found = json.loads((Path(run_dir) / NAME).read_text(encoding="utf-8"))["measurements"]
        return [
            one for one in found if {"weights_hash", "metrics", "checkpoint", "step", "images"} <= set(one)
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def find(run_dir: str | Path, weights: str) -> dict[str, Any] | None:
    """The latest measurement of these weights; None if there is none."""
    return next((one for one in reversed(read(run_dir)) if one["weights_hash"] == weights), None)


def add(run_dir: str | Path, measurement: dict[str, Any]) -> None:
    """Add a measurement; earlier ones stay, so that how often the split was used can be seen.

    Raises:
        OSError: the disk refused; what was there stands.
    """
    atomic.write_json(Path(run_dir) / NAME, {"measurements": [*read(run_dir), measurement]})


def describe(measurement: dict[str, Any]) -> str:
    """One line for people."""
    numbers = {name: measurement["metrics"].get(f"test/{name}") for name in ("accuracy", "loss", "ece")}
    shown = [
        f"{name} {value:{'.1%' if name == 'accuracy' else '.4g'}}"
        for name, value in numbers.items()
        if value is not None
    ]
    of = f"{measurement['images']:,} images; {measurement['checkpoint']}, step {measurement['step']:,}"
    return f"test {', '.join(shown)} ({of})"
