"""The network in anybody's module, and a copy of it that analyses can use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.core.module_copies import copy_module
from vitrine.core.network_output import as_logits
from vitrine.core.network_scopes import eager_eval_mode, full_isolation, unwrapped
from vitrine.modules.network_record import attach_record


def find_network(
    module: nn.Module, images: Tensor, network: str | Callable[[nn.Module], nn.Module] | None = None
) -> tuple[str, nn.Module]:
    """The network of a module and its dotted name in it ("": the module itself; None: a callable's).

    Args:
        module: of a LightningModule, or any.
        images: as the network takes them, float [N, C, H, W], where the module is.
        network: a dotted name in `module`, or a function of it; None: the module itself if it maps images to
            logits (or its child that gives the same), else the only child that does.

    Raises:
        ValueError: there is none, or several, or it gives no logits; says what was tried.
    """
    module = unwrapped(module)
    if callable(network):
        found = network(module)
        if not isinstance(found, nn.Module):
            raise ValueError(f"network: the function gave a {type(found).__name__}, expected a torch module")
        name = next((name for name, inner in module.named_modules() if inner is found), None)
        return _checked(name, found, images)
    if network is not None:
        try:
            found = module.get_submodule(network)
        except AttributeError:
            known = ", ".join(name for name, _ in module.named_children()) or "none"
            raise ValueError(
                f"network: {type(module).__name__} has no {network!r}; its modules: {known}"
            ) from None
        return _checked(network, found, images)
    children = dict(module.named_children())
    tried = {"the module itself": logits_problem(module, images)}
    if tried["the module itself"] is None:
        logits = network_logits(module, images)
        same = [name for name, child in children.items() if _gives(child, images, logits)]
        return (same[0], children[same[0]]) if same else ("", module)
    problems = {name: logits_problem(child, images) for name, child in children.items()}
    fitting = [name for name, problem in problems.items() if problem is None]
    if len(fitting) == 1:
        return fitting[0], children[fitting[0]]
    if fitting:
        raise ValueError(
            f"network: {', '.join(fitting)} all map images to logits: say which, network={fitting[0]!r}"
        )
    tried |= {f"its {name!r}": problem for name, problem in problems.items()}
    lines = "; ".join(f"{what}: {problem}" for what, problem in tried.items())
    raise ValueError(
        f"network: nothing in {type(module).__name__} maps images to logits ({lines}): give network=..."
    )


def _checked(name: str | None, network: nn.Module, images: Tensor) -> tuple[str | None, nn.Module]:
    network = unwrapped(network)
    if (problem := logits_problem(network, images)) is not None:
        raise ValueError(f"network: {type(network).__name__} {problem}")
    return name, network


def logits_problem(network: nn.Module, images: Tensor) -> str | None:
    """Why a network does not map these images to logits, in a few words; None: it does."""
    try:
        output = network_logits(network, images)
    except NotImplementedError:
        return "has no forward"
    except Exception as error:  # somebody's code
        lines = str(error).strip().splitlines()
        return (
            f"fails on images {tuple(images.shape)}: {type(error).__name__}{f': {lines[0]}' if lines else ''}"
        )
    if output.ndim != 2 or len(output) != len(images) or output.shape[1] < 2:
        return f"gives {tuple(output.shape)} for images {tuple(images.shape)}, expected logits [N, classes]"
    if not output.isfinite().all():
        return "gives logits that are not finite"
    ones = torch.ones(len(output)).to(output)
    if (
        output.min() >= 0
        and torch.allclose(output.sum(1), ones, atol=1e-3)
        and not (output == 0).all(0).any()
    ):
        return "gives probabilities, expected logits (leave the softmax to the loss)"
    return None


def network_logits(network: nn.Module, images: Tensor) -> Tensor:
    """The logits of a network, which is left as it was. Raises what the network raises."""
    with full_isolation(network), eager_eval_mode(network) as eager, torch.no_grad():
        return as_logits(eager(images.clone()))


def _gives(network: nn.Module, images: Tensor, logits: Tensor) -> bool:
    return logits_problem(network, images) is None and torch.equal(network_logits(network, images), logits)


def examinable_copy(
    network: nn.Module,
    statistics: tuple[Sequence[float], Sequence[float]] | None,
    state: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A copy in float32 and eval mode that takes images in [0, 1] and is independent of the original.

    Args:
        statistics: mean and std of the normalisation that the network's input has had; None: none.
        state: parameters and buffers in place of the network's own; those it lacks stay.
    """
    with torch.inference_mode(False), torch.no_grad():
        # a LightningModule's Trainer holds loggers, data and other things that no copy is to have
        foreign = [value for key, value in vars(network).items() if key in ("_trainer", "_fabric")]
        copied = copy_module(unwrapped(network), foreign)
        if state:
            copied.load_state_dict({**copied.state_dict(), **state})
        copied = copied.float().eval()
    if statistics is not None:
        attach_record(copied, mean=statistics[0], std=statistics[1])
    return copied


def checked_copy(
    network: nn.Module, statistics: tuple[Sequence[float], Sequence[float]] | None, images: Tensor
) -> nn.Module:
    """`examinable_copy` of a network that gives logits for these images, float [N, C, H, W] as it takes them.

    Raises:
        ValueError: the copy gives none: the network asks for another precision than float32 in its forward.
    """
    copied = examinable_copy(network, statistics)
    numbers = [*network.parameters(), *network.buffers()]
    if all(each.dtype == torch.float32 for each in numbers if each.is_floating_point()):
        return copied
    if (problem := logits_problem(copied, images.float())) is not None:
        raise ValueError(
            f"network: {type(network).__name__} in float32, in which it is examined, {problem}; "
            "expected one that computes in the precision of its parameters"
        )
    return copied
