"""Run the analyses of one checkpoint, in one process or shared among several ranks."""

from __future__ import annotations

import dataclasses
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Scratch, Subject
from vitrine.analyses.result import AnalysisResult
from vitrine.core.network_scopes import full_isolation
from vitrine.distributed import interruption
from vitrine.distributed.ranks import SINGLE_PROCESS, Ranks
from vitrine.examination.batch_halving import run_with_halved_batches
from vitrine.examination.budget import Choice

DEFAULT_SECONDS = 1.0  # that an analysis is expected to take if it has not run yet

AllGather = Callable[[Any], list[Any]]


@dataclass(frozen=True)
class AnalysisRunner:
    """The analyses of one checkpoint and the ranks that run them: rank 0 calls `run`, within
    `ranks.broadcasting`, and the others `run_as_worker`."""

    analyses: Mapping[str, Analysis]  # by name
    subject: Subject  # of this process
    scratch: Callable[[str], Scratch]  # by an analysis' name, where it saves its progress
    ranks: Ranks = SINGLE_PROCESS

    def run(
        self, choices: Mapping[str, Choice], seconds: Mapping[str, float]
    ) -> Iterator[tuple[str, AnalysisResult]]:
        """On rank 0: every analysis of `choices`, with its result.

        A single process runs them in the order given. Several ranks first run, all together, each that is
        `sharded`; then the others, each on one rank, at the same time.

        Args:
            choices: by name, how much of each is made.
            seconds: that each took when it last ran.
        """
        together = [name for name in choices if self.ranks.world_size == 1 or self.analyses[name].sharded]
        on_one_rank = [name for name in choices if name not in together]
        for name in together:
            self._broadcast({name: choices[name]}, None)
            yield name, self._run_on_all_ranks(name, choices[name])
        if on_one_rank:
            expected = {name: seconds.get(name, DEFAULT_SECONDS) for name in on_one_rank}
            owners = assign_ranks(expected, self.ranks.world_size)
            divided = {name: choices[name] for name in on_one_rank}
            self._broadcast(divided, owners)
            results = self._run_on_own_ranks(divided, owners)
            yield from ((name, results[name]) for name in on_one_rank)

    def run_as_worker(self) -> None:
        """On the other ranks: take part in what rank 0 runs, until it leaves `ranks.broadcasting`.

        Raises:
            RankFailed, MemoryError, Interrupted or KeyboardInterrupt: rank 0 failed.
        """
        for choices, owners in self.ranks.received():
            if owners is None:
                for name, choice in choices.items():
                    self._run_on_all_ranks(name, choice)
            else:
                self._run_on_own_ranks(choices, owners)

    def _broadcast(self, choices: Mapping[str, Choice], owners: Mapping[str, int] | None) -> None:
        if self.ranks.world_size > 1:  # a single process is interrupted by the signal handler
            interruption.check()
        self.ranks.broadcast((choices, owners))

    def _run_on_all_ranks(self, name: str, choice: Choice) -> AnalysisResult:
        return run_analysis(name, self.analyses[name], self._subject_for(name), choice, self.ranks)

    def _run_on_own_ranks(
        self, choices: Mapping[str, Choice], owners: Mapping[str, int]
    ) -> dict[str, AnalysisResult]:
        """The results of all ranks, each having run the analyses that it owns."""

        def work(all_gather: AllGather) -> list[dict[str, AnalysisResult]]:
            own = {}
            for name in (name for name in choices if owners[name] == self.ranks.rank):
                own[name] = run_analysis(name, self.analyses[name], self._subject_for(name), choices[name])
            return all_gather(own)

        try:
            return dict(ChainMap(*self.ranks.run_collective(work)))
        except Exception as error:  # a result that cannot be pickled
            failed = AnalysisResult()
            failed.fail(error)
            return {name: dataclasses.replace(failed) for name in choices}

    def _subject_for(self, name: str) -> Subject:
        subject = dataclasses.replace(self.subject, scratch=self.scratch(name))
        if self.ranks.world_size == 1:
            return subject
        bar = subject.progress

        def progress(iterable: Iterable[Any], *args: Any) -> Iterator[Any]:
            for item in bar(iterable, *args) if self.ranks.is_global_zero else iterable:
                interruption.check()
                yield item

        return dataclasses.replace(subject, progress=progress)


def run_analysis(
    name: str, analysis: Analysis, subject: Subject, choice: Choice, ranks: Ranks = SINGLE_PROCESS
) -> AnalysisResult:
    """Run one analysis in isolation; its failure is recorded in the result, not raised.

    Args:
        ranks: which share the work and all call this at once; the result of rank 0 counts.
    """
    result = AnalysisResult(reduced=choice.reductions(analysis, subject.units))

    def attempt(analysis: Analysis, subject: Subject) -> None:
        result.clear()

        def work(all_gather: AllGather) -> None:
            place = {"rank": ranks.rank, "world_size": ranks.world_size}
            own = dataclasses.replace(subject, **place, all_gather=all_gather)
            with full_isolation(subject.network), paint.showing(subject.shown):
                for yielded in analysis(own):
                    result.add(yielded)

        ranks.run_collective(work)

    start = time.perf_counter()
    try:
        if not choice.left_out:
            fits = run_with_halved_batches(name, *choice.apply(analysis, subject), attempt)
            if fits < subject.batch_size:
                result.reduced = {**result.reduced, "batch": [fits, subject.batch_size]}
    except Exception as error:
        result.fail(error)
        if ranks.world_size > 1:
            subject.cache.clear()  # what only some ranks have cached, only they would not gather
    result.seconds = time.perf_counter() - start
    return result


def assign_ranks(seconds: Mapping[str, float], world_size: int) -> dict[str, int]:
    """The rank that runs each analysis: longest first, each on the rank with the least to do."""
    load, ranks = [0.0] * world_size, {}
    for name in sorted(seconds, key=lambda name: -seconds[name]):
        ranks[name] = min(range(world_size), key=lambda rank: load[rank])
        load[ranks[name]] += seconds[name]
    return ranks
