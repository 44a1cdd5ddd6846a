"""Look, don't touch: whatever runs inside the scope, modules and process are afterwards as they were."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.core import random_state


@contextmanager
def isolated(*modules: nn.Module) -> Iterator[None]:
    """What runs inside starts from fixed ground, and leaves no trace when it ends, raises or is interrupted.

    Inside, whatever the caller is in: autograd records, autocast is off, float32 is float32 (no TF32), cuDNN
    is deterministic, and compiled modules run eagerly. So the same weights give the same pictures in training
    and out of it.

    Afterwards, as before:
    - of each module and every submodule: its mode, its attributes (a replaced `forward` too), its submodules,
      parameters and buffers (the objects, their storage, their values), `.grad`, `requires_grad`, and hooks;
    - hooks on all modules;
    - the random number generators of python, numpy and torch, on the CPU and every GPU;
    - grad mode, inference mode, autocast, the default dtype, the number of threads, the switches of cuDNN and
      of float32 precision.

    Values are kept as a copy on their own device: the scope needs the modules' memory once more.
    """
    with ExitStack() as scope:
        # in this order: what is undone last is what the others need to undo themselves
        scope.enter_context(torch.inference_mode(False))
        scope.enter_context(torch.enable_grad())
        scope.callback(_switches())
        scope.callback(random_state.restore, random_state.capture())
        scope.callback(_global_hooks())
        for device in _device_types():
            scope.callback(_autocast(device))
            scope.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules:  # else nothing has been compiled, and importing it takes seconds
            scope.enter_context(torch.compiler.set_stance("force_eager"))
        unique = {id(module): module for root in modules for module in root.modules()}
        tensors = {id(t): t for module in unique.values() for t in _own_tensors(module)}
        for tensor in tensors.values():
            scope.callback(_tensor(tensor))
        for module in unique.values():  # undone first: then each tensor is back in its place
            scope.callback(_contents(vars(module)))
        _fix_numerics()
        yield


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    for held in (*module._parameters.values(), *module._buffers.values()):
        if held is not None:
            yield held


def _contents(namespace: dict[str, Any]) -> Callable[[], None]:
    """A namespace and the containers in it, in place: a hook's handle keeps pointing at its dict."""
    held = dict(namespace)
    copies = [(value, value.copy()) for value in held.values() if isinstance(value, (dict, set, list))]

    def undo() -> None:
        for original, copy in copies:
            original.clear()
            original.extend(copy) if isinstance(original, list) else original.update(copy)
        namespace.clear()
        namespace.update(held)

    return undo


def _tensor(tensor: Tensor) -> Callable[[], None]:
    """A tensor's storage, values, gradient, requires_grad and hooks."""
    data, values, grad = tensor.data, tensor.detach().clone(), tensor.grad
    grad_values = None if grad is None else grad.detach().clone()
    requires_grad, leaf = tensor.requires_grad, tensor.is_leaf
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    hooks = [(name, dict(getattr(tensor, name) or {})) for name in names]

    def undo() -> None:
        tensor.data = data
        data.copy_(values)
        if leaf:
            tensor.requires_grad_(requires_grad)
        if grad is not None:
            grad.data.copy_(grad_values)
        tensor.grad = grad
        for name, before in hooks:
            now = getattr(tensor, name)
            if now:
                now.clear()
                now.update(before)

    return undo


def _global_hooks() -> Callable[[], None]:
    everything = vars(nn.modules.module)
    names = [name for name in everything if name.startswith("_global_") and name.endswith("hooks")]
    undo_contents = _contents({name: everything[name] for name in names})
    full_backward = nn.modules.module._global_is_full_backward_hook

    def undo() -> None:
        undo_contents()
        nn.modules.module._global_is_full_backward_hook = full_backward

    return undo


def _device_types() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _autocast(device: str) -> Callable[[], None]:
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    cached = torch.is_autocast_cache_enabled()

    def undo() -> None:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(cached)

    return undo


_PRECISIONS = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul,
    torch.backends.mkldnn.conv,
    torch.backends.mkldnn.rnn,
)


def _switches() -> Callable[[], None]:
    cudnn = torch.backends.cudnn
    flags = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    algorithms = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    precisions = [backend.fp32_precision for backend in _PRECISIONS]
    matmul, dtype, threads = (
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )
    anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def undo() -> None:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.set_float32_matmul_precision(matmul)
        for backend, precision in zip(_PRECISIONS, precisions):
            backend.fp32_precision = precision
        torch.set_default_dtype(dtype)
        torch.set_anomaly_enabled(*anomaly)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    return undo


def _fix_numerics() -> None:
    torch.backends.cudnn.benchmark = (
        False  # else the fastest of several algorithms is taken, never mind the last bit
    )
    torch.backends.cudnn.deterministic = True
    for backend in _PRECISIONS:
        backend.fp32_precision = "ieee"
