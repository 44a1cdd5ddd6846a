"""An analysis that runs out of memory is tried again with half the batch, until a batch is one image."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Callable

import torch

from vitrine.analyses.base import Analysis, Subject
from vitrine.core.memory import is_out_of_memory

log = logging.getLogger(__name__)


def halving(
    name: str, analysis: Analysis, subject: Subject, attempt: Callable[[Analysis, Subject], None]
) -> int:
    """Run `attempt(analysis, subject)`; as long as memory runs out, again with batches of half the size.

    `subject.batch_size` is halved, and the analysis' own `batch_size` where it has one, until both are 1.

    Args:
        name: of the analysis, for the log.
        attempt: begins afresh each time that it is called.

    Returns:
        The `subject.batch_size` that it went well with.

    Raises:
        Exception: whatever else `attempt` raises; running out of memory with batches of one image.
    """
    while True:
        try:
            attempt(analysis, subject)
            return subject.batch_size
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or largest(analysis, subject) == 1:
                raise
            said = str(error).strip().splitlines() or [type(error).__name__]
        # out of the handler: the exception and the tensors in its frames are gone
        analysis, subject = halved(analysis, subject)
        log.warning(
            "analysis %r ran out of memory at step %d (%s): again with batches of %d",
            name,
            subject.step,
            said[0],
            largest(analysis, subject),
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def largest(analysis: Analysis, subject: Subject) -> int:
    """The largest batch that an analysis may make of a subject's images."""
    return max(subject.batch_size, getattr(analysis, "batch_size", 1))


def halved(analysis: Analysis, subject: Subject) -> tuple[Analysis, Subject]:
    """Both with batches of half the size, at least 1."""
    if hasattr(analysis, "batch_size"):
        analysis = dataclasses.replace(analysis, batch_size=max(1, analysis.batch_size // 2))
    return analysis, dataclasses.replace(subject, batch_size=max(1, subject.batch_size // 2))
