"""Pictures come from Fourier coefficients, phases or pixels, in the colours of natural images."""

import pytest
import torch
from torchvision.io import decode_jpeg, read_file

from vitrine.analyses.parameterization import (
    Fourier,
    Phases,
    Pixels,
    Smooth,
    colour_matrix,
    imagenet_colours,
    mean_magnitude,
    mix_channels,
)


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("kind", [Fourier, Smooth, Pixels])
@pytest.mark.parametrize("colours", [imagenet_colours(), torch.ones(1, 1)])
def test_variables_found_for_a_picture_give_the_picture(kind, colours, size):
    made = kind(size, colours)
    variables = made.initialize(generators(0, 1)) * 60
    pictures = made.pictures(variables)
    assert pictures.shape == (2, len(colours), size, size)
    assert pictures.min() > 0 and pictures.max() < 1 and pictures.std() > 0.05
    again = made.pictures(made.invert(pictures.clamp(0.01, 0.99)))
    assert torch.allclose(again, pictures.clamp(0.01, 0.99), atol=1e-4)


@pytest.mark.parametrize("size", [8, (6, 10)])
def test_the_fourier_picture_is_the_formula(size):
    """By definition, wave by wave: scaled by sqrt(h w) / max(f, 1 / max(h, w)), summed, divided by 4."""
    kind = Fourier(size, torch.ones(1, 1))
    h, w = (size, size) if isinstance(size, int) else size
    half = w // 2 + 1
    z = torch.randn(1, 1, h, half, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full = torch.zeros(h, w, dtype=torch.complex128)
    for row in range(h):
        for column in range(w):
            fy, fx = (f - n if f > n // 2 else f for f, n in ((row, h), (column, w)))
            mirrored = column > w // 2
            r, c = ((-row) % h, w - column) if mirrored else (row, column)
            frequency = max(((fy / h) ** 2 + (fx / w) ** 2) ** 0.5, 1 / max(h, w))
            value = complex(*z[0, 0, r, c]) * (h * w) ** 0.5 / frequency
            full[row, column] = value.conjugate() if mirrored else value
    # the waves along the edges of the half grid have no partner in it: irfft2 takes them as hermitian
    for c in (0, w // 2):
        column = full[:, c].clone()
        full[:, c] = (column + column.roll(-1).flip(0).conj()) / 2
    y, x = (torch.arange(n, dtype=torch.float64) for n in (h, w))
    down, across = (torch.exp(2j * torch.pi * torch.outer(p, p) / len(p)) for p in (y, x))
    image = torch.sigmoid((down @ full @ across.T).real / (h * w) / 4)
    assert torch.allclose(kind.pictures(z.float())[0, 0].double(), image, atol=1e-5)


def test_smooth_pictures_fall_faster_above_eight_cycles():
    ratio = Smooth(64, torch.ones(1, 1)).scale / Fourier(64, torch.ones(1, 1)).scale
    assert torch.allclose(ratio[0, [0, 4, 8, 16, 32]], torch.tensor([1, 1, 1, 0.5**0.5, 0.5]))
    assert torch.allclose(ratio[:, 0], ratio[torch.arange(64).neg() % 64, 0])
    assert torch.allclose(ratio[24, 32], torch.tensor((8 / 40) ** 0.5))


def test_smooth_pictures_that_are_not_square_fall_alike_in_both_directions():
    scale = Smooth((32, 128), torch.ones(1, 1)).scale
    assert torch.allclose(scale[1:16, 0], scale[0, 4:64:4])  # as many cycles a pixel


def test_phases_keep_the_magnitudes_of_the_images():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(20, 3, 16, 16, generator=generator)
    colours = colour_matrix(images)
    magnitude = mean_magnitude(images, 16, colours)
    kind = Phases(16, colours, magnitude)
    pictures = kind.pictures(kind.initialize(generators(0)))
    values = mix_channels(torch.logit(pictures), torch.linalg.inv(colours))
    found = torch.fft.rfft2(values).abs()[0, :, 1:8, 1:8]  # away from where a real image has no free phase
    ratio = found / magnitude[:, 1:8, 1:8]
    assert ratio.std() / ratio.mean() < 1e-3


def test_the_colour_matrix_gives_independent_values_the_images_covariance():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[0.3, 0.1, 0.0], [0.3, 0.0, 0.05], [0.2, -0.1, 0.05]])
    images = 0.5 + mix_channels(torch.randn(8, 3, 32, 32, generator=generator), mixing)
    matrix = colour_matrix(images)
    covariance = torch.cov(images.transpose(0, 1).flatten(1))
    scale = covariance.trace() / (matrix @ matrix.T).trace()
    assert torch.allclose(matrix @ matrix.T * scale, covariance, atol=1e-4)
    assert matrix.norm(dim=0).max().item() == pytest.approx(1)
    assert torch.equal(colour_matrix(images[:, :1]), torch.ones(1, 1))


def test_a_data_set_without_colour_still_gives_a_matrix_that_can_be_inverted():
    grey = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    matrix = colour_matrix(grey)
    assert torch.isfinite(torch.linalg.inv(matrix)).all()
    assert torch.isfinite(colour_matrix(torch.full((2, 3, 8, 8), 0.5))).all()


def test_fitted_to_photographs_it_is_the_known_matrix(shared, tmp_path):
    import tarfile

    with tarfile.open(shared / "data" / "imagenet-sample.tar") as archive:
        photographs = [member for member in archive.getmembers() if member.isfile()][::25]
        for member in photographs:  # by hand: Python 3.11.2 has no `filter`
            target = tmp_path / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.extractfile(member).read())
    pixels = []
    for member in photographs:
        image = decode_jpeg(read_file(str(tmp_path / member.name))).float() / 255
        if len(image) == 3:
            pixels.append(image.flatten(1)[:, ::97])
    fitted, known = colour_matrix(torch.cat(pixels, 1)[None, :, None]), imagenet_colours()
    cosines = torch.nn.functional.cosine_similarity(fitted, known, dim=0)
    assert cosines[0] > 0.99 and cosines[1] > 0.95
