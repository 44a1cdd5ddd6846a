"""Muon for a network's inner matrices and AdamW for the rest, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from vitrine.core.settings import SettingError
from vitrine.modules.surgery import head_layer


class MuonWithAdamW(Optimizer):
    """torch's Muon (Jordan 2024), which takes matrices alone, and AdamW for groups without `muon`.

    One learning rate and weight decay serve both, as Muon's updates are in AdamW's scale (Liu 2025). Momentum
    and what follows is Muon's, betas are AdamW's.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
    ):
        groups, common = list(params), {"lr": lr, "weight_decay": weight_decay}
        matrices, others = ([g for g in groups if g["muon"] == is_muon] for is_muon in (True, False))
        inner = {"nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        muon = Muon(matrices, **common, momentum=momentum, **inner)
        adamw = AdamW(others or [{"params": []}], **common, betas=betas)
        self._parts: dict[bool, Optimizer] = {True: muon, False: adamw}
        super().__init__([self._parts[g["muon"]].defaults | g for g in groups], common)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for is_muon, part in self._parts.items():
            part.param_groups = [g for g in self.param_groups if g["muon"] == is_muon]
            part.state = self.state
            part.step()
        return loss


def split_inner_matrices(groups: Sequence[dict[str, Any]], network: nn.Module) -> list[dict[str, Any]]:
    """Groups of parameters divided into those of inner matrices (`muon`: True) and others.

    Raises:
        SettingError: of optimizer.name, if the network has no matrix but its last layer's.
    """
    head = network.get_submodule(head_layer(network, None)).weight
    found = []
    for group in groups:
        matrices = [p for p in group["params"] if p.ndim == 2 and p is not head]
        others = [p for p in group["params"] if p.ndim != 2 or p is head]
        parts = ((matrices, True), (others, False))
        found += [group | {"params": params, "muon": is_muon} for params, is_muon in parts if params]
    if not any(group["muon"] for group in found):
        kind = type(network).__name__
        problem = f"is muon, which is for matrices, and {kind} has none but its last layer's"
        raise SettingError("optimizer.name", f"{problem}: timm/muon takes convolutions too")
    return found
