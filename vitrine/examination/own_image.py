"""One technique on images that are in no data set, at a checkpoint and those before it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrine.analyses.base import Analysis, Probes
from vitrine.analyses.result import AnalysisResult
from vitrine.core.settings import SettingError
from vitrine.examination.budget import Choice
from vitrine.examination.runner import run_analysis
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.subject import make_subject, progress_bar
from vitrine.runs.store import Store


def explain_images(
    name: str,
    analysis: Analysis,
    before: Analysis,
    probes: Probes,
    checkpoints: Mapping[int, Path],
    load: Callable[[Path], nn.Module],
    data: Any,
    settings: AnalysisSettings,
    store: Store,
    device: torch.device,
) -> AnalysisResult:
    """What a technique yields of images at the last of some checkpoints, having seen them at those before.

    Nothing is stored; each checkpoint is given the state that the one before has yielded.

    Args:
        name: of the technique.
        analysis: is run at the last checkpoint.
        before: at the others, for the state.
        probes: the images, on the device.
        checkpoints: files by step, ascending.
        load: a file to its network.
        data: of the run, set up.
        store: of the run, for scratch files.

    Raises:
        SettingError: the technique fails.
    """
    result = AnalysisResult()
    for step, file in progress_bar(checkpoints.items(), "checkpoints", len(checkpoints)):
        before_it = {name: result.state} if result.state else None
        subject = make_subject(load(file), data, settings, step, previous_state=before_it, device=device)
        scratch = store.scratch(step, f"{name}-{os.getpid()}", "of-own-images")
        try:
            own = dataclasses.replace(subject, probes=probes, scratch=scratch)
            chosen = analysis if step == max(checkpoints) else before
            found = run_analysis(name, chosen, own, Choice())
        finally:
            scratch.clear()
        if found.error:
            raise SettingError(name, f"failed at step {step}: {found.error}")
        found.state = found.state or result.state  # a checkpoint may have nothing to add
        result = found
    return result
