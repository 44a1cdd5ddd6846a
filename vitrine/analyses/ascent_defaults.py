"""How pictures are optimised unless settings say: networks with attention need a way of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitrine.analyses.attention import attention_modules
from vitrine.analyses.visualization import LONGEST, SHORTEST, step_length
from vitrine.core.network_scopes import in_eager_eval_mode

PLAIN = {"lr": SHORTEST, "parameterization": "fourier", "colour_shift": 0.0}
ATTENDING = {"lr": 2 * SHORTEST, "parameterization": "smooth", "colour_shift": 0.5}  # see docs/networks.md


@in_eager_eval_mode
def attends(network: nn.Module, images: Tensor) -> bool:
    """Whether a network computes attention."""
    return bool(attention_modules(network, images)[0])


def ascent_settings(given: Mapping[str, Any], steps: int, attends: bool) -> dict[str, Any]:
    """Arguments of `visualize`: those given, and defaults in place of None; fewer steps are longer ones, as
    `step_length` says."""
    defaults = ATTENDING if attends else PLAIN
    length = min(LONGEST, defaults["lr"] / SHORTEST * step_length(steps))
    defaults = defaults | {"lr": length}
    return {name: default if given[name] is None else given[name] for name, default in defaults.items()}
