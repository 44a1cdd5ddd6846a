"""RandAugment, TrivialAugment and AugMix against torchvision's classes, which are given the same draws."""

import pytest
import torch
from torchvision.transforms import v2

from vitrine.core.random_numbers import fold_in
from vitrine.datamodules import policies

KEYS = fold_in(torch.tensor(5), torch.arange(48))
THEIRS = {"RANDAUGMENT": v2.RandAugment, "TRIVIALAUGMENT": v2.TrivialAugmentWide, "AUGMIX": v2.AugMix}


@pytest.fixture(params=["uint8", "float"])
def photos(request):
    """Smooth pictures that are not square, [48, 3, 18, 21]."""
    noise = torch.rand(48, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(noise, (18, 21), mode="bicubic").clamp(0, 1)
    return images.mul(255).round().to(torch.uint8) if request.param == "uint8" else images


class Scripted:
    """torchvision's policies draw from these in place of the global generator."""

    def __init__(self, monkeypatch):
        self.integers, self.signs = [], []
        monkeypatch.setattr(torch, "randint", self.randint)
        monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(self.signs.pop(0)))

    def randint(self, *_, **__):
        return torch.tensor(self.integers.pop(0))


@pytest.mark.parametrize("name", THEIRS)
def test_the_spaces_are_torchvisions(name):
    space, theirs = getattr(policies, name), THEIRS[name]()._AUGMENTATION_SPACE
    assert list(space.names) == list(theirs)
    for operation, (magnitudes, signed) in theirs.items():
        expected = magnitudes(space.bins, 40, 50)
        found = space.magnitudes(operation, 40, 50)
        assert torch.equal(found, torch.zeros(space.bins) if expected is None else expected.float())
        assert signed == (operation in policies._SIGNED)


@pytest.mark.parametrize("name", ["RANDAUGMENT", "TRIVIALAUGMENT"])
def test_every_operation_equals_torchvisions_on_the_same_draws(photos, monkeypatch, name):
    space = getattr(policies, name)
    chosen, bins = torch.arange(48) % len(space.names), torch.arange(48) * 7 % space.bins
    negative = torch.arange(48) % 3 == 0
    ours = policies.apply_operations(photos, space, chosen, bins, negative)
    script, signed = Scripted(monkeypatch), policies._SIGNED
    for image, operation, level, minus, result in zip(photos, chosen, bins.tolist(), negative.tolist(), ours):
        script.integers = [int(operation), level] if name == "TRIVIALAUGMENT" else [int(operation)]
        if name == "TRIVIALAUGMENT" and space.names[operation] in ("Identity", "AutoContrast", "Equalize"):
            script.integers = script.integers[:1]
        script.signs = [0.2 if minus else 0.9] if space.names[operation] in signed else []
        theirs = v2.TrivialAugmentWide() if name == "TRIVIALAUGMENT" else v2.RandAugment(1, magnitude=level)
        assert torch.equal(result, theirs(image)), space.names[operation]
        assert not script.integers and not script.signs


def test_operations_follow_one_another_as_in_torchvisions_randaugment(photos, monkeypatch):
    chosen, negative = [], []

    def spy(images, space, operation, bins, minus):
        chosen.append(operation.tolist()), negative.append(minus.tolist())
        assert set(bins.tolist()) == {11}
        return real(images, space, operation, bins, minus)

    real = policies.apply_operations
    monkeypatch.setattr(policies, "apply_operations", spy)
    ours = policies.randaugment(photos, KEYS, 2, 11)
    script = Scripted(monkeypatch)
    for i, image in enumerate(photos):
        script.integers = [drawn[i] for drawn in chosen]
        names = [policies.RANDAUGMENT.names[number] for number in script.integers]
        script.signs = [0.1 if n[i] else 0.8 for n, name in zip(negative, names) if name in policies._SIGNED]
        assert torch.equal(ours[i], v2.RandAugment(2, magnitude=11)(image))


def test_augmix_equals_torchvisions_on_the_same_draws(photos, monkeypatch):
    steps, mixed = [], []
    real, real_mix = policies.apply_operations, policies.mix_chains

    def spy(images, space, operation, bins, minus):
        steps.append((operation.tolist(), bins.tolist(), minus.tolist()))
        return real(images, space, operation, bins, minus)

    def spy_mix(images, changed, own, chains):
        mixed.append((own, chains))
        return real_mix(images, changed, own, chains)

    monkeypatch.setattr(policies, "apply_operations", spy)
    monkeypatch.setattr(policies, "mix_chains", spy_mix)
    few = photos[:12]
    ours = policies.augmix(few, KEYS[:12], 4, 3)
    (own, chains) = mixed[0]
    torch.testing.assert_close(chains.sum(1) + own, torch.ones(12))
    depth = uniform_depths(len(few) * 3)
    taken = [0, 0, 0]
    draws = {row: [] for row in range(36)}
    for level, (operations, bins, minus) in enumerate(steps):
        for row in (row for row in range(36) if depth[row] > level):
            place = taken[level]
            draws[row].append((operations[place], bins[place], minus[place]))
            taken[level] += 1
    assert taken == [len(operations) for operations, _, _ in steps]
    script = Scripted(monkeypatch)
    for i, image in enumerate(few):
        weights = iter([torch.tensor([[own[i], 1 - own[i]]]), (chains[i] / (1 - own[i]))[None]])
        script.integers, script.signs = [], []
        for row in range(3 * i, 3 * i + 3):
            script.integers.append([len(draws[row])])
            for operation, level, minus in draws[row]:
                name = policies.AUGMIX.names[operation]
                script.integers += [operation] if name in ("AutoContrast", "Equalize") else [operation, level]
                script.signs += [0.3 if minus else 0.7] if name in policies._SIGNED else []
        theirs = v2.AugMix(severity=4)
        monkeypatch.setattr(theirs, "_sample_dirichlet", lambda _, weights=weights: next(weights))
        difference = (theirs(image).double() - ours[i].double()).abs().max()
        assert difference <= (1 if few.dtype == torch.uint8 else 1e-5)  # the weights are rounded once more
        assert not script.integers and not script.signs


def uniform_depths(count):
    """How many operations each chain has, as `augmix` draws them from these keys, three chains an image."""
    random = policies.uniform(KEYS[: count // 3], 1 + 3 * 11)[:, 1:].reshape(count, 11)
    return (1 + (random[:, 1] * 3).long()).tolist()


@pytest.mark.parametrize("policy", [lambda x, k: policies.randaugment(x, k, 2, 9), policies.trivialaugment])
def test_gray_images_stay_gray(photos, policy):
    gray = photos[:, :1]
    assert policy(gray, KEYS).shape == gray.shape and not torch.equal(policy(gray, KEYS), gray)


def test_operations_and_magnitudes_are_drawn_uniformly(monkeypatch):
    drawn = []
    monkeypatch.setattr(policies, "apply_operations", lambda images, _, *how: drawn.append(how) or images)
    policies.trivialaugment(torch.zeros(1), fold_in(torch.tensor(1), torch.arange(20_000)))
    operations, bins, negative = drawn[0]
    for values, count, limit in ((operations, 14, 34.5), (bins, 31, 59.7), (negative.long(), 2, 10.8)):
        expected = 20_000 / count
        chi2 = ((values.bincount(minlength=count) - expected) ** 2 / expected).sum()
        assert chi2 < limit  # 99.9 % of chi-squared with one degree of freedom less
