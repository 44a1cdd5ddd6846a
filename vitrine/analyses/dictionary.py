"""Directions of a layer's channels, and how much of each there is at a place: what a concept is here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SWEEPS = 50  # over the concepts, until the coefficients of given directions stand


@dataclass(frozen=True)
class Nonnegative:
    """Parts that add up: x is about codes @ directions, nothing below zero."""

    directions: Tensor  # [K, C], rows of unit length, or 0

    def encode(self, values: Tensor) -> Tensor:
        """The coefficients [P, K] >= 0 with which values [P, C] are best rebuilt (least squares)."""
        gram, products = self.directions @ self.directions.T, self.directions @ values.T
        codes = torch.zeros_like(products)
        for _ in range(SWEEPS):
            update_rows(codes, gram, products)
        return codes.T

    def decode(self, codes: Tensor) -> Tensor:
        """Values [P, C] of coefficients [P, K]."""
        return codes @ self.directions


@dataclass(frozen=True)
class TopK:
    """A sparse autoencoder's: x is about offset + codes @ directions, at most `active` of the codes not 0."""

    directions: Tensor  # [K, C], rows of unit length
    encoder: Tensor  # [K, C]
    offset: Tensor  # [C]
    active: int

    def encode(self, values: Tensor) -> Tensor:
        """The coefficients [P, K] >= 0 of values [P, C]."""
        return keep_largest((values - self.offset) @ self.encoder.T, self.active)

    def decode(self, codes: Tensor) -> Tensor:
        """Values [P, C] of coefficients [P, K]."""
        return codes @ self.directions + self.offset


Dictionary = Nonnegative | TopK


def update_rows(rows: Tensor, gram: Tensor, products: Tensor) -> None:
    """Minimise |x - rows.T @ d|^2 over each of the non-negative rows [K, P] in turn, in place, the others
    held (hierarchical alternating least squares; Cichocki & Phan 2009).

    Args:
        gram: d @ d.T, [K, K].
        products: d @ x.T, [K, P].
    """
    for k, size in enumerate(gram.diagonal().tolist()):
        if size > 0:
            rows[k] = (rows[k] + (products[k] - gram[k] @ rows) / size).clamp_min_(0)


def keep_largest(values: Tensor, count: int) -> Tensor:
    """Values [P, K] with all but each row's `count` largest, and all below 0, set to 0."""
    least = values.topk(count, dim=1).values[:, -1:]
    return values * ((values >= least) & (values > 0))
