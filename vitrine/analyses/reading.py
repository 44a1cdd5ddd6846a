"""Objectives read off a network's layers.

Many at once, one for each picture of a batch: terms of one kind on one layer cost one operation, however many
pictures ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.objectives import Objective, Term


class Reading:
    """How a batch of objectives, one a picture, is read off a network's layers."""

    def __init__(self, objectives: Sequence[Objective]):
        self.count = len(objectives)
        self.layers = list(dict.fromkeys(layer for o in objectives for layer in o.layers))
        self._kinds: dict[tuple[type[Term], str], list[tuple[int, float, Term]]] = {}
        for row, objective in enumerate(objectives):
            for weight, term in objective.terms:
                self._kinds.setdefault((type(term), term.layer), []).append((row, weight, term))

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        """Each objective's value ([B], float32) on its image of [B, C, H, W]; layers deeper than needed do
        not run."""
        return self.read(activations(network, images, self.layers))

    def read(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The same from the layers' maps [B, C, h, w]."""
        total = 0.0
        for (kind, layer), asked in self._kinds.items():
            rows, weights, terms = zip(*asked)
            seen = maps[layer].float()
            scores = kind.scores(terms, seen, rows) * seen.new_tensor(weights)
            total = total + seen.new_zeros(self.count).index_add(
                0, torch.tensor(rows, device=seen.device), scores
            )
        return total
