import pytest
import torch
from torch.nn.functional import normalize

from vitrine.analyses.sparse_autoencoder import train_autoencoder


def planted(places, count, channels, active):
    """Values [P, C] = offset + `active` of `count` directions each, and the directions [K, C]."""
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(count, channels, generator=generator), dim=1)
    chosen = torch.rand(places, count, generator=generator).argsort(1)[:, :active]
    amounts = 0.5 + torch.rand(places, active, generator=generator)
    codes = torch.zeros(places, count).scatter_(1, chosen, amounts)
    return codes @ directions + torch.randn(channels, generator=generator), directions


@pytest.mark.slow
def test_planted_directions_are_found():
    """Among more than were planted: of as many, two may share one."""
    values, directions = planted(2000, 10, 20, active=2)
    found = train_autoencoder(values, 16, 2, steps=300)
    assert ((found.directions @ directions.T).amax(0) > 0.9).all()
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(16))
    codes = found.encode(values)
    assert (codes >= 0).all() and ((codes > 0).sum(1) <= 2).all()
    left = (values - found.decode(codes)).square().sum() / (values - values.mean(0)).square().sum()
    assert left < 0.1


def test_it_depends_on_values_and_seed_alone():
    values, _ = planted(100, 4, 8, active=2)

    def found(seed):
        return train_autoencoder(values, 4, 2, steps=5, seed=seed)

    first = found(0)
    torch.manual_seed(7)
    with torch.no_grad():
        again = found(0)
    assert torch.equal(first.directions, again.directions) and torch.equal(first.encoder, again.encoder)
    assert not torch.equal(first.directions, found(1).directions)


def test_units_of_the_values_do_not_matter():
    values, _ = planted(500, 4, 8, active=1)
    one, other = (train_autoencoder(scale * values, 4, 1, steps=50) for scale in (1, 1024))
    torch.testing.assert_close(one.encode(values) * 1024, other.encode(values * 1024))


def test_what_cannot_be_asked_for_is_refused():
    with pytest.raises(ValueError, match="5 directions of 3 values"):
        train_autoencoder(torch.rand(3, 4), 5, 1)
    with pytest.raises(ValueError, match="active is 3, expected 1 to 2"):
        train_autoencoder(torch.rand(9, 4), 2, 3)
    with pytest.raises(ValueError, match="not finite"):
        train_autoencoder(torch.full((9, 4), float("inf")), 2, 1)
