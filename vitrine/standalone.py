"""Examine a network without Lightning: in a plain training loop, or in a notebook."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrine.analyses import choose_analyses
from vitrine.analyses.base import Analysis
from vitrine.analyses.result import CheckpointReport
from vitrine.core.network_scopes import full_isolation, unwrapped
from vitrine.datamodules.foreign import ForeignData, class_names
from vitrine.datamodules.steady_images import examined_split, foreign_training
from vitrine.examination.checks import check_analyses
from vitrine.examination.examiner import Examiner
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules.network_record import attach_record
from vitrine.modules.network_search import checked_copy, logits_problem, network_logits
from vitrine.reporting.notebook import to_html
from vitrine.reporting.page import PageSink
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.run_record import RunRecord
from vitrine.runs.store import Store


@dataclass
class Examination(CheckpointReport):
    """What `look` returns: a report, which a notebook shows as pictures.

    Attributes:
        page: index.html, with this and all earlier steps.
    """

    page: Path = field(default_factory=Path)

    def _repr_html_(self) -> str:
        return to_html(self, str(self.page))


def look(
    network: nn.Module,
    dataset: Any,
    folder: str | Path,
    *,
    step: int = 0,
    train: Any = None,
    learning_rate: float | None = None,
    classes: Sequence[str] | None = None,
    analyses: Sequence[str] | Mapping[str, Analysis] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    metrics: Mapping[str, float] | None = None,
    wandb_run: Any = None,
    **settings: Any,
) -> Examination:
    """Examine a network at a step of its training; it is left as it was, in its mode and on its device.

    The folder gets `index.html`, a page on which all steps that were examined into it stand side by side. A
    step with the same weights is not examined again, but for techniques that failed, have new settings or get
    other images.

    Args:
        network: maps images, as the data set gives them, to logits [N, K].
        dataset: a map-style data set of (image, label) or of mappings, or a DataLoader.
        folder: of page and pictures; made where it is not there.
        step: optimizer steps taken.
        train: what the network is trained on, as `dataset`: for techniques that look at training images.
        learning_rate: at this step, for those that follow the training.
        classes: their names; by default those of the data set.
        analyses: names of techniques, or techniques by name; those of the default run unless given.
        mean, std: per channel of [0, 1] pixels, by which the images are normalised. By default read off a
            `Normalize` in the data set's transforms; without one the images have to be in [0, 1].
        metrics: of this step, for the page's curves: {"val/accuracy": 0.9}.
        wandb_run: what `wandb.init` returned, to log to as well; it is not ended.
        settings: for all techniques (`AnalysisSettings`: layers, units, probes, device, strict, ...).

    Raises:
        ValueError: the network gives no logits, it is unknown how the images were normalised, or a technique,
            layer, unit or setting that there is not. A technique that fails is in the report's `errors`.
    """
    chosen, options, folder = choose_analyses(analyses), AnalysisSettings.of(settings), Path(folder)
    options.check_device()
    network = unwrapped(network)
    parameter = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(0))
    with full_isolation(network):
        split = examined_split(dataset, mean, std)
        first = split.raw(range(min(4, len(split))))
        seen = [tensor.cpu().numpy().tobytes() for tensor in first]  # now: the network may write into them
        images = first[0].to(parameter.device, parameter.dtype)
        if (problem := logits_problem(network, images)) is not None:
            raise ValueError(f"network: {type(network).__name__} {problem}")
        count = network_logits(network, images).shape[1]
        training = foreign_training(train, mean, std)
        data = ForeignData(split, class_names((split.items,), count, classes), *training)
        copied = attach_record(checked_copy(network, data.statistics, images), learning_rate=learning_rate)
        check_analyses(chosen, options, copied, images[:1].float())
    folder.mkdir(parents=True, exist_ok=True)
    record = RunRecord(folder, sys.argv, {"network": type(network).__name__, **data.facts()})
    if metrics:
        MetricsCSV(folder).log_metrics(dict(metrics), step - 1)
    sinks = [record, PageSink(folder)]
    if wandb_run is not None:
        sinks.append(WandbSink(wandb_run, data.classes, page=False, run_dir=folder, owned=False))
    told_apart = hashlib.sha256(repr([len(split), *seen, data.classes, data.statistics]).encode()).hexdigest()
    examiner = Examiner(chosen, data, options, Store(folder), sinks, retry=True, data_hash=told_apart)
    report = examiner.examine(copied, step)
    for sink in sinks:
        sink.close()
    return Examination(report.step, report.results, report.failures, folder / "index.html")
