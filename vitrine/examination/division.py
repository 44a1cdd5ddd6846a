"""Who makes which analysis: one process all of them, several some together and some each for itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vitrine.analyses.base import Analysis, Figure, Scratch, Subject
from vitrine.analyses.result import AnalysisResult
from vitrine.core.network_scopes import full_isolation
from vitrine.distributed import interruption
from vitrine.distributed.ranks import ALONE, Ranks
from vitrine.examination.budget import Choice
from vitrine.examination.halving import halving

UNKNOWN = 1.0  # seconds that an analysis is taken to need before it has run once


@dataclass(frozen=True)
class Division:
    """The analyses of one checkpoint, and those who make them.

    Args:
        analyses: by name.
        subject: of this process.
        scratch: by an analysis' name, where it keeps how far it has come.
        ranks: who makes them.
    """

    analyses: Mapping[str, Analysis]
    subject: Subject
    scratch: Callable[[str], Scratch]
    ranks: Ranks = ALONE

    def lead(
        self, choices: Mapping[str, Choice], seconds: Mapping[str, float]
    ) -> Iterator[tuple[str, AnalysisResult]]:
        """On rank 0: every analysis of `choices` in turn, and what came of it. The others `attend`.

        First those that all ranks divide, then the others, each whole on one rank, many at a time. One
        process alone makes all in the order given.

        Args:
            choices: by name, how much of it is made.
            seconds: what each took when it last ran.
        """
        whole = [name for name in choices if self.ranks.count > 1 and not self.analyses[name].sharded]
        for name in (name for name in choices if name not in whole):
            self._check()
            self.ranks.tell(({name: choices[name]}, None))
            yield name, self._together(name, choices[name])
        if whole:
            self._check()
            owners = owners_of({name: seconds.get(name, UNKNOWN) for name in whole}, self.ranks.count)
            order = {name: choices[name] for name in whole}, owners
            self.ranks.tell(order)
            made = self._apart(*order)
            yield from ((name, made[name]) for name in whole)

    def close(self) -> None:
        """On rank 0, whatever has happened: nothing is left to do for the others."""
        self.ranks.dismiss()

    def attend(self) -> None:
        """On the other ranks: take part in what rank 0 makes, until nothing is left."""
        while (order := self.ranks.hear()) is not None:
            choices, owners = order
            if owners is None:
                for name, choice in choices.items():
                    self._together(name, choice)
            else:
                self._apart(choices, owners)

    def _check(self) -> None:
        if self.ranks.count > 1:  # one alone is interrupted at once
            interruption.check()

    def _together(self, name: str, choice: Choice) -> AnalysisResult:
        return make(name, self.analyses[name], self._own(name), choice, self.ranks)

    def _apart(self, choices: Mapping[str, Choice], owners: Mapping[str, int]) -> dict[str, AnalysisResult]:
        """What all ranks made, each its own; on rank 0 at least."""
        mine = [name for name in choices if owners[name] == self.ranks.rank]

        def work(exchange: Callable[..., list[dict[str, AnalysisResult]]]) -> list[dict[str, AnalysisResult]]:
            return exchange(
                {name: make(name, self.analyses[name], self._own(name), choices[name]) for name in mine}
            )

        try:
            return {name: one for made in self.ranks.together(work) for name, one in made.items()}
        except Exception as error:  # what one rank made cannot be told
            failed = AnalysisResult()
            failed.fail(error)
            return dict.fromkeys(choices, failed)

    def _own(self, name: str) -> Subject:
        subject = dataclasses.replace(self.subject, scratch=self.scratch(name))
        if self.ranks.count == 1:
            return subject
        bar = subject.progress

        def progress(iterable: Iterable[Any], *told: Any) -> Iterator[Any]:
            for one in bar(iterable, *told) if self.ranks.first else iterable:
                interruption.check()
                yield one

        return dataclasses.replace(subject, progress=progress)


def make(
    name: str, analysis: Analysis, subject: Subject, choice: Choice, ranks: Ranks = ALONE
) -> AnalysisResult:
    """Run one analysis in isolation; its failure is noted, not raised.

    Args:
        ranks: who divides it, all of whom call this at once; what rank 0 gets is what counts.
    """
    result = AnalysisResult(reduced=choice.reduced(analysis, subject.units))

    def attempt(analysis: Analysis, subject: Subject) -> None:
        result.figures, result.scalars = figures, scalars = [], []

        def work(exchange: Callable[..., list]) -> None:
            own = dataclasses.replace(subject, rank=ranks.rank, world_size=ranks.count, all_gather=exchange)
            with full_isolation(subject.network):
                for yielded in analysis(own):
                    (figures if isinstance(yielded, Figure) else scalars).append(yielded)

        ranks.together(work)

    start = time.perf_counter()
    try:
        if not choice.left_out:
            fits = halving(name, *choice.applied(analysis, subject), attempt)
            if fits < subject.batch_size:
                result.reduced = {**result.reduced, "batch": [fits, subject.batch_size]}
    except Exception as error:
        result.fail(error)
        if ranks.count > 1:
            subject.cache.clear()  # what only some ranks have cached, only they would not gather
    result.seconds = time.perf_counter() - start
    return result


def owners_of(seconds: Mapping[str, float], count: int) -> dict[str, int]:
    """Which of `count` ranks makes which analysis: the longest first, each to the one with least to do."""
    load, owners = [0.0] * count, {}
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        owners[name] = min(range(count), key=lambda rank: load[rank])
        load[owners[name]] += seconds[name]
    return owners
