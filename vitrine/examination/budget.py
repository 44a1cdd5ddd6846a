"""What looking may cost: fewer units, fewer steps and fewer analyses where they would take too long.

`analysis.budget=0.1` keeps the analyses of a checkpoint under a tenth of the time trained since the last.
What each will take is foretold from the seconds that it took at earlier checkpoints. While the sum is too
much, in this order:

1. fewer units a layer in `features` and `unit_saliency`, the dearer of the two first: every second of those
   asked for, then every fourth, until one is left. The pictures that are made are those that would have been.
2. fewer steps in `features`: half, a quarter, ..., not below 16. These pictures are less far on.
3. an analysis is left out until the next checkpoint: the first one in `LEFT_OUT_FIRST`, then the next; of the
   others as much is made as there is time for then, by 1 and 2.

An analysis that has not run yet is given the least of 1 and 2, which tells what more would take. What took
longer than foretold is taken off what the next checkpoint may take. All that is less than asked for is
recorded in complete.json (`reduced`), and `python analyze.py RUN` makes up for it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vitrine.analyses.base import Analysis, Subject
from vitrine.analyses.result import AnalysisResult
from vitrine.runs.store import Store

BY_UNIT = ("features", "unit_saliency")  # whose time goes with the number of units
BY_STEP = ("features",)  # whose steps make a picture better, and measure nothing
LEAST_STEPS = 16
LEFT_OUT_FIRST = (
    "robustness",
    "physical",
    "style",
    "dream",
    "randomization",
    "features",
    "localization",
    "adversarial",
    "unit_saliency",
    "saliency",
    "examples",
    "cam",
    "weights",
)  # those that take long and say little more at every checkpoint come first; what is not named, before them

Reduced = dict[str, list[int]]  # what -> how many were made, and how many were asked for


@dataclass(frozen=True)
class Choice:
    """How much of an analysis is made.

    Attributes:
        every: of each layer's units, every so many-th.
        steps: in place of the analysis' own; None: those.
        left_out: not made at all.
    """

    every: int = 1
    steps: int | None = None
    left_out: bool = False

    def applied(self, analysis: Analysis, subject: Subject) -> tuple[Analysis, Subject]:
        """The analysis and the subject that it is called on."""
        if self.steps is not None:
            analysis = dataclasses.replace(analysis, steps=self.steps)
        if self.every > 1:
            units = {layer: list(units)[:: self.every] for layer, units in subject.units.items()}
            subject = dataclasses.replace(subject, units=units)
        return analysis, subject

    def reduced(self, analysis: Analysis, units: Mapping[str, Sequence[int]]) -> Reduced:
        """What is less than asked for: `{"units": [4, 16]}`; empty where all is made."""
        if self.left_out:
            return {"analysis": [0, 1]}
        less: Reduced = {}
        if self.every > 1:
            asked = sum(len(some) for some in units.values())
            made = sum(len(list(some)[:: self.every]) for some in units.values())
            less |= {"units": [made, asked]} if made < asked else {}
        if self.steps is not None and self.steps < analysis.steps:
            less["steps"] = [self.steps, analysis.steps]
        return less


class Allowance:
    """Seconds that looking may take, from a clock that runs while training does.

    Args:
        share: of the time trained since the last checkpoint; None: as much as it likes.
        clock: seconds, from any start.
    """

    def __init__(self, share: float | None, clock: Callable[[], float] = time.monotonic):
        self.share, self.clock = share, clock
        self._since = clock()
        self._over = 0.0  # seconds that were too many, still to be saved

    def start(self) -> None:
        """Training begins, or goes on after something that was neither training nor looking."""
        self._since = self.clock()

    def seconds(self) -> float | None:
        """What may be taken now; None: no limit."""
        if self.share is None:
            return None
        return self.share * (self.clock() - self._since) - self._over

    def spent(self, allowed: float | None, seconds: float) -> None:
        """So much was taken where so much was allowed; training goes on."""
        if allowed is not None:
            self._over = max(0.0, seconds - allowed)
        self.start()


def plan(
    analyses: Mapping[str, Analysis],
    units: Mapping[str, Sequence[int]],
    past: Mapping[str, AnalysisResult],
    allowed: float | None,
) -> dict[str, Choice]:
    """How much of each analysis is made, so that all together stay under a number of seconds.

    Args:
        analyses: those that are due, by name.
        units: of each layer, those asked for.
        past: how each went when it last ran, see `last_results`.
        allowed: seconds; None: no limit.
    """
    if allowed is None:
        return {name: Choice() for name in analyses}
    most = max((len(some) for some in units.values()), default=1)
    known = sorted(past.keys() & analyses.keys(), key=_place)
    for left_out in range(len(known) + 1):
        chosen = {name: Choice() if name in past else _least(name, analyses[name], most) for name in analyses}
        chosen |= dict.fromkeys(known[:left_out], Choice(left_out=True))
        if _made_to_fit(chosen, analyses, known[left_out:], past, units, max(0.0, allowed)):
            break
    return chosen


def _made_to_fit(
    chosen: dict[str, Choice],
    analyses: Mapping[str, Analysis],
    made: Sequence[str],
    past: Mapping[str, AnalysisResult],
    units: Mapping[str, Sequence[int]],
    allowed: float,
) -> bool:
    """Lessen the choices of `made`, in place; whether they stay under the seconds allowed then."""
    most = max((len(some) for some in units.values()), default=1)

    def seconds(name: str) -> float:
        return _foretold(chosen[name], analyses[name], past[name], units)

    while sum(map(seconds, made)) > allowed:
        by_unit = [name for name in made if name in BY_UNIT and chosen[name].every < most]
        by_step = [name for name in made if name in BY_STEP and _steps(chosen, analyses, name) > LEAST_STEPS]
        if by_unit:
            dearest = max(by_unit, key=seconds)
            chosen[dearest] = dataclasses.replace(chosen[dearest], every=chosen[dearest].every * 2)
        elif by_step:
            half = max(LEAST_STEPS, _steps(chosen, analyses, by_step[0]) // 2)
            chosen[by_step[0]] = dataclasses.replace(chosen[by_step[0]], steps=half)
        else:
            return False
    return True


def last_results(store: Store, step: int, names: Sequence[str]) -> dict[str, AnalysisResult]:
    """How each analysis went when it last ran before a step and was not left out; how it failed, if it always
    did."""
    found: dict[str, AnalysisResult] = {}
    failed: dict[str, AnalysisResult] = {}
    for earlier in sorted((s for s in store.steps() if s < step), reverse=True):
        for name, result in store.results(earlier).items():
            if name in names and not result.left_out:
                (failed if result.error else found).setdefault(name, result)
        if len(found) == len(names):
            break
    return failed | found


def _least(name: str, analysis: Analysis, most: int) -> Choice:
    steps = min(LEAST_STEPS, analysis.steps) if name in BY_STEP else None
    return Choice(most if name in BY_UNIT else 1, steps)


def _foretold(
    choice: Choice, analysis: Analysis, past: AnalysisResult, units: Mapping[str, Sequence[int]]
) -> float:
    """The seconds that a choice will take, in proportion to what was made when they were measured."""
    seconds = past.seconds
    now, then = choice.reduced(analysis, units), past.reduced
    for what in ("units", "steps"):
        for (made, asked), up in ((now.get(what, (1, 1)), True), (then.get(what, (1, 1)), False)):
            seconds *= made / asked if up else asked / made
    return seconds


def _steps(chosen: Mapping[str, Choice], analyses: Mapping[str, Analysis], name: str) -> int:
    return chosen[name].steps or analyses[name].steps


def _place(name: str) -> int:
    return LEFT_OUT_FIRST.index(name) if name in LEFT_OUT_FIRST else -1
