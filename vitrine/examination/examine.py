"""Run the analyses of one checkpoint: each isolated, failures contained, everything kept and logged."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vitrine.analyses.base import Analysis, Subject
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.core.settings import setting
from vitrine.distributed import interruption
from vitrine.distributed.ranks import ALONE, Ranks
from vitrine.examination.budget import last_results, plan
from vitrine.examination.division import Division
from vitrine.runs.store import Store, Writer

log = logging.getLogger(__name__)


@dataclass
class AnalysisSettings:
    """What holds for all analyses; each technique's own settings stand beside these under its name."""

    layers: Any = setting(
        "auto", "layers to look at: auto (the last at each resolution) or a list of dotted names"
    )
    units: Any = setting(8, "channels to show of each layer: how many, evenly spaced, or a list of channels")
    probes: int = setting(
        8, "fixed images that are looked at at every checkpoint, spread over the classes", least=1
    )
    split: str = setting("val", "the images that examples and probes come from", choices=("val", "train"))
    seed: int = setting(0, "everything random in the analyses comes from it", least=0)
    batch_size: int = setting(256, "images a batch in passes over the data set", least=1)
    device: str = setting("auto", "where analyses run: auto (where training does), cpu, cuda, cuda:1, ...")
    strict: bool = setting(False, "an analysis that fails ends the training")
    mode: str = setting(
        "train",
        "who looks at checkpoints: train, or `analyze.py RUN follow=true` elsewhere while it only saves",
        choices=("train", "follow"),
    )
    budget: float | None = setting(
        None,
        "share of the time trained since the last checkpoint that analyses may take, e.g. 0.1; null: any",
        above=0,
    )


def examine(
    subject: Subject,
    analyses: Mapping[str, Analysis],
    store: Store,
    sinks: Iterable[Any] = (),
    *,
    weights: str,
    strict: bool = False,
    again: bool = False,
    allowed: float | None = None,
    ranks: Ranks = ALONE,
) -> CheckpointReport:
    """Run what is `missing` at the subject's step, keep it in the store and hand it to the sinks.

    An analysis that fails is logged with its traceback, recorded with what it had yielded so far, and the
    next one runs. A store that cannot be written to (OSError) ends the examination, and the step stays
    missing: it is made up for at the next start. A sink that fails is passed over. An interrupt is never
    contained.

    Args:
        analyses: by name, as registered; those not `enabled` are passed over.
        sinks: each gets one `log(report, folder)` of the analyses that ran now.
        weights: `weights_hash` of the network.
        strict: the first failure is raised, once it is recorded beside what was made before it.
        again: analyses that failed here before, had other settings, or were less than asked for, run again.
        allowed: seconds that they may take, see `callbacks.budget`; None: no limit.
        ranks: who makes them; this is the first, and the others `assist`.
    """
    report = CheckpointReport(subject.step)
    division = Division(analyses, subject, lambda name: store.scratch(subject.step, name, weights), ranks)
    failure: str | None = None
    try:
        names = missing(store, subject.step, analyses, weights, again)
        past = last_results(store, subject.step, names)
        choices = plan({name: analyses[name] for name in names}, subject.units, past, allowed)
        seconds = {name: result.seconds for name, result in past.items()}
        if names:
            # several ranks leave together, where they meet
            prompt = interruption.at_once() if ranks.count == 1 else contextlib.nullcontext()
            with prompt, store.writing(subject.step, weights=weights) as writer:
                made = division.lead(choices, seconds)
                for name, result in subject.progress(made, f"analyses at step {subject.step}", len(names)):
                    report.results[name] = result
                    _keep(name, result, analyses[name], writer, report.step)
                    failure = result.error
                    if failure and strict:
                        break
            for name, result in report.results.items():  # not before the step is whole
                if not result.left_out and not result.error:
                    store.scratch(subject.step, name, weights).clear()
    except OSError as error:
        log.exception(
            "the analyses of step %d could not be kept; they are missing until the next start", subject.step
        )
        report.failures["store"] = _line(error)
        if strict:
            raise
    finally:
        division.close()
    if failure and strict:
        raise RuntimeError(f"an analysis failed at step {subject.step}: {failure}")
    ran = {name: result for name, result in report.results.items() if not result.left_out}
    if ran and "store" not in report.failures:
        report.failures |= _log(sinks, CheckpointReport(subject.step, ran), store, strict)
    kept = store.results(subject.step)  # reports stay in memory for the whole of a run, and pictures must not
    report.results = {
        name: dataclasses.replace(result, figures=kept[name].figures, scalars=kept[name].scalars)
        for name, result in report.results.items()
        if name in kept
    }
    return report


