import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitrine.attacks import APGD, PGD, robustness_curve
from vitrine.attacks.threat import violations


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    eps=st.lists(st.floats(0, 0.4), min_size=2, max_size=4, unique=True).map(sorted),
    kind=st.sampled_from([PGD(steps=2), PGD(norm="l2", steps=2, targeted=True), APGD(steps=3)]),
)
def test_success_rises_with_eps(seed, eps, kind):
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 2
    pictures = torch.rand(8, 1, 2, 2, generator=generator)
    labels = torch.randint(3, (8,), generator=generator)
    before = None
    for budget in robustness_curve(kind, network, pictures, labels, eps):
        assert not violations(pictures, budget.adversarial, kind.norm, budget.eps).any()
        taken = network(budget.adversarial).argmax(1) == labels
        assert torch.equal(budget.robust, taken != kind.targeted)
        assert before is None or (before | ~budget.robust).all()
        before = budget.robust


def test_budgets_that_do_not_rise_are_refused(linear):
    with pytest.raises(ValueError, match="rising"):
        list(robustness_curve(PGD(), linear(), torch.rand(2, 1, 1, 12), torch.tensor([0, 1]), [0.2, 0.1]))
