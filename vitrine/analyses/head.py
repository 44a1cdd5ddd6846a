"""The last linear layer of a network, and what it reads: found by observing one forward pass, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.analyses.base import Subject
from vitrine.core.network_scopes import eager_eval_mode, in_eager_eval_mode, unwrapped


class NoLinearHead(ValueError):
    """The logits of the network are no linear function of one vector an image; says why."""

    def __init__(self, reason: str):
        super().__init__(f"the network has no linear head: {reason}")


@dataclass(frozen=True)
class LastLinear:
    """The linear or 1 x 1 convolutional layer of a forward pass that gave the logits, or was called last."""

    name: str  # dotted
    module: nn.Module
    inputs: Tensor  # what it read: [N, D], [N, T, D], [N, D, h, w]
    logits: Tensor  # [N, K], of the network

    @property
    def weight(self) -> Tensor:
        return self.module.weight.detach().flatten(1)  # [K, D]

    @property
    def bias(self) -> Tensor | None:
        return None if self.module.bias is None else self.module.bias.detach()

    def gives(self, output: Tensor) -> bool:
        """Whether an output of the layer is the logits."""
        vectors = _vectors(output)
        if vectors is None or vectors.shape != self.logits.shape:
            return False
        return bool((vectors - self.logits).abs().max() <= self.tolerance * self.logits.abs().max())

    @property
    def tolerance(self) -> float:
        """By how much a logit may be off, as a share of the largest, to be called the same."""
        return 1e-4 if self.logits.dtype in (torch.float32, torch.float64) else 2e-2


@dataclass(frozen=True)
class LinearHead:
    """logits = `features` @ weight.T + bias, of the layer called `name`."""

    name: str  # dotted
    weight: Tensor  # [K, D]
    bias: Tensor | None  # [K]

    @property
    def augmented(self) -> Tensor:
        """Weight and bias as one matrix, float64 [K, D + 1], for features with a 1 appended; without a bias
        [K, D]."""
        parts = [self.weight] if self.bias is None else [self.weight, self.bias[:, None]]
        return torch.cat(parts, 1).double()


def last_linear(network: nn.Module, images: Tensor) -> LastLinear | None:
    """The linear layer whose output the logits of the images are, or where there is none the one that the
    forward pass calls last: an auxiliary head may be called later. None where there is no linear layer."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []  # name, module, inputs, output
    names = {module: name for name, module in network.named_modules() if _is_linear(module)}

    def record(module: nn.Module, args: Sequence[Tensor], kwargs: Mapping[str, Tensor], output: Tensor):
        if calls and _vectors(calls[-1][3]) is None:
            calls.pop()  # maps and tokens are large, and not the logits: only the last call's are kept
        calls.append((names[module], module, args[0] if args else kwargs["input"], output))

    handles = [module.register_forward_hook(record, with_kwargs=True) for module in names]
    try:
        with torch.no_grad():
            logits = network(images.clone())
    finally:
        for handle in handles:
            handle.remove()
    found = [LastLinear(*call, logits) for *call, _ in calls]
    of_logits = [last for last, (*_, output) in zip(found, calls) if last.gives(output)]
    return (of_logits or found or [None])[-1]


@in_eager_eval_mode
def linear_head(network: nn.Module, images: Tensor) -> LinearHead:
    """The linear layer that gives the logits, from one vector an image; checked on these images.

    Raises:
        NoLinearHead: there is none, the head is a convolution, reads tokens, or something follows it.
        ValueError: the logits are not finite.
    """
    last = last_linear(network, images)
    if last is None:
        raise NoLinearHead("it has no linear layer")
    kind = "convolution" if isinstance(last.module, nn.Conv2d) else "linear layer"
    if last.weight.shape[0] != last.logits.shape[1]:
        outputs, classes = last.weight.shape[0], last.logits.shape[1]
        raise NoLinearHead(f"its last {kind}, {last.name!r}, has {outputs} outputs for {classes} logits")
    vectors = _vectors(last.inputs)
    if vectors is None and kind == "convolution":
        raise NoLinearHead(
            f"its head, {last.name!r}, is a convolution over a map, not of one vector an image"
        )
    if vectors is None:
        shape = " x ".join(map(str, last.inputs.shape[1:]))
        raise NoLinearHead(f"its last linear layer, {last.name!r}, reads {shape} values, not one vector")
    bias = 0 if last.bias is None else last.bias
    difference = (vectors @ last.weight.T + bias - last.logits).abs().max()
    if not difference <= last.tolerance * last.logits.abs().max():  # NaN, too, is no agreement
        if not last.logits.isfinite().all():
            raise ValueError("the network's logits are not finite")
        raise NoLinearHead(
            f"its logits are not what its last linear layer, {last.name!r}, gives: something follows it "
            "(a softmax, a scale, the mean of two heads)"
        )
    return LinearHead(last.name, last.weight, last.bias)


def head_of(subject: Subject) -> LinearHead:
    """The `linear_head` of the subject's network, found once for all analyses; NoLinearHead as there."""

    def find() -> LinearHead | NoLinearHead:
        try:
            return linear_head(subject.network, subject.probes.images)
        except NoLinearHead as error:
            return error

    found = subject.cached("linear_head", find)
    if isinstance(found, NoLinearHead):
        raise found
    return found


def head_inputs(
    network: nn.Module, head: LinearHead, batches: Iterable[tuple[Tensor, Tensor]]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What the head reads [N, D], the logits [N, K] and the labels [N] of batches of images, one after
    another: a plain forward pass each.

    Args:
        batches: images, float [N, C, H, W] in [0, 1], and labels, int64 [N].
    """
    read: list[Tensor] = []
    module = unwrapped(network).get_submodule(head.name)
    for images, labels in batches:  # the scope is left while the caller uses what it is given
        with eager_eval_mode(network) as eager, torch.no_grad():
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs: read.append(args[0] if args else kwargs["input"]), with_kwargs=True
            )
            try:
                logits = eager(images)
            finally:
                handle.remove()
        vectors = _vectors(read[-1])
        read.clear()
        yield vectors, logits, labels


def _vectors(inputs: Tensor) -> Tensor | None:
    """[N, D] of [N, D] or [N, D, 1, 1]; None of anything else."""
    if inputs.ndim == 2:
        return inputs
    return inputs.flatten(1) if inputs.ndim == 4 and inputs.shape[2:].numel() == 1 else None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
