"""Style transfer matches Gram matrices, keeps content, and leaves the network as it was."""

import pytest
import torch
from torch import nn

from vitrine.analyses.activations import activations
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.style import Style, gram, total_variation, transfer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 8, 3), nn.ReLU())


def stripes(across: bool, height: int = 32, width: int = 32) -> torch.Tensor:
    line = (torch.arange(width) // 4 % 2).float().expand(1, 3, height, width)
    return line if across else line.transpose(2, 3)


def style_distance(network, image, style, layers=("1", "4")):
    seen, wanted = activations(network, image, layers), activations(network, style, layers)
    return sum(
        (gram(seen[n]) - gram(wanted[n])).square().sum() / gram(wanted[n]).square().sum() for n in layers
    ).item()


def content_distance(network, image, content):
    a, b = (activations(network, x, ["4"])["4"] for x in (image, content))
    return ((a - b).square().sum() / b.square().sum()).item()


def test_a_gram_matrix_is_the_mean_product_of_channels_over_positions():
    maps = torch.rand(2, 3, 4, 5)
    expected = torch.zeros(2, 3, 3)
    for row in range(4):
        for column in range(5):
            a = maps[:, :, row, column]
            expected += a[:, :, None] * a[:, None, :] / 20
    assert torch.allclose(gram(maps), expected, atol=1e-6)
    assert torch.allclose(gram(maps.flip(3)), gram(maps), atol=1e-6)  # where things are is no style


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("start", ["content", "noise"])
@torch.no_grad()
def test_the_result_has_the_style_and_the_content(network, optimizer, start):
    content, style = stripes(False) * 0.6 + 0.2, stripes(True, 32, 40)
    options = {
        "content_layers": ["4"],
        "style_layers": ["1", "4"],
        "steps": 40,
        "optimizer": optimizer,
        "start": start,
    }
    result = transfer(network, content, style, content_weight=0.1, **options)
    assert result.shape == content.shape and result.min() >= 0 and result.max() <= 1
    assert style_distance(network, result, style) < 0.5 * style_distance(network, content, style)
    kept = transfer(network, content, style, style_weight=0.1, **options)
    assert content_distance(network, kept, content) < content_distance(network, result, content)


def test_total_variation_smooths(network):
    content, style = stripes(False), stripes(True)
    layers = {"content_layers": ["4"], "style_layers": ["1"], "steps": 15}
    rough, smooth = (transfer(network, content, style, variation_weight=w, **layers) for w in (0.0, 100.0))
    assert total_variation(smooth) < 0.5 * total_variation(rough)
    assert total_variation(torch.full((1, 3, 8, 8), 0.3)) == 0


def test_images_are_worked_on_one_by_one(network):
    contents = torch.cat([stripes(False), stripes(True) * 0.5])
    layers = {"content_layers": ["4"], "style_layers": ["1"], "steps": 5}
    together = transfer(network, contents, stripes(True), **layers)
    assert torch.allclose(together[1:], transfer(network, contents[1:], stripes(True), **layers), atol=1e-5)


def test_the_network_is_left_as_it_was(network):
    network.train()
    rng = torch.get_rng_state()
    transfer(
        network,
        stripes(False),
        stripes(True),
        content_layers=["4"],
        style_layers=["1"],
        steps=2,
        start="noise",
    )
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(m.training for m in network.modules())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"start": "nowhere"}, "start is 'nowhere', expected 'content' or 'noise'"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd', expected 'lbfgs' or 'adam'"),
        ({"style_layers": ["5"]}, "unknown layer '5'"),
        ({"style_layers": [], "content_layers": []}, "both empty"),
        ({"style": torch.rand(3, 3, 32, 32)}, r"expected \[N, C, H, W\] and \[1 or N, C, h, w\]"),
    ],
)
def test_bad_arguments_are_said(network, wrong, words):
    arguments = {
        "content": stripes(True),
        "style": stripes(False),
        "content_layers": ["4"],
        "style_layers": ["1"],
    }
    with pytest.raises(ValueError, match=words):
        transfer(network, **{**arguments, **wrong}, steps=1)


def test_the_analysis_shows_content_style_and_result(network):
    images = torch.cat([stripes(False), stripes(True)])
    probes = Probes(images, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    subject = Subject(network, probes, [], ["a"], {"1": [0], "4": [1]})
    (figure,) = Style(steps=2)(subject)
    assert figure.key == "probe-000/in-the-style-of-001" and figure.image.shape == (32, 100, 3)
    with pytest.raises(ValueError, match="probe 7 is asked for, and there are 2"):
        list(Style(style=7)(subject))
    assert not Style().enabled
