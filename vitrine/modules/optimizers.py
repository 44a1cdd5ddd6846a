"""Optimizers by torch's and timm's names, and learning rate schedules as a function of the step."""

import functools
import importlib.util
import inspect
import itertools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vitrine.core.registry import UnknownName
from vitrine.core.settings import SettingError, setting
from vitrine.modules.depth import parameter_depths
from vitrine.modules.muon import MuonWithAdamW, split_inner_matrices

# schedules, each with the fraction of the run in which its rate rises
SCHEDULES = {"constant": 0.0, "cosine": 0.05, "piecewise": 0.0, "one_cycle": 0.3, "cyclic": 0.4}


@dataclass
class OptimizerSettings:
    """The optimizer and its learning rate schedule."""

    name: str = setting(
        "adamw",
        "in lower case: torch.optim's (sgd, adam, adamw, muon, ...) or timm's (lamb, lion, adan, ...); "
        "timm/NAME: timm's also where torch has one of the name",
    )
    lr: float = setting(0.005, "learning rate; the maximum of the schedule", above=0)
    weight_decay: float = setting(0.05, "weight decay", least=0)
    decay_all: bool = setting(False, "weight decay on biases and normalisation layers too")
    momentum: float = setting(0.9, "momentum, of optimizers that have it (sgd, rmsprop)", least=0)
    nesterov: bool = setting(True, "Nesterov's momentum (sgd with momentum)")
    options: dict[str, Any] = setting({}, "further arguments of the optimizer, such as {betas: [0.9, 0.99]}")
    schedule: str = setting("one_cycle", "learning rate schedule over the run", choices=tuple(SCHEDULES))
    warmup: float | None = setting(
        None,
        "fraction of the run with a rising rate; null: cosine 0.05, one_cycle 0.3, cyclic 0.4",
        least=0,
        most=1,
    )
    milestones: list[float] = setting([0.5, 0.75], "piecewise: fractions of the run after which it decays")
    gamma: float = setting(0.1, "piecewise: factor of each decay", above=0)
    layer_decay: float = setting(
        1.0,
        "factor of the learning rate from each block to the one before it (Bao 2021); 1: none",
        above=0,
        most=1,
    )
    ema: float = setting(0.0, "decay of the moving average of the weights, a step; 0: none", least=0, most=1)


def build_optimizer(
    settings: OptimizerSettings, network: nn.Module, steps: float, frozen: Collection[str] = ()
) -> tuple[Optimizer, LambdaLR]:
    """The optimizer of a network's trainable parameters, and its scheduler, stepped after each of its steps.

    Args:
        steps: optimizer steps in the whole run; infinite where unknown.
        frozen: names of parameters that are not trainable now but may be later: in the optimizer from the
            start, which leaves alone what has no gradient.

    Raises:
        UnknownName: no such optimizer.
        SettingError: an invalid value, or an option that the optimizer does not have.
    """
    make = _find_optimizer(settings.name)
    known = [name for name in inspect.signature(make).parameters if name not in ("params", "kwargs")]
    if settings.weight_decay and "weight_decay" not in known:
        problem = f"is {settings.weight_decay}, but {settings.name} has none"
        raise SettingError("optimizer.weight_decay", problem)
    options: dict[str, Any] = {
        "weight_decay": settings.weight_decay,
        "momentum": settings.momentum,
        "nesterov": settings.nesterov and settings.momentum > 0,
    }
    options = {"lr": settings.lr} | {name: value for name, value in options.items() if name in known}
    for key, value in settings.options.items():
        if key not in known:
            problem = f"{settings.name} has no such option; it has {', '.join(known)}"
            raise SettingError(f"optimizer.options.{key}", problem)
        options[key] = tuple(value) if isinstance(value, (list, tuple)) else value
    groups = _parameter_groups(network, settings, frozen)
    if make is MuonWithAdamW:
        groups = split_inner_matrices(groups, network)
    try:
        optimizer = make(groups, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError, ImportError) as error:
        raise SettingError("optimizer", f"{settings.name} does not take these settings: {error}") from error
    return optimizer, LambdaLR(optimizer, lr_factor(settings, steps))


