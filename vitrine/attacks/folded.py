"""A network's faster double: batch normalisation folded into the convolutions before it, for evaluation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.core.memory_format import arrange_kernels, takes_channels_last
from vitrine.core.module_copies import copy_module
from vitrine.core.network_output import as_logits

TOLERANCE = 1e-4  # of the largest logit: what rounding may move, and nothing else


def folded(network: nn.Module, images: Tensor) -> nn.Module | None:
    """A copy in eval mode with the network's logits up to rounding, in fewer and faster passes over the maps.

    A convolution whose output a batch normalisation takes computes both. Whether anything else took that
    output, or the network is one that a copy does not follow, the logits of `images` tell.

    Args:
        images: [N, C, H, W], to compare the logits on.

    Returns:
        The double; None where there is nothing to fold, or its logits are others.
    """
    try:
        double = copy_module(network)
    except Exception:  # what cannot be copied is attacked as it is
        return None
    double.eval().requires_grad_(False)
    with torch.no_grad():
        pairs = _consecutive(double, images[:1], nn.BatchNorm2d)
        if not pairs:
            return None
        names = {module: name for name, module in double.named_modules()}
        for convolution, normalisation in pairs:
            _fold(convolution, normalisation)
            parent, _, child = names[normalisation].rpartition(".")
            setattr(double.get_submodule(parent), child, nn.Identity())
        if not images.is_cuda and takes_channels_last(double, images[:1]):
            arrange_kernels(double)
        expected = as_logits(network(images))
        rectifiers = [relu for _, relu in _consecutive(double, images[:1], nn.ReLU) if not relu.inplace]
    for relu in rectifiers:  # nobody needs what a convolution gave before
        relu.inplace = True
    if _agrees(double, images, expected):
        return double
    for relu in rectifiers:  # or somebody does
        relu.inplace = False
    return double if _agrees(double, images, expected) else None


def _agrees(double: nn.Module, images: Tensor, expected: Tensor) -> bool:
    """Whether the logits are these up to rounding, and have a gradient by the pixels."""
    with torch.no_grad():
        found = as_logits(double(images))
    if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
        return False
    with torch.enable_grad():
        pixels = images[:1].detach().clone().requires_grad_()
        try:
            torch.autograd.grad(as_logits(double(pixels)).sum(), pixels)
        except RuntimeError:  # an output that was changed in place
            return False
    return True


def _consecutive(network: nn.Module, images: Tensor, kind: type[nn.Module]) -> list[tuple[nn.Conv2d, Any]]:
    """The convolutions whose output goes to a module of a kind, and that; of both those called once."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors are kept, so that no other has their id
    pairs: list[tuple[nn.Conv2d, Any]] = []
    calls: Counter[nn.Module] = Counter()

    def after(module: nn.Module, _inputs: object, output: Tensor) -> None:
        calls[module] += 1
        outputs[id(output)] = module, output

    def before(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        calls[module] += 1
        if (key := id((*args, *kwargs.values())[0])) in outputs:
            pairs.append((outputs[key][0], module))

    handles = []
    for module in network.modules():
        if module._forward_hooks or module._forward_pre_hooks or hasattr(module, "parametrizations"):
            continue
        if type(module) is nn.Conv2d:
            handles.append(module.register_forward_hook(after))
        elif type(module) is kind and getattr(module, "running_mean", True) is not None:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == 1]


def _fold(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    """Scale the filters as the normalisation would scale their output, and take over its shift."""
    weight, bias = convolution.weight, convolution.bias
    mean, variance = normalisation.running_mean.double(), normalisation.running_var.double()
    scale = (variance + normalisation.eps).rsqrt()
    shift = -mean if bias is None else bias.double() - mean
    if normalisation.weight is not None:
        scale = scale * normalisation.weight.double()
    shift = shift * scale
    if normalisation.bias is not None:
        shift = shift + normalisation.bias.double()
    scaled = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight)
    convolution.weight = nn.Parameter(scaled, requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight), requires_grad=False)
