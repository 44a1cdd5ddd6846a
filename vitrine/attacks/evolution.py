"""Search without gradients: a normal distribution that learns where good candidates lie and how they vary
(CMA-ES; Hansen, 2016, The CMA Evolution Strategy: A Tutorial)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class EvolutionStrategy:
    """A distribution over candidates, made narrower and turned by how good they turn out.

    strategy = EvolutionStrategy(torch.zeros(20), 0.3, seed=0)
    for _ in range(generations):
        candidates = strategy.sample()
        strategy.update(candidates, losses_of(candidates))

    Attributes:
        mean: float64 [D], the middle of the distribution.
        sigma: its width.
    """

    def __init__(self, mean: Tensor, sigma: float, seed: int, population: int | None = None) -> None:
        """Args:
        mean: [D], where to begin.
        sigma: standard deviation of the first candidates.
        population: candidates a generation; 4 + 3 ln D unless given.
        """
        size = len(mean)
        self.mean, self.sigma = mean.double().clone(), sigma
        self.population = population or 4 + int(3 * math.log(size))
        ranks = torch.arange(1, self.population // 2 + 1, dtype=torch.float64)
        weights = math.log((self.population + 1) / 2) - ranks.log()
        self._weights = weights / weights.sum()
        self._effective = mass = 1 / self._weights.square().sum().item()
        self._path_rate = (4 + mass / size) / (size + 4 + 2 * mass / size)
        self._sigma_rate = (mass + 2) / (size + mass + 5)
        self._damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (size + 1)) - 1) + self._sigma_rate
        self._one_rate = 2 / ((size + 1.3) ** 2 + mass)
        others = 2 * (mass - 2 + 1 / mass) / ((size + 2) ** 2 + mass)
        self._mass_rate = min(1 - self._one_rate, others)
        self._expected = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2))  # of a normal's length
        self._covariance = torch.eye(size, dtype=torch.float64)
        self._path = torch.zeros(size, dtype=torch.float64)
        self._sigma_path = torch.zeros(size, dtype=torch.float64)
        self._generator = torch.Generator().manual_seed(seed)
        self._generations = 0

    def sample(self) -> Tensor:
        """Candidates of the next generation, float64 [population, D]."""
        values, axes = torch.linalg.eigh(self._covariance)
        self._axes, self._lengths = axes, values.clamp(min=1e-20).sqrt()
        normal = torch.randn(self.population, len(self.mean), generator=self._generator, dtype=torch.float64)
        return self.mean + self.sigma * (normal * self._lengths) @ self._axes.T

    def update(self, candidates: Tensor, losses: Tensor) -> None:
        """Move the distribution towards the better half of the candidates that `sample` gave.

        Args:
            candidates: [population, D].
            losses: [population]; less is better.
        """
        self._generations += 1
        best = candidates[losses.argsort()[: len(self._weights)]]
        steps = (best - self.mean) / self.sigma
        step = self._weights @ steps
        self.mean = self.mean + self.sigma * step
        whitened = self._axes @ ((self._axes.T @ step) / self._lengths)
        keep = 1 - self._sigma_rate
        kick = math.sqrt(self._sigma_rate * (2 - self._sigma_rate) * self._effective)
        self._sigma_path = keep * self._sigma_path + kick * whitened
        length = self._sigma_path.norm().item()
        started = math.sqrt(1 - keep ** (2 * self._generations))
        moving = length / started < (1.4 + 2 / (len(self.mean) + 1)) * self._expected
        kick = math.sqrt(self._path_rate * (2 - self._path_rate) * self._effective)
        self._path = (1 - self._path_rate) * self._path + moving * kick * step
        missing = 0 if moving else self._one_rate * self._path_rate * (2 - self._path_rate)
        kept = 1 - self._one_rate - self._mass_rate + missing
        self._covariance = (
            kept * self._covariance
            + self._one_rate * torch.outer(self._path, self._path)
            + self._mass_rate * (steps.T * self._weights) @ steps
        )
        self.sigma *= math.exp(self._sigma_rate / self._damping * (length / self._expected - 1))
