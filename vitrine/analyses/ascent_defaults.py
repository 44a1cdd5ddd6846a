"""How pictures are optimised unless settings say: networks with attention need a way of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vitrine.analyses.attention import attention_modules
from vitrine.analyses.visualization import USUAL_MEMORY
from vitrine.core.network_scopes import in_eager_eval_mode

PLAIN = {"parameterization": "fourier", "colour_shift": 0.0}  # with steps and memory by their number
ATTENDING = {"parameterization": "smooth", "colour_shift": 0.5, "lr": 0.1, "betas": USUAL_MEMORY}
MORE_STEPS = 2  # with attention: longer steps in place of more clutter the picture (docs/networks.md)


@in_eager_eval_mode
def attends(network: nn.Module, images: Tensor) -> bool:
    """Whether a network computes attention."""
    return bool(attention_modules(network, images)[0])


def ascent_settings(given: Mapping[str, Any], steps: int, attends: bool) -> tuple[int, dict[str, Any]]:
    """The number of steps, and arguments of `visualize`: those given, and defaults in place of None."""
    defaults = {"lr": None, **(ATTENDING if attends else PLAIN)}
    chosen = {name: default if given.get(name) is None else given[name] for name, default in defaults.items()}
    return steps * MORE_STEPS if attends else steps, chosen
