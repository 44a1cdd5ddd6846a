import math

import numpy as np
import pytest
import torch
from scipy import stats

from vitrine.analyses.part_scores import (
    deletion_gain,
    deletion_sets,
    distractibility,
    names_most_important,
    part_attributions,
    rank_correlation,
    target_sensitivity,
)
from vitrine.analyses.truth_scores import SCORES
from vitrine.core.bootstrap import bootstrap

ALL = torch.ones(1, 4, dtype=torch.bool)


def random_case(seed=0, count=20, parts=6):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(count, parts, generator=generator) < 0.7
    attributions = torch.randint(-3, 4, (count, parts), generator=generator).float()  # with ties
    return attributions, torch.randn(count, parts, generator=generator), present


def test_the_rank_correlation_is_scipys_over_the_parts_present_ties_included():
    attributions, effects, present = random_case()
    found = rank_correlation(attributions, effects, present).tolist()
    for own, true, has, value in zip(attributions, effects, present, found):
        if has.sum() < 2:
            assert math.isnan(value)
        elif own[has].unique().numel() == 1:
            assert value == 0
        else:
            assert value == pytest.approx(stats.spearmanr(own[has], true[has]).statistic, abs=1e-6)


def test_a_part_has_the_sum_of_its_pixels():
    maps = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    expected = [[maps[n][masks[n, p]].sum().item() for p in range(3)] for n in range(2)]
    torch.testing.assert_close(part_attributions(maps, masks), torch.tensor(expected))


def test_the_most_important_part_is_named_by_the_highest_attribution_ties_in_shares():
    effects = torch.tensor([[1.0, 3.0, -5.0, 2.0]])

    def named(*attributions, present=ALL):
        return names_most_important(torch.tensor([attributions]), effects, present).item()

    assert named(0.0, 1.0, 0.5, 0.2) == 1
    assert named(0.0, 1.0, 2.0, 0.2) == 0  # the greatest magnitude speaks against the class
    assert named(1.0, 1.0, 0.0, 0.0) == 0.5
    assert named(1.0, 1.0, 1.0, 1.0) == 0.25
    assert named(0.0, 1.0, 9.0, 0.0, present=torch.tensor([[True, True, False, True]])) == 1
    assert math.isnan(named(0.0, 1.0, 2.0, 3.0, present=torch.tensor([[False, False, True, False]])))


def test_distractibility_is_the_share_on_parts_without_effect():
    effects = torch.tensor([[10.0, -4.0, 0.5, 0.0]])
    assert distractibility(torch.tensor([[3.0, -3.0, 1.0, -1.0]]), effects, ALL).item() == 0.25
    assert distractibility(torch.zeros(1, 4), effects, ALL).item() == 0.5  # says nothing: as many parts
    with_effect = torch.tensor([[True, True, False, False]])
    assert math.isnan(distractibility(torch.ones(1, 4), effects, with_effect).item())


def test_a_map_that_changes_as_the_effects_do_is_sensitive_and_one_that_does_not_is_not():
    effects = torch.tensor([[[5.0, 1.0, 0.0, 2.0]], [[0.0, 4.0, 1.0, -1.0]]])
    assert target_sensitivity(effects * torch.tensor([3.0, 0.1])[:, None, None], effects, ALL).item() == 1
    assert target_sensitivity(effects.flip(0), effects, ALL).item() == -1
    assert target_sensitivity(effects[:1].expand(2, -1, -1), effects, ALL).item() == 0


def test_parts_are_deleted_from_the_highest_attribution_down():
    present = torch.tensor([[True, True, False, True]])
    sets = deletion_sets(torch.tensor([[0.5, 2.0, 9.0, -1.0]]), present)[0]
    assert sets.int().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]]
    curve = torch.tensor([[1.0, 0.2, 0.1, 0.0, 0.0]])
    expected = 1 - np.trapezoid([1.0, 0.2, 0.1, 0.0], dx=1 / 3)
    assert deletion_gain(curve, present).item() == pytest.approx(expected)
    unsure = torch.full((1, 5), 0.3)  # from the start, and nothing is lost
    assert deletion_gain(unsure, present).item() == pytest.approx(0.7)
    assert SCORES["deletion"].meaning.startswith("the area above the curve")


def test_the_interval_is_scipys_and_knows_what_is_missing():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    mean, low, high = bootstrap(values, seed=0, samples=4000)
    for i in range(3):
        theirs = stats.bootstrap(
            (values[i].numpy(),), np.mean, n_resamples=4000, method="percentile", random_state=0
        )
        assert low[i].item() == pytest.approx(theirs.confidence_interval.low, abs=0.03)
        assert high[i].item() == pytest.approx(theirs.confidence_interval.high, abs=0.03)
        assert mean[i].item() == pytest.approx(values[i].mean().item(), abs=1e-6)
    padded = torch.cat([values, torch.full((3, 10), torch.nan)], 1)
    known, close, far = bootstrap(padded, seed=0)
    torch.testing.assert_close(known, mean)
    assert (close < known).all() and (known < far).all()
    assert all(torch.isnan(bound).all() for bound in bootstrap(torch.full((2, 5), torch.nan), seed=0))
