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


def run_with_halved_batches(
    name: str, analysis: Analysis, subject: Subject, attempt: Callable[[Analysis, Subject], None]
) -> int:
    """Run `attempt(analysis, subject)`; as long as memory runs out, again from scratch with half the batch.

    `subject.batch_size` is halved, and the analysis' own `batch_size` where it has one, until both are 1.

    Returns:
        The `subject.batch_size` that succeeded.

    Raises:
        Exception: any other that `attempt` raises; running out of memory with batches of one image.
    """
    while True:
        try:
            attempt(analysis, subject)
            return subject.batch_size
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or max(subject.batch_size, analysis.batch_size) == 1:
                raise
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        # outside of the handler: the exception, and with it the tensors in its frames, are freed
        if analysis.batch_size > 1:
            analysis = dataclasses.replace(analysis, batch_size=analysis.batch_size // 2)
        subject = dataclasses.replace(subject, batch_size=max(1, subject.batch_size // 2))
        log.warning(
            "analysis %r ran out of memory at step %d (%s): again with batches of %d",
            name,
            subject.step,
            reason,
            max(subject.batch_size, analysis.batch_size),
        )
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
