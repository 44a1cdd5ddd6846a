import torch

from vitrine.attacks import draws


def test_numbers_are_a_function_of_the_key_alone():
    keys = torch.tensor([5, -7, 2**62])
    together = draws.uniform(keys, 3, 4)
    alone = torch.cat([draws.uniform(key[None], 3, 4) for key in keys])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_uniform_numbers_are_uniform_and_normal_ones_normal():
    keys = torch.arange(64)
    uniform, normal = draws.uniform(keys, 2000), draws.normal(keys, 2000)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.005 and abs(uniform.var() - 1 / 12) < 0.002
    assert abs(normal.mean()) < 0.02 and abs(normal.var() - 1) < 0.02
    neighbours = torch.corrcoef(uniform[:2])[0, 1]
    assert abs(neighbours) < 0.1


def test_a_key_is_a_function_of_the_pixels(images):
    pixels = images(4, 3, 5, 5)
    keys = draws.content_keys(pixels)
    assert torch.equal(keys, draws.content_keys(pixels.clone()))
    assert torch.equal(keys.flip(0), draws.content_keys(pixels.flip(0)))
    assert (keys != draws.content_keys(pixels.flip(3))).all(), "the order of the pixels matters"
    assert len(keys.unique()) == 4


def test_purposes_have_numbers_of_their_own():
    keys = torch.arange(3)
    derived = [draws.derived(keys, 0), draws.derived(keys, 1), draws.derived(keys, 0, 1), keys]
    assert len(torch.cat(derived).unique()) == 12


def test_no_global_generator_moves():
    before = torch.get_rng_state()
    draws.normal(torch.arange(3), 10)
    assert torch.equal(before, torch.get_rng_state())
