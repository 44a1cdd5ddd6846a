"""How long a training takes until it reaches an accuracy, from its curve: the arithmetic of a race."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Point:
    """The accuracy, 0 to 1, that was measured after so many seconds of training."""

    seconds: float
    accuracy: float


@dataclass
class Curve:
    """A training: its accuracy after each epoch, and at the end as its own program measures it.

    Args:
        points: in order; the last of a program that measures its end in another way is that.
        epochs: seconds of each whole epoch of training.
    """

    points: list[Point] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        return max(point.accuracy for point in self.points)

    @property
    def end(self) -> Point:
        return self.points[-1]

    def seconds_to(self, accuracy: float) -> float | None:
        """Seconds of training until an accuracy was first measured that is as high; None: it never was."""
        return next((point.seconds for point in self.points if point.accuracy >= accuracy), None)


def common_accuracy(curves: Iterable[Curve]) -> float:
    """The highest accuracy that each of them reaches."""
    return min(curve.best for curve in curves)
