"""Objectives of feature visualization, declared without a network: weighted sums of terms, which are added,
subtracted and scaled like numbers.

    channel("layer3", 17) - 0.5 * neuron("layer2", 4)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.analyses.activations import LOGITS, activations


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms, as pairs (weight, term): what `visualize` maximises, one for each picture."""

    terms: tuple[tuple[float, Term], ...]

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.terms + other.terms) if isinstance(other, Objective) else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __mul__(self, factor: float) -> Objective:
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return Objective(tuple((weight * factor, term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Objective:
        return self * (1 / divisor) if isinstance(divisor, (int, float)) else NotImplemented

    def __neg__(self) -> Objective:
        return self * -1

    @property
    def layers(self) -> list[str]:
        """The layers it is read from; `LOGITS` for the network's output."""
        return list(dict.fromkeys(term.layer for _, term in self.terms))

    @property
    def name(self) -> str:
        """The terms and their signs as text, the same in every process: random numbers are seeded by it."""
        return " ".join(f"{'-' if weight < 0 else '+'}{term.name}" for weight, term in self.terms)


@dataclass(frozen=True)
class Term:
    """A number computed from a layer's maps; subclasses compute it for many images at once."""

    layer: str

    couples: ClassVar[bool] = False  # whether an image's score depends on the other images of its group

    @property
    def name(self) -> str:
        return repr(self)

    @classmethod
    def scores(cls, terms: Sequence[Term], maps: Tensor, rows: Sequence[int]) -> Tensor:
        """The score of each term, [n], on its row of the maps [B, C, h, w]."""
        raise NotImplementedError(f"{cls.__name__} does not define scores")


@dataclass(frozen=True)
class Channel(Term):
    unit: int

    @classmethod
    def scores(cls, terms: Sequence[Channel], maps: Tensor, rows: Sequence[int]) -> Tensor:
        return maps[rows, _units(terms, maps)].mean((1, 2))


@dataclass(frozen=True)
class Logit(Channel):
    @classmethod
    def scores(cls, terms: Sequence[Logit], maps: Tensor, rows: Sequence[int]) -> Tensor:
        for term in terms:
            if not 0 <= term.unit < maps.shape[1]:
                raise ValueError(f"label is {term.unit}, and the network has {maps.shape[1]} classes")
        return super().scores(terms, maps, rows)


@dataclass(frozen=True)
class Neuron(Term):
    unit: int
    position: tuple[int, int] | None = None

    @classmethod
    def scores(cls, terms: Sequence[Neuron], maps: Tensor, rows: Sequence[int]) -> Tensor:
        row, column = zip(*(_position(term, maps) for term in terms))
        return maps[rows, _units(terms, maps), list(row), list(column)]


@dataclass(frozen=True)
class Direction(Term):
    vector: tuple[float, ...]
    power: float = 1.0
    position: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        digest = hashlib.sha256(repr(self.vector).encode()).hexdigest()[:16]
        return f"Direction({self.layer!r}, {digest}, {self.power}, {self.position})"

    @classmethod
    def scores(cls, terms: Sequence[Direction], maps: Tensor, rows: Sequence[int]) -> Tensor:
        for term in terms:
            if len(term.vector) != maps.shape[1]:
                raise ValueError(
                    f"vector has {len(term.vector)} entries, layer {term.layer!r} {maps.shape[1]} channels"
                )
        maps = maps[list(rows)]
        vectors = maps.new_tensor([term.vector for term in terms])[:, :, None, None]
        powers = maps.new_tensor([term.power for term in terms])[:, None, None]
        dot = (maps * vectors).sum(1)
        cosine = dot / (maps.norm(dim=1) * vectors.norm(dim=1)).clamp_min(1e-12)
        values = dot * cosine.clamp_min(0.1) ** powers
        return torch.stack(
            [v.mean() if t.position is None else v[_position(t, maps)] for v, t in zip(values, terms)]
        )


@dataclass(frozen=True)
class DeepDream(Term):
    @classmethod
    def scores(cls, terms: Sequence[DeepDream], maps: Tensor, rows: Sequence[int]) -> Tensor:
        return maps[list(rows)].square().mean((1, 2, 3))


@dataclass(frozen=True)
class Diversity(Term):
    group: str = ""

    couples: ClassVar[bool] = True

    @classmethod
    def scores(cls, terms: Sequence[Diversity], maps: Tensor, rows: Sequence[int]) -> Tensor:
        flat = maps[list(rows)].flatten(2)
        styles = F.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
        groups = [term.group for term in terms]
        same_group = torch.tensor([[a == b for b in groups] for a in groups], device=maps.device)
        same_group.fill_diagonal_(False)
        return -((styles @ styles.T) * same_group).sum(1) / same_group.sum(1).clamp_min(1)


class ObjectiveBatch:
    """Objectives evaluated at once, one an image: terms of one kind on one layer cost one operation."""

    def __init__(self, objectives: Sequence[Objective]):
        self.count = len(objectives)
        self.layers = list(dict.fromkeys(layer for o in objectives for layer in o.layers))
        names = ["its logits" if layer == LOGITS else f"layer {layer!r}" for layer in self.layers]
        self.read = " and ".join(names)  # what the objectives are of, in words
        self._terms: dict[tuple[type[Term], str], list[tuple[int, float, Term]]] = {}
        for row, objective in enumerate(objectives):
            for weight, term in objective.terms:
                self._terms.setdefault((type(term), term.layer), []).append((row, weight, term))

    def scores(self, network: nn.Module, images: Tensor) -> Tensor:
        """Each objective's value ([B], float32) on its image of [B, C, H, W]; no deeper layer runs."""
        return self.scores_from_maps(activations(network, images, self.layers))

    def scores_from_maps(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The same from the layers' maps [B, C, h, w]."""
        total = 0.0
        for (kind, layer), group in self._terms.items():
            rows, weights, terms = zip(*group)
            layer_maps = maps[layer].float()
            scores = kind.scores(terms, layer_maps, rows) * layer_maps.new_tensor(weights)
            places = torch.tensor(rows, device=layer_maps.device)
            total = total + layer_maps.new_zeros(self.count).index_add(0, places, scores)
        return total


def channel(layer: str, unit: int) -> Objective:
    """The mean over space of a channel; on a layer without spatial extent, the unit itself.

    It cannot fall below 0 on a layer that ends in a ReLU: for a negative, name the layer before the ReLU.
    """
    return Objective(((1.0, Channel(layer, unit)),))


def neuron(layer: str, unit: int, position: tuple[int, int] | None = None) -> Objective:
    """A channel at one position (row, column) of the layer's map: the centre unless given."""
    return Objective(((1.0, Neuron(layer, unit, None if position is None else tuple(position))),))


def direction(
    layer: str, vector: Tensor | Sequence[float], power: float = 1.0, position: tuple[int, int] | None = None
) -> Objective:
    """dot(a, vector) * max(0.1, cos(a, vector))^power, the mean over space or at one position.

    Args:
        layer: dotted module name.
        vector: as many entries as the layer has channels.
        power: 0 leaves the dot product alone, more asks for the direction rather than for size.
        position: (row, column) of the layer's map; None for the mean over space.
    """
    entries = tuple(float(v) for v in torch.as_tensor(vector).flatten())
    position = None if position is None else tuple(position)
    return Objective(((1.0, Direction(layer, entries, power, position)),))


def logit(label: int) -> Objective:
    """The logit of a class."""
    return Objective(((1.0, Logit(LOGITS, label)),))


def deepdream(layer: str) -> Objective:
    """The mean of the squared activations: whatever the layer sees already, more of it (Mordvintsev 2015)."""
    return Objective(((1.0, DeepDream(layer)),))


def diversity(layer: str, group: str = "") -> Objective:
    """Minus the mean cosine between the picture's Gram matrix and those of its group (Olah 2017).

    Pictures of one call whose objectives carry the term with the same layer and group push each other apart:
    `[channel("layer3", 17) + diversity("layer3", "17")] * 4` asks for four different pictures of one unit.
    """
    return Objective(((1.0, Diversity(layer, str(group))),))


def diversity_groups(objectives: Sequence[Objective]) -> list[list[int]]:
    """The objectives' numbers in sets that must be optimised in one batch: those that share a diversity term,
    directly or through others; single ones where there is none."""
    groups: list[tuple[set[Term], list[int]]] = []
    for i, objective in enumerate(objectives):
        keys = {term for _, term in objective.terms if term.couples}
        shared = [g for g in groups if g[0] & keys]
        merged = (keys.union(*(g[0] for g in shared)), sorted([i, *(j for g in shared for j in g[1])]))
        groups = [g for g in groups if not g[0] & keys] + [merged]
    return [members for _, members in sorted(groups, key=lambda g: g[1][0])]


def _units(terms: Sequence[Channel | Neuron], maps: Tensor) -> list[int]:
    for term in terms:
        if not 0 <= term.unit < maps.shape[1]:
            raise ValueError(
                f"unit is {term.unit}, and layer {term.layer!r} has {maps.shape[1]} channels, from 0"
            )
    return [term.unit for term in terms]


def _position(term: Neuron | Direction, maps: Tensor) -> tuple[int, int]:
    height, width = maps.shape[-2:]
    if term.position is None:
        return height // 2, width // 2
    row, column = term.position
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"position is {term.position}, and the map of layer {term.layer!r} is {height} x {width}"
        )
    return row, column
