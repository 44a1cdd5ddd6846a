import pytest
import torch

from vitrine.datamodules.drawing.noise import add_grain, fractal, white_noise

SEEDS = torch.randint(-(2**31), 2**31 - 1, (64,), generator=torch.Generator().manual_seed(0)).int()


def test_the_amplitude_of_fractal_noise_falls_as_one_over_the_frequency():
    field = fractal(SEEDS, 128, torch.ones(64))
    spectrum = torch.fft.fft2(field - field.mean((1, 2), keepdim=True)).abs().square().mean(0).sqrt()
    frequency = torch.fft.fftfreq(128)[:, None].square().add(torch.fft.fftfreq(128).square()).sqrt() * 128
    x, y = [], []
    for low in (4, 8, 16, 32):
        ring = (frequency >= low) & (frequency < 2 * low)
        x.append(torch.log2(frequency[ring]).mean())
        y.append(torch.log2(spectrum[ring]).mean())
    x, y = torch.stack(x), torch.stack(y)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert -1.35 < slope < -0.75


def test_a_weaker_fall_off_is_rougher_and_the_spread_stays_the_same():
    rough, smooth = fractal(SEEDS, 64, torch.ones(64)), fractal(SEEDS, 64, torch.full((64,), 0.5))
    step = [(f[:, :, 1:] - f[:, :, :-1]).square().mean().sqrt() for f in (rough, smooth)]
    assert step[0] > 2 * step[1]
    for field in (rough, smooth):
        assert abs(float(field.mean())) < 0.1
        assert 0.3 < float(field.std()) < 0.65


def test_a_field_twice_as_fine_is_the_same_field():
    coarse, fine = (fractal(SEEDS, size, torch.full((64,), 0.7)).flatten(1) for size in (64, 128))
    fine = torch.nn.functional.avg_pool2d(fine.view(64, 128, 128), 2).flatten(1)
    alike = torch.nn.functional.cosine_similarity(coarse, fine)
    assert alike.min() > 0.9


def test_hashed_noise_is_white_uniform_and_another_one_for_every_word():
    field = white_noise(SEEDS, 3, 64)
    assert field.min() >= -1 and field.max() < 1
    assert abs(float(field.mean())) < 0.01 and float(field.var()) == pytest.approx(1 / 3, rel=0.02)
    for shifted in (field.roll(1, 2), field.roll(1, 1), field.roll(1, 0)):
        assert abs(float((field * shifted).mean())) < 0.01
    counts = torch.histc(field, bins=16, min=-1, max=1)
    assert (counts / counts.mean() - 1).abs().max() < 0.05


def test_grain_is_as_strong_as_asked_for_and_independent_between_channels():
    images = torch.zeros(64, 3, 64, 64)
    add_grain(images, SEEDS, torch.linspace(0, 0.1, 64))
    assert not images[0].any()
    assert images[-1].abs().max() <= 0.1 and float(images[-1].std()) == pytest.approx(0.1 / 3**0.5, rel=0.05)
    red, green = images[32:, 0].flatten(), images[32:, 1].flatten()
    assert abs(float(torch.corrcoef(torch.stack([red, green]))[0, 1])) < 0.02
