"""Search without gradients, on functions whose least value is known."""

import torch

from vitrine.attacks.evolution import EvolutionStrategy


def minimize(function, size: int, generations: int, seed: int = 0) -> torch.Tensor:
    strategy = EvolutionStrategy(torch.full((size,), 2.0), 0.5, seed)
    for _ in range(generations):
        candidates = strategy.sample()
        strategy.update(candidates, function(candidates))
    return strategy.mean


def test_it_finds_the_bottom_of_a_long_and_turned_valley():
    """Condition 10,000: with a round distribution it would creep."""
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    lengths = torch.logspace(0, 4, 5, dtype=torch.float64)
    place = torch.tensor([1.0, -2, 0.5, 3, -1], dtype=torch.float64)

    def valley(points):
        return (((points - place) @ turn).square() * lengths).sum(1)

    found = minimize(valley, 5, 250)
    torch.testing.assert_close(found, place, rtol=0, atol=1e-5)


def test_it_depends_on_the_order_of_losses_and_the_seed_alone():
    def bowl(points):
        return points.square().sum(1)

    found = minimize(bowl, 4, 20)
    assert torch.equal(found, minimize(lambda points: bowl(points).exp() - 7, 4, 20))
    assert not torch.equal(found, minimize(bowl, 4, 20, seed=1))
