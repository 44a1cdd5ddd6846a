"""Recognise exceptions of memory that ran out."""

from __future__ import annotations

import torch

# of torch's CPU allocator, which raises a plain RuntimeError
_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, the device's or the host's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)