def lr_factor(settings: OptimizerSettings, steps: float) -> Callable[[int], float]:
    """The learning rate at step 0, 1, ... as a fraction of its maximum.

    constant, cosine (to zero; Loshchilov & Hutter 2017) and piecewise rise linearly in the fraction `warmup`
    of the run; one_cycle (Smith 2018) rises from 1/25 and falls to 1/250,000 in half cosines, as torch's
    OneCycleLR does; cyclic (Wong 2020) is one triangle from zero to zero.

    Raises:
        SettingError: a schedule that needs a finite run in an infinite one, or invalid milestones.
    """
    kind = settings.schedule
    if kind not in SCHEDULES:
        raise UnknownName("schedule", kind, SCHEDULES)
    warmup = SCHEDULES[kind] if settings.warmup is None else settings.warmup
    milestones = list(settings.milestones)
    increasing = all(a < b for a, b in itertools.pairwise([0, *milestones, 1]))
    if kind == "piecewise" and not increasing:
        problem = f"is {milestones}, expected increasing fractions between 0 and 1"
        raise SettingError("optimizer.milestones", problem)
    if not math.isfinite(steps) or steps < 0:
        if kind != "constant" or warmup > 0:
            problem = f"{kind} needs a run with an end: give max_epochs or max_steps"
            raise SettingError("optimizer.schedule", problem)
        return lambda step: 1.0
    if kind == "one_cycle":
        return functools.partial(_one_cycle, steps=steps, rise=warmup)
    if kind == "cyclic":
        return functools.partial(_cyclic, steps=steps, peak=warmup * steps)
    rise = round(warmup * steps)
    after = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: _half_cosine(1.0, 0.0, (step - rise) / max(steps - rise, 1)),
        "piecewise": lambda step: settings.gamma ** sum(step >= m * steps for m in milestones),
    }[kind]
    return lambda step: (step + 1) / (rise + 1) if step < rise else after(step)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def _one_cycle(step: int, steps: float, rise: float) -> float:
    peak = rise * steps - 1
    if step <= peak:
        return _half_cosine(1 / 25, 1.0, step / peak if peak > 0 else 1.0)
    return _half_cosine(1.0, 1 / 25e4, (step - peak) / max(steps - 1 - peak, 1e-9))


def _cyclic(step: int, steps: float, peak: float) -> float:
    if step < peak:
        return (step + 1) / (peak + 1)  # a first step at rate zero would be wasted
    return max(steps - step, 0) / max(steps - peak, 1)


def _parameter_groups(
    network: nn.Module, settings: OptimizerSettings, frozen: Collection[str]
) -> list[dict[str, Any]]:
    """Trainable parameters; vectors (biases, normalisation) without weight decay unless `decay_all`.

    With `layer_decay`, a group or two for each depth, the first ones first.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad or name in frozen}
    if settings.layer_decay == 1:
        return _split_by_decay(list(named.values()), settings)
    depths = parameter_depths(network)
    deepest = max(depths.values(), default=0)
    if deepest == 0:
        problem = f"is {settings.layer_decay}, but {type(network).__name__} has no blocks one after another"
        raise SettingError("optimizer.layer_decay", f"{problem}, expected 1")
    groups = []
    for depth in range(deepest + 1):
        rate = settings.lr * settings.layer_decay ** (deepest - depth)
        parameters = [p for name, p in named.items() if depths[name] == depth]
        groups += [group | {"lr": rate} for group in _split_by_decay(parameters, settings)]
    return groups


def _split_by_decay(parameters: list[nn.Parameter], settings: OptimizerSettings) -> list[dict[str, Any]]:
    if settings.decay_all or not settings.weight_decay:
        groups = [{"params": parameters}]
    else:
        groups = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]]


@functools.cache
def _optimizer_classes() -> dict[str, type[Optimizer]]:
    """torch.optim's optimizers that need one gradient a step, of dense weights."""
    classes = {name.lower(): value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    refused = {"optimizer", "lbfgs", "sparseadam"}
    found = {k: v for k, v in classes.items() if issubclass(v, Optimizer) and k not in refused}
    return found | {"muon": MuonWithAdamW}


def _find_optimizer(name: str) -> Callable[..., Optimizer]:
    """An optimizer of torch, else of timm, which is imported for no other.

    Raises:
        UnknownName: there is none.
        SettingError: timm is not installed, or its optimizer needs what is not to be had here.
    """
    classes = _optimizer_classes()
    if name in classes:
        return classes[name]
    if importlib.util.find_spec("timm") is None:
        hint = 'timm\'s (lamb, lion, adan, ...) need it: pip install "vitrine[timm]"'
        raise SettingError("optimizer.name", f"{UnknownName('optimizer', name, classes)}; {hint}")
    from timm.optim import get_optimizer_class, get_optimizer_info, list_optimizers

    theirs, wanted = list_optimizers(), name.removeprefix("timm/")
    if wanted not in theirs:
        raise UnknownName("optimizer", name, [*classes, *(t for t in theirs if t not in classes)])
    if get_optimizer_info(wanted).second_order:
        raise SettingError("optimizer.name", f"{name} takes second derivatives, which are not computed here")
    try:
        return get_optimizer_class(wanted)
    except (ImportError, AssertionError) as error:
        raise SettingError("optimizer.name", f"{name} needs what is not here: {error}") from None
