"""Scopes that use a network and leave it as it was, from the cheapest to the most thorough:

    eval_mode        modes
    eager_eval_mode  modes; and eager execution with gradients and logits, whatever the caller is in and
                     whatever the network returns
    frozen_weights   modes, `requires_grad`, running statistics and random numbers
    full_isolation   everything that code run inside could change

`in_eager_eval_mode` decorates the functions that people call with a network of their own.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from vitrine.core import random_state, restoration
from vitrine.core.network_output import return_logits

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Within the scope the network is in eval mode; every submodule's own mode returns afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in modes:  # not network.eval(): a module's own may do more, and nothing would undo that
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def eager_eval_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Within the scope the network evaluates eagerly and returns logits, and gradients can be taken.

    That holds whatever the caller is in (training mode, `no_grad`, `inference_mode`, autocast,
    `torch.compile`), for weights made in inference mode, and for a network that returns a dict or an object
    with `logits`. Batch normalisation uses its running statistics: an image's map does not depend on its
    batch.

    Args:
        network: yielded as it is, or taken out of its wrappers (`unwrapped`).

    Raises:
        ValueError: it is TorchScript; or from a call of the network, where it returns no logits.
    """
    network = unwrapped(network)
    with ExitStack() as scope:
        scope.enter_context(torch.inference_mode(False))
        scope.enter_context(torch.enable_grad())
        for device in _device_types():
            scope.enter_context(torch.autocast(device, enabled=False))
        _force_eager(scope)
        scope.enter_context(_differentiable_weights(network))
        scope.callback(network.register_forward_hook(return_logits).remove)
        if any(module.training for module in network.modules()):  # else spare two walks through it
            scope.enter_context(eval_mode(network))
        yield network


def in_eager_eval_mode(
    function: Callable[Concatenate[nn.Module, _Arguments], _Result],
) -> Callable[Concatenate[nn.Module, _Arguments], _Result]:
    """Decorate a function of (network, ...) to run in `eager_eval_mode`, tensors of inference mode copied."""

    @functools.wraps(function)
    def run(network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with eager_eval_mode(network) as network:
            args = tuple(map(outside_inference_mode, args))
            kwargs = {name: outside_inference_mode(value) for name, value in kwargs.items()}
            return function(network, *args, **kwargs)

    return run


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, out of the wrappers of `torch.compile` and of data parallelism, whose names and
    calls are others.

    Raises:
        ValueError: it is TorchScript.
    """
    while True:
        if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        elif hasattr(network, "_orig_mod"):
            network = network._orig_mod
        elif isinstance(network, torch.jit.ScriptModule):
            problem = "is TorchScript, in which no layer can be observed"
            raise ValueError(f"network: {problem}; expected the module that it was made from")
        else:
            return network


def outside_inference_mode(value: Any) -> Any:
    """A tensor that autograd may keep: a copy of one made in inference mode; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


@contextmanager
def frozen_weights(
    network: nn.Module, device: torch.device, mode: str = "eval", seed: int = 0
) -> Iterator[None]:
    """Within the scope gradients reach images but no parameter.

    Args:
        device: where the network is.
        mode: "eval"; or "train", where layers that keep running statistics use the batch's own and leave the
            running ones alone, but for those in eval mode of a network in training mode: they are frozen. All
            other layers evaluate in either: dropout is no defence.
        seed: of the random numbers that the network itself may draw.
    """
    with _differentiable_weights(network):
        normalising = (m for m in network.modules() if getattr(m, "track_running_stats", False))
        frozen = network.training and mode == "train"
        by_batch = [m for m in normalising if m.training or not frozen] if mode == "train" else []
        trainable = [p for p in network.parameters() if p.requires_grad]
        generators = [torch.default_generator]
        if device.type == "cuda":
            generators.append(torch.cuda.default_generators[device.index or 0])
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:
                generator.manual_seed(seed)
            for parameter in trainable:
                parameter.requires_grad_(False)  # no weight's gradient is computed, nor kept ready for
            with eval_mode(network), torch.inference_mode(False), torch.enable_grad():
                for module in by_batch:
                    module.training, module.track_running_stats = True, False
                yield
        finally:
            for module in by_batch:
                module.track_running_stats = True
            for parameter in trainable:
                parameter.requires_grad_(True)
            for generator, state in zip(generators, states):
                generator.set_state(state)


@contextmanager
def full_isolation(*modules: nn.Module) -> Iterator[None]:
    """Code inside runs under fixed conditions, and leaves no trace when it ends, raises or is interrupted.

    Inside, whatever the caller is in: autograd records, autocast is off, float32 is float32 (no TF32), cuDNN
    is deterministic, compiled modules run eagerly, and the modules given return logits (`network_output`). So
    the same weights give the same pictures in training and out of it.

    Afterwards, as before:
    - of each module and every submodule: its mode, its attributes (a replaced `forward` too), its submodules,
      parameters and buffers (the objects, their storage, their values), `.grad`, `requires_grad`, and hooks;
    - hooks on all modules; the random number generators of python, numpy and torch, on the CPU and every GPU;
    - grad mode, inference mode, autocast, the default dtype, the number of threads, the switches of cuDNN and
      of float32 precision.

    Values are kept as a copy on their own device: the scope needs the modules' memory once more.
    """
    with ExitStack() as scope:
        # in this order: what is restored last is what the others need to restore theirs
        scope.enter_context(torch.inference_mode(False))
        scope.enter_context(torch.enable_grad())
        scope.callback(restoration.capture_switches())
        scope.callback(random_state.restore, random_state.capture())
        scope.callback(restoration.capture_global_hooks())
        for device in _device_types():
            scope.callback(restoration.capture_autocast(device))
            scope.enter_context(torch.autocast(device, enabled=False))
        _force_eager(scope)
        unique = {id(module): module for root in modules for module in root.modules()}
        for tensor in restoration.own_tensors(unique.values()):
            scope.callback(restoration.capture_tensor(tensor))
        for module in unique.values():  # restored first: then each tensor is back in its place
            scope.callback(restoration.capture_namespace(vars(module)))
        restoration.fix_numerics()
        for module in modules:
            module.register_forward_hook(return_logits)  # removed as all hooks are
        yield


@contextmanager
def _differentiable_weights(network: nn.Module) -> Iterator[None]:
    """Within the scope copies take the place of weights and buffers made in inference mode, which autograd
    refuses to keep for a backward pass."""
    replaced = [
        (module, name, tensor)
        for module in network.modules()
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and tensor.is_inference()
    ]
    with torch.inference_mode(False):
        copies = {
            id(tensor): nn.Parameter(tensor.clone(), requires_grad=False)
            if isinstance(tensor, nn.Parameter)
            else tensor.clone()
            for _, _, tensor in replaced
        }
    try:
        for module, name, tensor in replaced:
            setattr(module, name, copies[id(tensor)])
        yield
    finally:
        for module, name, tensor in replaced:
            setattr(module, name, tensor)


def _device_types() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _force_eager(scope: ExitStack) -> None:
    if "torch._dynamo" in sys.modules:  # else nothing has been compiled, and importing it takes seconds
        scope.enter_context(torch.compiler.set_stance("force_eager"))
