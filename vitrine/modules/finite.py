"""Ends training where the loss or the weights are NaN or infinite, naming the images of the batch."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from vitrine.core.settings import RunAborted

_CHECK_EVERY = 16  # steps, where a check makes the host wait for the device


class NonFinite(RunAborted, ArithmeticError):
    """The loss, or the weights, are NaN or infinite.

    Attributes:
        step: optimizer steps taken before it.
        indices: of the batch's images in the data set; empty where the batch has none.
        loss: its value; None where it is the weights that are not finite.
    """

    weights_unusable = True

    def __init__(self, what: str, step: int, indices: Sequence[int], loss: float | None = None):
        shown = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
        of = f" on the batch of images {shown}" if indices else ""
        super().__init__(f"{what} at step {step}{of}: lower the learning rate, or inspect these images")
        self.step, self.loss, self.indices = step, loss, list(indices)


class NonFiniteLoss(NonFinite):
    """The loss is NaN or infinite."""

    def __init__(self, step: int, loss: float, indices: Sequence[int]):
        super().__init__(f"the loss is {loss}", step, indices, loss)


class NonFiniteWeights(NonFinite):
    """A weight is NaN or infinite, so the checkpoint that was due is not written."""

    def __init__(self, step: int, names: Sequence[str], indices: Sequence[int]):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        super().__init__(f"{names[0]}{more} is no longer finite", step, indices)


class FiniteLossCheck:
    """Checks each loss at once where that costs nothing, which is in one process on a CPU; elsewhere all
    losses of 16 steps at a time. `immediate` overrules that."""

    def __init__(self, immediate: bool | None = None):
        self.immediate = immediate
        self._unchecked: list[tuple[int, Tensor, Tensor | None]] = []

    def add(self, step: int, loss: Tensor, indices: Tensor | None) -> None:
        """Check the loss (a scalar) of a batch of these images, now or later; all ranks call it alike.

        Raises:
            NonFiniteLoss: as `check_all`.
        """
        immediate = self.immediate
        if immediate is None:
            immediate = loss.device.type == "cpu" and world_size() == 1
        if immediate and math.isfinite(loss.item()):
            return
        self._unchecked.append((step, loss, indices))
        if immediate or len(self._unchecked) >= _CHECK_EVERY:
            self.check_all()

    def check_all(self) -> None:
        """Check all losses that have not been checked yet; all ranks call it alike.

        Raises:
            NonFiniteLoss: on every rank, for the first loss of any rank that is not finite.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        bad = ~torch.stack([loss for _, loss, _ in unchecked]).isfinite()
        anywhere = bad.any().to(torch.uint8)
        if world_size() > 1:
            torch.distributed.all_reduce(anywhere, torch.distributed.ReduceOp.MAX)
        if not bool(anywhere):
            return
        found = [
            (step, float(loss), [] if indices is None else indices.tolist())
            for (step, loss, indices), is_bad in zip(unchecked, bad.tolist())
            if is_bad
        ][:1]
        if world_size() > 1:
            gathered: list[Any] = [None] * world_size()
            torch.distributed.all_gather_object(gathered, found)
            found = sorted(itertools.chain(*gathered), key=lambda entry: entry[0])
        raise NonFiniteLoss(*found[0])


def nonfinite_names(module: nn.Module, state: Mapping[str, Any]) -> list[str]:
    """Names in a module's state_dict: parameters that have NaN or infinity, and buffers that have NaN (a mask
    may contain -inf)."""
    parameters = {name for name, _ in module.named_parameters()}
    floats = {n: t for n, t in state.items() if isinstance(t, Tensor) and t.is_floating_point()}
    bad = {n: (~t.isfinite() if n in parameters else t.isnan()).any() for n, t in floats.items()}
    return [name for name, is_bad in bad.items() if bool(is_bad)]


def world_size() -> int:
    """How many processes train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
