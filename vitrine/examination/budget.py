"""The budget of analyses: fewer units, fewer steps and fewer analyses where they would take too long.

`analysis.budget=0.1` keeps the analyses of a checkpoint under a tenth of the time trained since the last one.
The time of each is predicted from its seconds at earlier checkpoints. While the sum is too large, in this
order:

1. fewer units a layer where a technique's time grows with them (`Traits.reducible`), the most expensive
   technique first: every second unit, then every fourth, until one is left. Their pictures do not change.
2. fewer steps where they only improve pictures (`Traits.reducible`): half, a quarter, ..., not below 16.
3. an analysis is left out until the next checkpoint, by ascending `Traits.budget_priority`; the others are
   reduced by 1 and 2 as far as necessary.

An analysis that has not run yet starts with the least of 1 and 2, which tells what more would take. Time over
the prediction is subtracted from the next checkpoint's. All reductions are recorded in complete.json
(`reduced`), and `python analyze.py RUN` makes up for them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vitrine.analyses.base import Analysis, Subject
from vitrine.analyses.result import AnalysisResult
from vitrine.runs.store import Store

LEAST_STEPS = 16

Reductions = dict[str, list[int]]  # setting -> [reduced, full]


@dataclass(frozen=True)
class Choice:
    """How much of an analysis is run."""

    every: int = 1  # the stride among each layer's units
    steps: int | None = None  # in place of the analysis' own
    left_out: bool = False  # not run at all

    def apply(self, analysis: Analysis, subject: Subject) -> tuple[Analysis, Subject]:
        """The analysis and the subject that it is called on."""
        if self.steps is not None:
            analysis = dataclasses.replace(analysis, steps=self.steps)
        if self.every > 1:
            units = {layer: list(units)[:: self.every] for layer, units in subject.units.items()}
            subject = dataclasses.replace(subject, units=units)
        return analysis, subject

    def reductions(self, analysis: Analysis, units: Mapping[str, Sequence[int]]) -> Reductions:
        """The reduced and the full number of what is reduced, `{"units": [4, 16]}`; empty for a full run."""
        if self.left_out:
            return {"analysis": [0, 1]}
        less: Reductions = {}
        if self.every > 1:
            full = sum(len(some) for some in units.values())
            kept = sum(len(list(some)[:: self.every]) for some in units.values())
            less |= {"units": [kept, full]} if kept < full else {}
        if self.steps is not None and self.steps < analysis.steps:
            less["steps"] = [self.steps, analysis.steps]
        return less


class Allowance:
    """Seconds that analyses may take, from a clock that runs while training does.

    Args:
        share: of the time trained since the last checkpoint; None: no limit.
        clock: seconds, from any start.
    """

    def __init__(self, share: float | None, clock: Callable[[], float] = time.monotonic):
        self.share, self.clock = share, clock
        self._since = clock()
        self._over = 0.0  # seconds over the allowance, subtracted from the next

    def start(self) -> None:
        """Training begins, or goes on after something that was neither training nor an analysis."""
        self._since = self.clock()

    def available(self) -> float | None:
        """Seconds available now; None: no limit."""
        if self.share is None:
            return None
        return self.share * (self.clock() - self._since) - self._over

    def charge(self, allowed: float | None, seconds: float) -> None:
        """Analyses took `seconds` where `allowed` were available; training goes on."""
        if allowed is not None:
            self._over = max(0.0, seconds - allowed)
        self.start()


def plan(
    analyses: Mapping[str, Analysis],
    units: Mapping[str, Sequence[int]],
    past: Mapping[str, AnalysisResult],
    allowed: float | None,
) -> dict[str, Choice]:
    """How much of each analysis is run, so that together they stay under the seconds `allowed` (None: any).

    Args:
        units: by layer.
        past: how each went when it last ran, see `last_results`.
    """
    if allowed is None:
        return {name: Choice() for name in analyses}
    most = max((len(some) for some in units.values()), default=1)
    known = [name for name in analyses if name in past]
    known.sort(key=lambda name: analyses[name].traits.budget_priority)
    for left_out in range(len(known) + 1):
        choices = {name: Choice() if name in past else _least(analyses[name], most) for name in analyses}
        choices |= dict.fromkeys(known[:left_out], Choice(left_out=True))
        if _reduce(choices, analyses, known[left_out:], past, units, max(0.0, allowed)):
            break
    return choices


def _reduce(
    choices: dict[str, Choice],
    analyses: Mapping[str, Analysis],
    names: Sequence[str],
    past: Mapping[str, AnalysisResult],
    units: Mapping[str, Sequence[int]],
    allowed: float,
) -> bool:
    """Reduce the choices of `names`, in place; whether they then stay under the seconds allowed."""
    most = max((len(some) for some in units.values()), default=1)

    def seconds(name: str) -> float:
        """The measured seconds, scaled from how much was run then to how much is to be run now."""
        predicted, then = past[name].seconds, past[name].reduced
        now = choices[name].reductions(analyses[name], units)
        for what in ("units", "steps"):
            (kept_now, full_now), (kept_then, full_then) = now.get(what, (1, 1)), then.get(what, (1, 1))
            predicted *= kept_now / full_now * full_then / kept_then
        return predicted

    def steps(name: str) -> int:
        return choices[name].steps or analyses[name].steps

    def reducible(what: str) -> list[str]:
        return [name for name in names if what in analyses[name].traits.reducible]

    while sum(map(seconds, names)) > allowed:
        by_unit = [name for name in reducible("units") if choices[name].every < most]
        by_step = [name for name in reducible("steps") if steps(name) > LEAST_STEPS]
        if by_unit:
            name = max(by_unit, key=seconds)
            choices[name] = dataclasses.replace(choices[name], every=choices[name].every * 2)
        elif by_step:
            name = max(by_step, key=seconds)
            half = max(LEAST_STEPS, steps(name) // 2)
            choices[name] = dataclasses.replace(choices[name], steps=half)
        else:
            return False
    return True


def last_results(store: Store, step: int, names: Sequence[str]) -> dict[str, AnalysisResult]:
    """How each analysis went when it last ran before a step and was not left out; if it always failed, how it
    last failed."""
    found: dict[str, AnalysisResult] = {}
    failed: dict[str, AnalysisResult] = {}
    for earlier in sorted((s for s in store.steps() if s < step), reverse=True):
        for name, result in store.results(earlier).items():
            if name in names and not result.left_out:
                (failed if result.error else found).setdefault(name, result)
        if len(found) == len(names):
            break
    return failed | found


def _least(analysis: Analysis, most: int) -> Choice:
    reducible = analysis.traits.reducible
    steps = min(LEAST_STEPS, analysis.steps) if "steps" in reducible else None
    return Choice(most if "units" in reducible else 1, steps)
