"""How running out of memory shows."""

from __future__ import annotations

import torch

# what torch's CPU allocator says, in a plain RuntimeError
_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, the device's or the host's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)