def assist(
    subject: Subject, analyses: Mapping[str, Analysis], store: Store, weights: str, ranks: Ranks
) -> None:
    """On the other ranks: take part in what the first one makes in `examine`, of the same weights."""
    Division(analyses, subject, lambda name: store.scratch(subject.step, name, weights), ranks).attend()


def missing(
    store: Store, step: int, analyses: Mapping[str, Analysis], weights: str, again: bool = False
) -> list[str]:
    """The enabled analyses that a step of these weights has not had.

    With `again`, also those that failed, were made with other settings, or were less than asked for (but for
    smaller batches, where memory ran out: it would again).
    """
    had = store.results(step) if store.weights(step) == weights else {}

    def done(name: str, analysis: Analysis) -> bool:
        if not again or name not in had:
            return name in had
        asked = json.loads(json.dumps(dataclasses.asdict(analysis)))  # as the store has kept it
        whole = not set(had[name].reduced) - {"batch"}
        return not had[name].error and had[name].settings == asked and whole

    return [name for name, analysis in analyses.items() if analysis.enabled and not done(name, analysis)]


def weights_hash(network: nn.Module) -> str:
    """The SHA-256 of a network's parameters and buffers with their names, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def summary(reports: Sequence[CheckpointReport]) -> str:
    """What was made, how long it took, what failed and what was cut short: a line, and one more for each."""
    if not reports:
        return "no checkpoint was looked at"
    ran = sum(len(report.seconds) for report in reports)
    figures = sum(report.figures for report in reports)
    seconds = sum(sum(report.seconds.values()) for report in reports)
    failures = [(name, report.step, error) for report in reports for name, error in report.errors.items()]
    made = f"{ran} analyses of {len(reports)} checkpoints gave {figures} pictures in {seconds:.1f} s, "
    lines = [made + (f"{len(failures)} failed:" if failures else "none failed")]
    lines += [f"  {name} at step {step}: {error}" for name, step, error in failures]
    results = [(name, report.step, result) for report in reports for name, result in report.results.items()]
    less = [(name, step, result.reduced_text) for name, step, result in results if result.reduced]
    lines += [f"less than asked for, {len(less)} times (analyze.py makes up for it):"] if less else []
    return "\n".join(lines + [f"  {name} at step {step}: {text}" for name, step, text in less])


def _keep(name: str, result: AnalysisResult, analysis: Analysis, writer: Writer, step: int) -> None:
    """Write the result of an analysis, and log what is wrong with it. OSError: the store's."""
    if result.reduced:
        log.warning("analysis %r at step %d: %s", name, step, result.reduced_text)
    result.settings = dataclasses.asdict(analysis)
    try:
        writer.write(name, result)
    except (ValueError, TypeError) as error:  # pictures that cannot be kept are the analysis' failure as well
        result.fail(error)
        result.figures, result.scalars, result.settings = [], [], None
        writer.write(name, result)
    if result.error:
        log.error("analysis %r failed at step %d:\n%s", name, step, result.traceback)


def _log(sinks: Iterable[Any], report: CheckpointReport, store: Store, strict: bool) -> dict[str, str]:
    """Hand a report to the sinks; what failed, by the sink's class."""
    failures = {}
    for sink in sinks:
        try:
            sink.log(report, store.step_folder(report.step))
        except Exception as error:
            if strict:
                raise
            name = type(sink).__name__
            log.exception("%s could not log the analyses of step %d", name, report.step)
            failures[name] = _line(error)
    return failures


def _line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()
