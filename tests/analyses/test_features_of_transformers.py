"""Pictures for units of networks with attention: larger steps, smooth pictures, colours that shift."""

import pytest
import torch

from vitrine.analyses import paint
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.features import Features, channel, colour_matrix, visualize
from vitrine.analyses.visualization import objective_values
from vitrine.core.image_dataset import ImageDataset
from vitrine.modules.vision_transformer import SmallVisionTransformer

LAYER, SIZE, PATCH = "blocks.1.mlp.act", 64, 8
PLAIN = {"lr": 0.05, "parameterization": "fourier", "colour_shift": 0.0}
OURS = {"lr": 0.1, "parameterization": "smooth", "colour_shift": 0.5}


class Noise(ImageDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(index)), index % 2


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = SmallVisionTransformer(2, SIZE, patch_size=PATCH, width=24, depth=2, mlp_ratio=2)
    with torch.no_grad():
        for block in network.blocks:
            block.mlp.fc1.weight *= 8  # units that fire
    return network.eval().requires_grad_(False)


@pytest.fixture
def subject(network):
    data = Noise()
    images, labels = zip(*(data[i] for i in range(2)))
    probes = Probes(torch.stack(images), torch.tensor(labels), torch.arange(2))
    return Subject(network, probes, data, ["a", "b"], {LAYER: [3, 9]}, seed=5)


@pytest.mark.parametrize(("given", "used"), [({}, OURS), (PLAIN, PLAIN), ({"lr": 0.3}, OURS | {"lr": 0.3})])
def test_a_network_with_attention_gets_its_own_settings_unless_others_are_given(subject, given, used):
    figures = [f for f in Features(steps=5, crops=0, classes=0, **given)(subject) if hasattr(f, "image")]
    colours = colour_matrix(subject.images(range(4))[0])
    asked = [channel(LAYER, unit) for unit in (3, 9)]
    pictures = visualize(
        subject.network, asked, size=SIZE, steps=10, betas=(0.9, 0.999), seed=5, colours=colours, **used
    )
    for figure, picture in zip(figures, pictures, strict=True):
        shown = paint.resize(paint.picture(picture), figure.image.shape[0])
        assert (figure.image.int() - shown.int()).abs().max() <= 1


def grid_energy(pictures):
    """The share of the pictures' power in waves that repeat with the patches."""
    grey = pictures.mean(1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square()
    repeats = torch.arange(SIZE) % (SIZE // PATCH) == 0
    return (power * (repeats[:, None] & repeats)).sum((1, 2)) / power.sum((1, 2))


@pytest.mark.slow
def test_they_excite_more_and_show_no_grid(network):
    asked = [channel(LAYER, unit) for unit in range(0, 48, 6)]
    how = {"size": SIZE, "steps": 48, "seed": 0}
    ours, plain = (visualize(network, asked, **how, **settings) for settings in (OURS, PLAIN))
    still = visualize(network, asked, **how, transforms=None)
    assert objective_values(network, asked, ours).mean() > objective_values(network, asked, plain).mean()
    assert grid_energy(ours).mean() < 0.5 * grid_energy(still).mean()


def test_a_picture_whose_colours_shift_depends_on_its_own_numbers_only(network):
    asked = [channel(LAYER, unit) for unit in (3, 9)]
    how = {"size": SIZE, "steps": 4, "seed": 0, **OURS}
    both, again = (visualize(network, asked, **how) for _ in range(2))
    assert torch.equal(both, again)
    assert (visualize(network, asked[1:], **how) - both[1:]).abs().max() < 1e-4
