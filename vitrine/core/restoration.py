"""State of modules and of the process, in pieces: each `capture_` returns a function that restores it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def own_tensors(modules: Iterable[nn.Module]) -> Iterable[Tensor]:
    """The parameters and buffers that these modules hold themselves, each once."""
    held = (t for m in modules for t in (*m._parameters.values(), *m._buffers.values()))
    return {id(tensor): tensor for tensor in held if tensor is not None}.values()


def capture_namespace(namespace: dict[str, Any]) -> Callable[[], None]:
    """A namespace, and the containers in it, in place: a hook's handle keeps pointing at its dict."""
    held = dict(namespace)
    copies = [(value, value.copy()) for value in held.values() if isinstance(value, (dict, set, list))]

    def restore() -> None:
        for original, copy in copies:
            original.clear()
            original.extend(copy) if isinstance(original, list) else original.update(copy)
        namespace.clear()
        namespace.update(held)

    return restore


def capture_tensor(tensor: Tensor) -> Callable[[], None]:
    """A tensor's storage, values, gradient, requires_grad and hooks; one of inference mode cannot change."""
    if tensor.is_inference():
        return lambda: None
    data, values, grad = tensor.data, tensor.detach().clone(), tensor.grad
    grad_values = None if grad is None else grad.detach().clone()
    requires_grad, leaf = tensor.requires_grad, tensor.is_leaf
    names = ("_backward_hooks", "_post_accumulate_grad_hooks")
    hooks = [(name, dict(getattr(tensor, name) or {})) for name in names]

    def restore() -> None:
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

    return restore


def capture_global_hooks() -> Callable[[], None]:
    """The hooks that torch calls on all modules."""
    everything = vars(nn.modules.module)
    names = [name for name in everything if name.startswith("_global_") and name.endswith("hooks")]
    restore_contents = capture_namespace({name: everything[name] for name in names})
    full_backward = nn.modules.module._global_is_full_backward_hook

    def restore() -> None:
        restore_contents()
        nn.modules.module._global_is_full_backward_hook = full_backward

    return restore


def capture_autocast(device: str) -> Callable[[], None]:
    """Whether autocast is on for a type of device, and its settings."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    cached = torch.is_autocast_cache_enabled()

    def restore() -> None:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(cached)

    return restore


_PRECISIONS = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,
    torch.backends.cudnn.rnn,
    torch.backends.mkldnn.matmul,
    torch.backends.mkldnn.conv,
    torch.backends.mkldnn.rnn,
)


def capture_switches() -> Callable[[], None]:
    """What the process as a whole computes with: cuDNN, determinism, precision, dtype, threads, anomalies."""
    cudnn = torch.backends.cudnn
    flags = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precisions = [backend.fp32_precision for backend in _PRECISIONS]
    matmul, tf32 = _matmul_precision(), _cudnn_tf32()
    dtype = torch.get_default_dtype()
    threads = torch.get_num_threads()
    anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def restore() -> None:
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if tf32 is not None:
            cudnn.allow_tf32 = tf32
        for backend, precision in zip(_PRECISIONS, precisions):
            backend.fp32_precision = precision
        torch.set_default_dtype(dtype)
        torch.set_anomaly_enabled(*anomaly)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    return restore


def fix_numerics() -> None:
    """Full float32 precision and deterministic algorithms of cuDNN."""
    torch.backends.cudnn.benchmark = False  # else the fastest of several algorithms, never mind the last bit
    torch.backends.cudnn.deterministic = True
    # torch has older switches, too, and refuses to read one that contradicts the newer: a network may read it
    if _matmul_precision() is not None:
        torch.set_float32_matmul_precision("highest")
    if _cudnn_tf32() is not None:
        torch.backends.cudnn.allow_tf32 = False
    for backend in _PRECISIONS:
        backend.fp32_precision = "ieee"


def _matmul_precision() -> str | None:
    """The older switch of matrix products; None where the caller has contradicted it by a newer."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _cudnn_tf32() -> bool | None:
    """The older switch of cuDNN, likewise."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None
