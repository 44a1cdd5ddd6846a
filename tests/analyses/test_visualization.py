"""Optimised pictures show what units detect, each as if it were alone, and leave the network as it was."""

import copy

import pytest
import torch
from torch import nn

from vitrine.analyses.activations import activations
from vitrine.analyses.objectives import channel, deepdream, direction, diversity, logit, neuron
from vitrine.analyses.parameterization import imagenet_colours, mean_magnitude
from vitrine.analyses.transforms import Crops
from vitrine.analyses.visualization import maco, objective_values, visualize, visualize_at_steps


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


FREQUENCY = (0.9, 1.8)  # radians a pixel, down and right


def grating(height: int, width: int) -> torch.Tensor:
    """A diagonal grating of three pixels and a bit, light and dark: [height, width]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.sin(y * FREQUENCY[0] + x * FREQUENCY[1])


@pytest.fixture
def planted():
    """A convolution whose unit 1 detects the grating, and unit 0 nothing."""
    conv = nn.Conv2d(3, 2, 9, padding=4)
    kernel = grating(9, 9)
    with torch.no_grad():
        conv.weight[1], conv.weight[0] = kernel - kernel.mean(), 0
        conv.bias.copy_(torch.tensor([-1.0, -0.2]))
    return nn.Sequential(conv, nn.ReLU(), nn.Identity())


@pytest.mark.parametrize("parameterization", ["fourier", "pixels"])
def test_a_planted_unit_is_shown_its_texture(planted, parameterization):
    asked = [neuron("1", 1)]
    options = {"parameterization": parameterization, "transforms": None}
    picture = visualize(planted, asked, size=33, steps=96, seed=0, **options)
    seen = picture[0, :, 12:21, 12:21].mean(0)  # what the centre of the map sees
    correlation = torch.corrcoef(torch.stack([seen.flatten(), grating(9, 9).flatten()]))[0, 1]
    assert correlation > 0.85  # at best the sign of the grating, black and white: 0.90


def test_a_planted_unit_fills_a_moving_picture_with_its_texture(planted):
    asked = [channel("1", 1)]
    picture = visualize(planted, asked, size=64, steps=96, seed=0)
    spectrum = torch.fft.fft2(picture[0].mean(0) - picture.mean()).abs()
    row, column = divmod(spectrum[:, :32].argmax().item(), 32)
    expected = [f * 64 / (2 * torch.pi) for f in FREQUENCY]
    # a 9-pixel detector is no sharper than a few bins, and the picture may turn the grating a little
    assert abs(row - expected[0]) <= 4 and abs(column - expected[1]) <= 4
    ideal = (0.5 + 0.5 * grating(64, 64)).expand(1, 3, -1, -1)
    assert objective_values(planted, asked, picture) > 0.3 * objective_values(planted, asked, ideal)


@pytest.mark.slow
def test_maco_shows_it_too_and_says_where(planted):
    natural = torch.rand(16, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    colours = imagenet_colours()
    magnitude = mean_magnitude(natural, 48, colours)
    asked = [channel("1", 1)]
    options = {"size": 48, "seed": 0, "magnitude": magnitude, "colours": colours, "crops": Crops(0.8, 1.0)}
    start, _ = maco(planted, asked, steps=0, **options)
    pictures, opacity = maco(planted, asked, steps=48, **options)
    assert objective_values(planted, asked, pictures) > 1.3 * objective_values(planted, asked, start)
    assert opacity.shape == (1, 48, 48) and opacity.min() >= 0 and opacity.max() == 1
    with pytest.raises(ValueError, match=r"magnitude has shape \(3, 48, 25\), expected \(3, 32, 17\)"):
        maco(planted, asked, **{**options, "size": 32})


def test_a_picture_depends_neither_on_its_batch_nor_on_its_neighbours(network):
    """Few steps: after many, a ReLU that rounding switches may have led elsewhere."""
    asked = [channel("3", unit) for unit in range(5)] + [logit(2), deepdream("3")]
    together = visualize(network, asked, size=32, steps=8, seed=3)
    in_pairs = visualize(network, asked, size=32, steps=8, seed=3, batch_size=2)
    alone = torch.cat([visualize(network, [o], size=32, steps=8, seed=3) for o in asked])
    assert (together - in_pairs).abs().max() < 1e-4
    assert (together - alone).abs().max() < 1e-4
    assert (visualize(network, asked[:1], size=32, steps=8, seed=4) - alone[:1]).abs().max() > 0.05


@pytest.mark.slow
def test_equal_objectives_get_different_pictures_and_diversity_drives_them_apart(network):
    def likeness(pictures):
        maps = network.eval()[:3](pictures).flatten(2)
        styles = nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1))
        return (styles @ styles.T)[~torch.eye(len(styles), dtype=torch.bool)].mean()

    alike = visualize(network, [channel("3", 1)] * 3, size=32, steps=48, seed=0)
    assert (alike[0] - alike[1]).abs().max() > 0.1
    apart = visualize(
        network, [channel("3", 1) + 5 * diversity("2", "one")] * 3, size=32, steps=48, seed=0, batch_size=1
    )
    assert likeness(apart) < likeness(alike)


def test_a_negative_objective_lowers_what_it_names(network):
    asked = [channel("3.0", 2), -channel("3.0", 2), channel("3.0", 2) - 3 * channel("3.0", 5)]
    pictures = visualize(network, asked, size=32, steps=48, seed=0)
    high, low, mixed = objective_values(network, [channel("3.0", 2)] * 3, pictures)
    grey = objective_values(network, [channel("3.0", 2)], torch.full((1, 3, 32, 32), 0.5))
    assert high > grey > low
    other = objective_values(network, [channel("3.0", 5)] * 3, pictures)
    assert other[2] < other[0] and mixed > low


def test_a_direction_is_climbed(network):
    vector = torch.randn(8, generator=torch.Generator().manual_seed(0))
    asked = [direction("0", vector)]
    picture = visualize(network, asked, size=32, steps=48, seed=0)
    noise = visualize(network, asked, size=32, steps=0, seed=0)
    assert objective_values(network, asked, picture) > 5 * objective_values(network, asked, noise).abs()


def test_the_forward_pass_ends_at_the_layer_asked_for(network):
    ran = []
    asked = [channel("0", 0), channel("3.0", 1)]
    visualize(network, asked, size=32, steps=1, seed=0)  # once it is tried in which order it takes images
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in network.named_modules()
    ]
    visualize(network, asked, size=32, steps=2, seed=0)
    for handle in handles:
        handle.remove()
    assert set(ran) == {"0", "1", "2", "3.0"}


def test_the_network_and_the_random_numbers_are_left_as_they_were(network):
    network[3].train()  # modes differ from module to module
    network[4].eval()
    state, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    rng = torch.get_rng_state()
    with torch.no_grad():
        pictures = visualize(network, [channel("3", 0), logit(1)], size=32, steps=20, seed=0)
        assert not torch.is_grad_enabled()
    assert not pictures.requires_grad
    assert torch.equal(torch.get_rng_state(), rng)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(state.values(), network.state_dict().values()))
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks for m in network.modules())


def test_the_parameters_gradients_are_not_computed(network):
    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight):
            return weight.clone()

        @staticmethod
        def backward(ctx, _):
            raise AssertionError("a gradient of the weights was computed")

    class Conv(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, Watched.apply(self.weight), self.bias)

    torch.manual_seed(0)
    visualize(nn.Sequential(Conv(3, 4, 3), nn.ReLU()), [channel("1", 0)], size=16, steps=3, seed=0)


@pytest.mark.slow
def test_a_dead_unit_is_brought_to_life():
    conv = nn.Conv2d(1, 2, 5)
    with torch.no_grad():
        conv.weight.copy_(torch.sign(torch.linspace(-1, 1, 5))[None, None, None].expand(2, 1, 5, 5))
        conv.bias.copy_(torch.tensor([-3.0, -3.0]))
    for network in (nn.Sequential(conv, nn.ReLU()), nn.Sequential(conv, nn.ReLU6(inplace=True))):
        asked = [neuron("1", 0)]
        noise = visualize(network, asked, size=32, steps=0, seed=0)
        assert objective_values(network, asked, noise) == 0
        assert objective_values(network, asked, visualize(network, asked, size=32, steps=64, seed=0)) > 1


TAILS = {
    "ReLU": [nn.ReLU()],
    "in-place ReLU6": [nn.ReLU6(inplace=True)],
    "after max pooling": [nn.ReLU(), nn.MaxPool2d(2)],
    "after average pooling": [nn.ReLU(), nn.AvgPool2d(2)],
    "after dropout and a 1 x 1 map": [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Dropout()],
    "before a ReLU": [nn.Identity(), nn.ReLU()],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail", "first"),
    [
        ("ReLU", nn.ReLU),
        *(pytest.param(tail, nn.ReLU, marks=pytest.mark.slow) for tail in [*TAILS][1:]),
        pytest.param("ReLU", nn.Hardswish, marks=pytest.mark.slow),  # for which guided backprop has no rule
    ],
)
def test_a_dead_unit_lives_where_its_pre_activation_can_be_raised_above_zero(tail, first):
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 12, 5, 2), first(), nn.Conv2d(12, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3)),
        *TAILS[tail],
    )
    with torch.no_grad():
        for module in network:
            if isinstance(module, nn.Conv2d):
                module.weight *= 4
        network[4].bias -= 1
    target = "5" if tail == "before a ReLU" else str(len(network) - 1)
    objectives = [channel(target, unit) for unit in range(12)]
    before = [channel("4", unit) for unit in range(12)]
    options = {"size": 24, "steps": 96, "seed": 0}
    start, pictures, raised = (
        visualize(network, some, **options | more)
        for some, more in ((objectives, {"steps": 0}), (objectives, {}), (before, {}))
    )
    start, end, raised = (
        activations(network, images, ["4"])["4"].diagonal().flatten(0, 1)  # [positions, units]
        for images in (start, pictures, raised)
    )
    dead = start.amax(0) <= 0
    assert dead.sum() >= 4
    lives = end.amax(0) > 0
    assert lives[raised.amax(0) > 0.6].all()
    assert (lives | (end.mean(0) > start.mean(0)))[dead].all()


def test_a_dead_neighbour_does_not_change_a_picture_by_maco():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, 5)
    with torch.no_grad():
        conv.bias.copy_(torch.tensor([-100.0, 0.5]))
    network, magnitude = nn.Sequential(conv, nn.ReLU()), torch.ones(3, 16, 9)
    options = {"size": 16, "steps": 4, "seed": 0, "magnitude": magnitude}
    both, _ = maco(network, [channel("1", 0), channel("1", 1)], **options)
    alone, _ = maco(network, [channel("1", 1)], **options)
    assert (alone[0] - both[1]).abs().max() < 1e-4


def test_a_live_units_picture_is_not_changed_by_a_dead_neighbour():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, 5)
    with torch.no_grad():
        conv.bias[0] = -2.0
    network = nn.Sequential(conv, nn.ReLU())
    both = visualize(network, [channel("1", 0), channel("1", 1)], size=16, steps=24, seed=0)
    assert (visualize(network, [channel("1", 1)], size=16, steps=24, seed=0)[0] - both[1]).abs().max() < 1e-4


def test_the_course_begins_with_noise_and_ends_with_the_picture(network):
    asked = [channel("3", 3), channel("3", 4)]
    way = visualize_at_steps(network, asked, at_steps=[0, 4, 16], size=32, seed=0)
    assert way.shape == (3, 2, 3, 32, 32)
    assert torch.equal(way[2], visualize(network, asked, size=32, steps=16, seed=0))
    assert torch.equal(way[0], visualize(network, asked, size=32, steps=0, seed=0))
    values = torch.stack([objective_values(network, asked, pictures) for pictures in way])
    assert (values[2] > values[0]).all()


def test_a_warm_start_begins_with_the_picture_given(network):
    asked = [channel("3", 0)]
    before = visualize(network, asked, size=32, steps=32, seed=0)
    again = visualize(network, asked, size=32, steps=0, seed=1, warm_start=before)
    assert (again - before.clamp(0.01, 0.99)).abs().max() < 1e-3
    with pytest.raises(ValueError, match="warm_start has 1 pictures, expected one for each of 2"):
        visualize(network, asked * 2, size=32, steps=1, seed=1, warm_start=before)


def test_grayscale_networks_get_grey_pictures():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU())
    pictures = visualize(network, [channel("1", 0)], size=28, steps=8, seed=0)
    assert pictures.shape == (1, 1, 28, 28) and pictures.min() >= 0 and pictures.max() <= 1


@pytest.mark.parametrize(
    ("asked", "size", "words"),
    [
        ([channel("3", 99)], 32, "unit is 99, and layer '3' has 8 channels"),
        ([channel("3", 0), logit(7)], 32, "label is 7, and the network has 4 classes"),
        ([channel("3.9", 0)], 32, "unknown layer '3.9'"),
        ([channel("3", 0)], 1, "size is 1, and the network does not take images of that size"),
    ],
)
def test_what_cannot_be_made_is_said_before_the_work_begins(network, asked, size, words):
    with pytest.raises(ValueError, match=words):
        visualize(network, asked, size=size, steps=10**9, seed=0)


def test_an_unknown_parameterization_is_answered_with_the_known_ones(network):
    with pytest.raises(ValueError, match="did you mean fourier"):
        visualize(network, [logit(0)], size=32, steps=1, seed=0, parameterization="furier")
