import torch

from vitrine.datamodules.draws import key, uniform


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
    seed = key(1, 2, 3)
    draws = uniform(torch.tensor(seed), torch.tensor([0, 7]), 5)
    for index, row in zip((0, 7), draws):
        start = splitmix64(seed, index + 1)[-1]
        expected = [(z >> 40) / 2**24 for z in splitmix64(start, 5)]
        assert row.tolist() == expected


def test_known_values_of_splitmix64():
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # Vigna's reference program


def test_an_image_draws_the_same_whatever_its_batch_mates_and_however_many_numbers():
    seed = torch.tensor(key(4))
    many = uniform(seed, torch.arange(100), 8)
    assert torch.equal(uniform(seed, torch.tensor([42]), 3)[0], many[42, :3])


def test_draws_are_uniform_and_uncorrelated():
    draws = uniform(torch.tensor(key(0)), torch.arange(20000), 4)
    assert draws.min() >= 0 and draws.max() < 1
    assert (draws.mean(0) - 0.5).abs().max() < 0.01
    assert (draws.var(0) - 1 / 12).abs().max() < 0.002
    both = torch.cat([draws[:-1], draws[1:]], 1).T.corrcoef() - torch.eye(8)
    assert both.abs().max() < 0.03


def test_keys_tell_their_parts_apart():
    keys = {key(a, b) for a in range(30) for b in range(30)}
    assert len(keys) == 900 and all(0 <= k < 2**63 for k in keys)
    assert key(1, 0) != key(1) and key(-1) >= 0
