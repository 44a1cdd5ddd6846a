import pytest
import torch
from sklearn.decomposition import NMF

from vitrine.analyses.factorization import factorize, nndsvd


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def planted(places, count, channels, seed=0):
    """Values [P, C] that add up from `count` sparse parts, and these parts [K, C] at unit length."""
    codes, parts = draw(places, count, seed=seed), draw(count, channels, seed=seed + 1)
    codes, parts = codes * (codes > 0.6), parts * (parts > 0.5)
    return codes @ parts, parts / parts.norm(dim=1, keepdim=True)


def error(dictionary, values):
    return (values - dictionary.decode(dictionary.encode(values))).norm().item()


@pytest.mark.parametrize(("places", "channels", "count"), [(200, 20, 5), (20, 60, 3)])
def test_it_comes_as_near_as_scikit_learn_from_the_same_start(places, channels, count):
    values = planted(places, count, channels)[0] + draw(places, channels, seed=9)
    codes, directions = (part.double().numpy() for part in nndsvd(values, count))
    theirs = NMF(count, init="custom", max_iter=1000, tol=1e-4)
    theirs.fit_transform(values.double().numpy(), W=codes, H=directions)
    assert error(factorize(values, count), values) == pytest.approx(theirs.reconstruction_err_, rel=0.02)


def test_planted_parts_are_found_exactly():
    values, parts = planted(300, 5, 30)
    found = factorize(values, 5)
    assert error(found, values) < 1e-3 * values.norm()
    assert ((found.directions @ parts.T).amax(0) > 0.999).all()


def test_coefficients_are_those_of_non_negative_least_squares():
    from scipy.optimize import nnls

    values, _ = planted(200, 4, 12)
    found = factorize(values + draw(200, 12, seed=5), 4)
    new = draw(6, 12, seed=7)
    rows = [nnls(found.directions.T.double().numpy(), row.double().numpy())[0] for row in new]
    expected = torch.stack([torch.from_numpy(row).float() for row in rows])
    torch.testing.assert_close(found.encode(new), expected, atol=1e-3, rtol=0)


def test_the_start_is_that_of_scikit_learn():
    from sklearn.decomposition._nmf import _initialize_nmf

    values, _ = planted(60, 4, 15)  # of rank 4: their randomised decomposition is exact
    codes, directions = _initialize_nmf(values.double().numpy(), 4, "nndsvd", random_state=0)
    for ours, theirs in zip(nndsvd(values.double(), 4), (codes, directions)):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-5, rtol=1e-4)


def test_fewer_parts_than_asked_for_are_no_obstacle():
    values, _ = planted(100, 2, 10)
    found = factorize(values, 4)
    assert found.directions.isfinite().all()
    assert error(found, values) < 0.02 * values.norm()


def test_what_cannot_be_factorised_is_refused():
    with pytest.raises(ValueError, match="go down to -1"):
        factorize(-torch.ones(5, 3), 2)
    with pytest.raises(ValueError, match="not finite"):
        factorize(torch.full((5, 3), float("nan")), 2)
    with pytest.raises(ValueError, match="4 factors of 5 x 3 values"):
        factorize(torch.ones(5, 3), 4)
