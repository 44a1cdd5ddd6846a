import torch

from vitrine.core.random_numbers import content_keys, fold_in, make_key, normal, uniform


def test_numbers_are_a_function_of_the_key_alone():
    keys = torch.tensor([5, -7, 2**62])
    together = uniform(keys, 3, 4)
    alone = torch.cat([uniform(key[None], 3, 4) for key in keys])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_uniform_numbers_are_uniform_and_normal_ones_normal():
    keys = torch.arange(64)
    flat, bell = uniform(keys, 2000), normal(keys, 2000)
    assert flat.min() >= 0 and flat.max() < 1
    assert abs(flat.mean() - 0.5) < 0.005 and abs(flat.var() - 1 / 12) < 0.002
    assert abs(bell.mean()) < 0.02 and abs(bell.var() - 1) < 0.02
    neighbours = torch.corrcoef(flat[:2])[0, 1]
    assert abs(neighbours) < 0.1


def test_a_key_is_a_function_of_the_pixels():
    pixels = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    keys = content_keys(pixels)
    assert torch.equal(keys, content_keys(pixels.clone()))
    assert torch.equal(keys.flip(0), content_keys(pixels.flip(0)))
    assert (keys != content_keys(pixels.flip(3))).all(), "the order of the pixels matters"
    assert len(keys.unique()) == 4


def test_purposes_have_numbers_of_their_own():
    keys = torch.arange(3)
    derived = [fold_in(keys, 0), fold_in(keys, 1), fold_in(keys, 0, 1), keys]
    assert len(torch.cat(derived).unique()) == 12


def test_no_global_generator_moves():
    before = torch.get_rng_state()
    normal(torch.arange(3), 10)
    assert torch.equal(before, torch.get_rng_state())


def splitmix64(state, count):
    """Steele, Lea & Flood 2014, in Python's integers: what the tensors must agree with."""
    word, out = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & word
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        out.append(z ^ (z >> 31))
    return out


def test_draws_are_splitmix64_seeded_by_splitmix64():
    seed = make_key(1, 2, 3)
    draws = uniform(fold_in(torch.tensor(seed), torch.tensor([0, 7])), 5)
    for index, row in zip((0, 7), draws):
        start = splitmix64(seed, index + 1)[-1]
        expected = [(z >> 40) / 2**24 for z in splitmix64(start, 5)]
        assert row.tolist() == expected


def test_known_values_of_splitmix64():
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # Vigna's reference program


def test_an_image_draws_the_same_whatever_its_batch_mates_and_however_many_numbers():
    seed = torch.tensor(make_key(4))
    many = uniform(fold_in(seed, torch.arange(100)), 8)
    assert torch.equal(uniform(fold_in(seed, torch.tensor([42])), 3)[0], many[42, :3])


def test_draws_are_uniform_and_uncorrelated():
    draws = uniform(fold_in(torch.tensor(make_key(0)), torch.arange(20000)), 4)
    assert draws.min() >= 0 and draws.max() < 1
    assert (draws.mean(0) - 0.5).abs().max() < 0.01
    assert (draws.var(0) - 1 / 12).abs().max() < 0.002
    both = torch.cat([draws[:-1], draws[1:]], 1).T.corrcoef() - torch.eye(8)
    assert both.abs().max() < 0.03


def test_keys_tell_their_parts_apart():
    keys = {make_key(a, b) for a in range(30) for b in range(30)}
    assert len(keys) == 900 and all(0 <= k < 2**63 for k in keys)
    assert make_key(1, 0) != make_key(1) and make_key(-1) >= 0
