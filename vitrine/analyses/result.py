"""What analyses gave: one of them at one checkpoint, and all of them at one checkpoint."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vitrine.analyses.outputs import ALARM, Figure, File, Scalar, State


@dataclass
class AnalysisResult:
    """One analysis at one checkpoint, in memory or as recorded by `runs.store`."""

    # what it yielded, up to where it failed if it did; recorded ones are read from disk when asked for
    figures: Sequence[Figure] = field(default_factory=list)
    scalars: Sequence[Scalar] = field(default_factory=list)
    seconds: float = 0.0  # of wall-clock time
    error: str | None = None  # the exception that stopped it, in one line
    traceback: str | None = None  # that exception with its traceback
    # what was less than asked for, as [made, asked]: {"units": [4, 16]}; {"analysis": [0, 1]} where it was
    # left out. See `examination.budget` and `examination.batch_halving`.
    reduced: Mapping[str, Sequence[int]] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None  # of the analysis, as plain containers; None: unknown
    subject: Mapping[str, Any] = field(default_factory=dict)  # layers, units and images; empty: unknown
    files: Mapping[str, str | bytes] = field(default_factory=dict)  # that it yielded, content by name
    state: Mapping[str, Tensor] = field(default_factory=dict)  # that it yielded; empty: none

    def clear(self) -> None:
        """Forget what was yielded."""
        self.figures, self.scalars, self.files, self.state = [], [], {}, {}

    def add(self, yielded: Figure | Scalar | File | State) -> None:
        """Keep what the analysis yielded; ValueError for a second state, or a second file of a name."""
        match yielded:
            case Figure():
                self.figures.append(yielded)
            case Scalar():
                self.scalars.append(yielded)
            case File(name, text):
                if name in self.files:
                    raise ValueError(f"file {name!r} came twice, expected one a name")
                self.files[name] = text
            case State(tensors):
                if self.state:
                    raise ValueError("a second State came, expected one")
                self.state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
            case _:
                kinds = "a Figure, a Scalar, a State or a File"
                raise TypeError(f"a {type(yielded).__name__} was yielded, expected {kinds}")

    @property
    def alarms(self) -> list[Scalar]:
        """Those that were sounded."""
        return [scalar for scalar in self.scalars if scalar.key.startswith(ALARM) and scalar.value]

    @property
    def left_out(self) -> bool:
        """Whether the budget had no time for it."""
        return "analysis" in self.reduced

    @property
    def inapplicable(self) -> bool:
        """Whether it ran and had nothing to say of this network (of attention in a convolutional one)."""
        return not (self.left_out or self.error or len(self.figures) or len(self.scalars))

    @property
    def reduced_text(self) -> str:
        """`reduced` for people: "4 of 16 units, 16 of 64 steps", "left out", "batches of 64, not 256"."""
        if self.left_out:
            return "left out"
        texts = {"batch": "batches of {0}, not {1}"}
        return ", ".join(
            texts.get(what, f"{{0}} of {{1}} {what}").format(*n) for what, n in self.reduced.items()
        )

    def fail(self, error: Exception) -> None:
        """Record, while `error` is handled, that it stopped the analysis; the first error counts."""
        self.error = self.error or traceback.format_exception_only(error)[0].strip()
        self.traceback = self.traceback or traceback.format_exc()


@dataclass
class CheckpointReport:
    """All analyses at one checkpoint."""

    step: int  # optimizer steps taken
    results: dict[str, AnalysisResult] = field(default_factory=dict)  # by analysis
    # what else failed, one line each: by "checkpoint", "store" or the sink's class
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> dict[str, str]:
        """All that failed, analyses included, one line each."""
        return {name: r.error for name, r in self.results.items() if r.error} | self.failures

    @property
    def seconds(self) -> dict[str, float]:
        """Of each analysis that ran and applies to the network."""
        return {
            name: result.seconds
            for name, result in self.results.items()
            if not (result.left_out or result.inapplicable)
        }

    @property
    def figures(self) -> int:
        """How many pictures there are."""
        return sum(len(result.figures) for result in self.results.values())
