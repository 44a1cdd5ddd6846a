"""Run the analyses of one checkpoint: each isolated, failures contained, everything kept and logged."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import interruption
from analyses.base import Analysis, Figure, Scalar, Subject
from callbacks.budget import Choice, in_words, last_outcomes, plan
from callbacks.isolation import isolated
from callbacks.memory import halving
from gallery.store import Store, Writer
from settings import setting

log = logging.getLogger(__name__)

Results = dict[str, tuple[list[Figure], list[Scalar]]]


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
        "who looks at checkpoints: train, or others that run `analyze.py RUN follow=true` while it only saves",
        choices=("train", "follow"),
    )
    budget: float | None = setting(
        None,
        "share of the time trained since the last checkpoint that analyses may take, e.g. 0.1; null: any",
        above=0,
    )


@dataclass
class Report:
    """What came of examining one checkpoint.

    Attributes:
        step: optimizer steps taken.
        seconds: by analysis, of those that ran.
        figures: how many pictures were made.
        errors: what failed, in one line each: by analysis, "store", or the sink's class.
        reduced: by analysis, what was less than asked for; see `gallery.store.Outcome`.
    """

    step: int
    seconds: dict[str, float] = field(default_factory=dict)
    figures: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    reduced: dict[str, Mapping[str, Sequence[int]]] = field(default_factory=dict)


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
) -> Report:
    """Run what is `missing` at the subject's step, keep it in the store and hand it to the sinks.

    An analysis that fails is logged with its traceback, recorded with what it had yielded so far, and the
    next one runs. A store that cannot be written to (OSError) ends the examination, and the step stays
    missing: it is made up for at the next start. A sink that fails is passed over. An interrupt is never
    contained.

    Args:
        analyses: by name, as registered; those not `enabled` are passed over.
        sinks: each gets one `log(step, {name: (figures, scalars)}, folder)`, and only what was made now.
        weights: `weights_hash` of the network.
        strict: the first failure is raised, once it is recorded beside what was made before it.
        again: analyses that failed here before, had other settings, or were less than asked for, run again.
        allowed: seconds that they may take, see `callbacks.budget`; None: no limit.
    """
    report = Report(subject.step)
    names = missing(store, subject.step, analyses, weights, again)
    due = {name: analyses[name] for name in names}
    choices = plan(due, subject.units, last_outcomes(store, subject.step, names), allowed)
    results: Results = {}
    failure: Exception | None = None
    try:
        if names:
            with interruption.at_once(), store.writing(subject.step, weights=weights) as writer:
                for name in subject.progress(names, f"analyses at step {subject.step}", len(names)):
                    own = dataclasses.replace(subject, scratch=store.scratch(subject.step, name, weights))
                    failure = _run(name, analyses[name], own, choices[name], writer, results, report)
                    if failure and strict:
                        break
            for name in results.keys() - report.errors.keys():  # not before the step is whole
                store.scratch(subject.step, name, weights).clear()
    except OSError as error:
        log.exception(
            "the analyses of step %d could not be kept; they are missing until the next start", subject.step
        )
        report.errors["store"] = _line(error)
        if strict:
            raise
    if failure and strict:
        raise RuntimeError(f"an analysis failed at step {subject.step}: {_line(failure)}") from failure
    if results and "store" not in report.errors:
        _tell(sinks, subject.step, results, store, report, strict)
    return report


def missing(
    store: Store, step: int, analyses: Mapping[str, Analysis], weights: str, again: bool = False
) -> list[str]:
    """The enabled analyses that a step of these weights has not had.

    With `again`, also those that failed, were made with other settings, or were less than asked for (but for
    smaller batches, where memory ran out: it would again).
    """
    had = store.outcomes(step) if store.weights(step) == weights else {}

    def done(name: str, analysis: Analysis) -> bool:
        if not again or name not in had:
            return name in had
        asked = json.loads(json.dumps(dataclasses.asdict(analysis)))  # as the store has kept it
        whole = not set(had[name].reduced or {}) - {"batch"}
        return not had[name].error and had[name].settings == asked and whole

    return [name for name, analysis in analyses.items() if analysis.enabled and not done(name, analysis)]


def weights_hash(network: nn.Module) -> str:
    """The SHA-256 of a network's parameters and buffers with their names, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def summary(reports: Sequence[Report]) -> str:
    """What was made, how long it took, what failed and what was cut short: a line, and one more for each."""
    ran = sum(len(report.seconds) for report in reports)
    figures = sum(report.figures for report in reports)
    seconds = sum(sum(report.seconds.values()) for report in reports)
    failures = [(name, report.step, error) for report in reports for name, error in report.errors.items()]
    made = f"{ran} analyses of {len(reports)} checkpoints gave {figures} pictures in {seconds:.1f} s, "
    lines = [made + (f"{len(failures)} failed:" if failures else "none failed")]
    lines += [f"  {name} at step {step}: {error}" for name, step, error in failures]
    less = [(name, r.step, in_words(said)) for r in reports for name, said in r.reduced.items()]
    lines += [f"less than asked for, {len(less)} times (analyze.py makes up for it):"] if less else []
    return "\n".join(lines + [f"  {name} at step {step}: {said}" for name, step, said in less])


def _run(
    name: str,
    analysis: Analysis,
    subject: Subject,
    choice: Choice,
    writer: Writer,
    results: Results,
    report: Report,
) -> Exception | None:
    """Run one analysis and write what it yielded; its failure, where it failed. OSError: the store's."""
    figures: list[Figure] = []
    scalars: list[Scalar] = []
    failure, trace = None, None
    settings = dataclasses.asdict(analysis)
    reduced = choice.reduced(analysis, subject.units)

    def attempt(analysis: Analysis, subject: Subject) -> None:
        figures.clear(), scalars.clear()
        with isolated(subject.network):
            for yielded in analysis(subject):
                (figures if isinstance(yielded, Figure) else scalars).append(yielded)

    start = time.perf_counter()
    try:
        if not choice.left_out:
            fits = halving(name, *choice.applied(analysis, subject), attempt)
            reduced |= {"batch": [fits, subject.batch_size]} if fits < subject.batch_size else {}
    except Exception as error:
        failure, trace = error, traceback.format_exc()
    seconds = time.perf_counter() - start
    if reduced:
        report.reduced[name] = reduced
        log.warning("analysis %r at step %d: %s", name, subject.step, in_words(reduced))
    try:
        writer.write(name, figures, scalars, seconds, trace, settings, reduced)
    except (ValueError, TypeError) as error:  # pictures that cannot be kept are the analysis' failure as well
        failure, trace = failure or error, trace or traceback.format_exc()
        figures, scalars = [], []
        writer.write(name, figures, scalars, seconds, trace)
    if choice.left_out:
        return failure
    report.seconds[name] = seconds
    report.figures += len(figures)
    # the store has the seconds in complete.json; a dashboard wants them as a curve
    results[name] = (figures, [*scalars, Scalar(f"seconds/{name}", seconds)])
    if failure:
        report.errors[name] = _line(failure)
        log.error("analysis %r failed at step %d:\n%s", name, subject.step, trace)
    return failure


def _tell(
    sinks: Iterable[Any], step: int, results: Results, store: Store, report: Report, strict: bool
) -> None:
    for sink in sinks:
        try:
            sink.log(step, results, store.step_folder(step))
        except Exception as error:
            if strict:
                raise
            name = type(sink).__name__
            log.exception("%s could not log the analyses of step %d", name, step)
            report.errors[name] = _line(error)


def _line(error: Exception) -> str:
    return traceback.format_exception_only(error)[-1].strip()
