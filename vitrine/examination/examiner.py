"""Examine checkpoints: run analyses in isolation, contain failures, store results, hand them to the sinks."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from vitrine.analyses.base import Analysis, Subject
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.core.module_copies import tensors_of
from vitrine.core.network_scopes import full_isolation, unwrapped
from vitrine.distributed import interruption
from vitrine.distributed.ranks import SINGLE_PROCESS, Ranks
from vitrine.examination.budget import last_results, plan
from vitrine.examination.runner import AllGather, AnalysisRunner
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.subject import make_subject
from vitrine.runs.store import Store, Writer

log = logging.getLogger(__name__)

_YIELDED = ("figures", "scalars", "files", "state")  # of a result


class Examiner:
    """Runs the missing analyses of networks, one checkpoint after another, and keeps count.

    An analysis that fails is logged with its traceback and recorded with what it had yielded; the next one
    runs. A store that cannot be written to (OSError) ends the examination, and the step stays missing. A
    sink that fails is skipped. An interrupt is never contained.

    Several ranks call the same methods with the same arguments: rank 0 decides what is missing, writes, logs
    and reports; an exception on any rank is raised on all.

    Args:
        analyses: by name; those not `enabled` are skipped.
        data: set up; has `train` and `val` (map-style data sets) and `classes`.
        settings: for all analyses. With `strict` the first failure is raised, once it is recorded.
        sinks: where they are shown (reporting.sinks.Sink): each gets one `log(report, folder)` a checkpoint.
        device: for `settings.device` of "auto"; where the network is, unless given.
        ranks: those that examine together.
        retry: analyses that failed before, had other settings, were less than asked for, or were made of
            other layers, units or images, run again.
        data_hash: tells these data from others, where no settings do.

    Attributes:
        reports: of every checkpoint at which something ran or failed, in order; on rank 0.
    """

    def __init__(
        self,
        analyses: Mapping[str, Analysis],
        data: Any,
        settings: AnalysisSettings,
        store: Store,
        sinks: Iterable[Any] = (),
        *,
        device: torch.device | str | None = None,
        ranks: Ranks = SINGLE_PROCESS,
        retry: bool = False,
        data_hash: str | None = None,
    ):
        self.analyses = {name: analysis for name, analysis in analyses.items() if analysis.enabled}
        self.data, self.settings, self.store, self.sinks = data, settings, store, list(sinks)
        self.device, self.ranks, self.retry, self.strict = device, ranks, retry, settings.strict
        self.data_hash = data_hash
        self.reports: list[CheckpointReport] = []

    def missing(self, network: nn.Module, step: int) -> list[str]:
        """The enabled analyses that a step with these weights has not had.

        With `retry`, also those that failed, had other settings or another subject, or were less than asked
        for; but not for smaller batches, as memory would run out again.
        """
        return self._missing(weights_hash(network), step)

    def examine_loaded(
        self, load: Callable[[], nn.Module], step: int, seconds_allowed: float | None = None
    ) -> CheckpointReport:
        """`examine` the network that `load()` gives; if that is impossible, report it (`strict`: raise)."""
        try:
            with full_isolation():  # building a network draws random numbers
                network = self.ranks.run_collective(lambda _: load())
            return self.examine(network, step, seconds_allowed)
        except Exception as error:
            if self.strict:
                raise
            log.exception("the checkpoint of step %d could not be examined", step)
            failures = {"checkpoint": f"{type(error).__name__}: {error}"}
            return self._add(CheckpointReport(step, failures=failures))

    def examine(
        self, network: nn.Module, step: int, seconds_allowed: float | None = None
    ) -> CheckpointReport:
        """Run what is missing at a step, store it and hand it to the sinks.

        Args:
            network: in eval mode; its parameters are frozen and it is moved to the device: pass a copy.
            seconds_allowed: that the analyses may take, see `examination.budget`; None: no limit.

        Returns:
            On rank 0 what was made and what failed, without what was there already; on other ranks empty.

        Raises:
            SettingError: a layer or unit that the network does not have.
            ValueError: the ranks hold different weights.
        """

        def prepare(all_gather: AllGather) -> tuple[str, list[str], Subject | None]:
            weights = weights_hash(network)
            answers = all_gather((weights, self._missing(weights, step) if self.ranks.is_global_zero else []))
            if any(other != weights for other, _ in answers):
                raise ValueError(f"the ranks hold different weights at step {step}")
            names = answers[0][1]
            if not names:
                return weights, names, None
            subject = make_subject(
                network,
                self.data,
                self.settings,
                step,
                previous=self.store.previous(step),
                previous_state=self.store.previous_state(step),
                device=self.device,
            )
            return weights, names, subject

        report = CheckpointReport(step)
        with full_isolation():
            weights, names, subject = self.ranks.run_collective(prepare)
            if subject is None:
                return report
            scratch = partial(self.store.scratch, step, weights=weights)
            runner = AnalysisRunner(self.analyses, subject, scratch, self.ranks)
            if not self.ranks.is_global_zero:
                runner.run_as_worker()
                return report
            with self.ranks.broadcasting():
                self._run(runner, names, weights, seconds_allowed, report)
                self._log(report)
        return self._add(report)

    def _missing(self, weights: str, step: int) -> list[str]:
        had = self.store.results(step) if self.store.weights(step) == weights else {}
        subject = self._subject() if self.retry else {}

        def done(name: str, analysis: Analysis) -> bool:
            if not self.retry or name not in had:
                return name in had
            settings = json.loads(json.dumps(dataclasses.asdict(analysis)))  # as the store has recorded them
            whole = not set(had[name].reduced) - {"batch"}
            # a record of an earlier version may not tell all
            same = all(subject.get(key, value) == value for key, value in had[name].subject.items())
            return not had[name].error and had[name].settings == settings and same and whole

        return [name for name, analysis in self.analyses.items() if not done(name, analysis)]

    def _subject(self) -> dict[str, Any]:
        """What tells the subject of these analyses from others of the same weights, for the record."""
        return self.settings.of_subject() | ({"data": self.data_hash} if self.data_hash else {})

    def _run(
        self,
        runner: AnalysisRunner,
        names: list[str],
        weights: str,
        seconds_allowed: float | None,
        report: CheckpointReport,
    ) -> None:
        """Run the analyses and store their results, which `report` gets.

        Raises:
            RuntimeError: one failed, and `strict` is set; OSError of the store likewise.
        """
        step = report.step
        past = last_results(self.store, step, names)
        analyses = {name: self.analyses[name] for name in names}
        choices = plan(analyses, runner.subject.units, past, seconds_allowed)
        results = runner.run(choices, {name: result.seconds for name, result in past.items()})
        # several ranks are interrupted together, at their next collective
        prompt = interruption.immediate() if self.ranks.world_size == 1 else contextlib.nullcontext()
        failure = None
        try:
            with prompt, self.store.writing(step, weights=weights) as writer:
                description = f"analyses at step {step}"
                for name, result in runner.subject.progress(results, description, len(names)):
                    report.results[name] = result
                    result.subject = self._subject()
                    _write(name, result, analyses[name], writer, step)
                    failure = result.error
                    if failure and self.strict:
                        break
            for name, result in report.results.items():  # not before the step is whole
                if not result.left_out and not result.error:
                    self.store.scratch(step, name, weights).clear()
        except OSError as error:
            log.exception("the analyses of step %d could not be stored; the next start runs them again", step)
            report.failures["store"] = _line(error)
            if self.strict:
                raise
        if failure and self.strict:
            raise RuntimeError(f"an analysis failed at step {step}: {failure}")

    def _log(self, report: CheckpointReport) -> None:
        """Hand the results of the analyses that ran to the sinks."""
        ran = {name: result for name, result in report.results.items() if not result.left_out}
        if not ran or "store" in report.failures:
            return
        for sink in self.sinks:
            try:
                sink.log(CheckpointReport(report.step, ran), self.store.step_folder(report.step))
            except Exception as error:
                if self.strict:
                    raise
                name = type(sink).__name__
                log.exception("%s could not log the analyses of step %d", name, report.step)
                report.failures[name] = _line(error)

    def _add(self, report: CheckpointReport) -> CheckpointReport:
        """Keep a report, whose pictures the store reads when asked for: in memory they would add up."""
        stored = self.store.results(report.step)
        report.results = {
            name: dataclasses.replace(result, **{what: getattr(stored[name], what) for what in _YIELDED})
            for name, result in report.results.items()
            if name in stored
        }
        if self.ranks.is_global_zero:
            self.reports.append(report)
        return report


def weights_hash(network: nn.Module) -> str:
    """The SHA-256 of a network's parameters and buffers with their names, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(unwrapped(network)).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _write(name: str, result: AnalysisResult, analysis: Analysis, writer: Writer, step: int) -> None:
    """Store the result of an analysis, and log what is wrong with it. OSError: the store's."""
    if result.reduced:
        log.warning("analysis %r at step %d: %s", name, step, result.reduced_text)
    for alarm in result.alarms:
        log.warning("alarm at step %d: %s", step, alarm.text)
    result.settings = dataclasses.asdict(analysis)
    try:
        writer.write(name, result)
    except (ValueError, TypeError) as error:  # figures that cannot be stored are the analysis' failure, too
        result.fail(error)
        result.clear()
        result.settings = None
        writer.write(name, result)
    if result.error:
        log.error("analysis %r failed at step %d:\n%s", name, step, result.traceback)


def _line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()
