"""The logits in whatever a network returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

NO_LOGITS = "network: returns"  # begins what is said of a network that returns something else


def as_logits(output: Any) -> Tensor:
    """The output itself where it is a tensor, else what it has as key or attribute `logits`.

    Raises:
        ValueError: it has no such tensor.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    came = type(output).__name__
    if isinstance(output, Mapping):
        came += f" of {', '.join(map(str, output))}"
    elif isinstance(output, (tuple, list)):
        came += f" of {len(output)}"
    raise ValueError(f"{NO_LOGITS} {came}, expected logits [N, K], or an output with `logits`")


def return_logits(_network: nn.Module, _inputs: Any, output: Any) -> Tensor:
    """A forward hook by which a network returns logits alone."""
    return as_logits(output)
