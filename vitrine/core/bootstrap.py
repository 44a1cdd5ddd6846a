"""How far a mean may be trusted: intervals by drawing its values anew."""

from __future__ import annotations

import torch
from torch import Tensor


def bootstrap(values: Tensor, seed: int, samples: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of some values and its 95 % interval by the percentiles of bootstrap samples (Efron 1979).

    Args:
        values: [..., N], NaN where there is none.

    Returns:
        Mean, low and high, [...]; NaN where there is no value.
    """
    count = values.shape[-1]
    if not count:
        nothing = values.new_full(values.shape[:-1], torch.nan)
        return nothing, nothing, nothing
    chosen = torch.randint(count, (samples, count), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(samples, count).scatter_add_(1, chosen, torch.ones(chosen.shape))
    known = ~values.isnan()
    totals = values.nan_to_num(0).float() @ weights.T
    means = totals / (known.float() @ weights.T)
    low, high = means.nanquantile(torch.tensor([0.025, 0.975]), dim=-1)
    return values.nanmean(-1), low, high
