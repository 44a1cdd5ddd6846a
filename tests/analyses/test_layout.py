"""Which axes hold channels, rows and columns: each case against maps put together by hand."""

import pytest
import torch
import torchvision
from torch import nn

from vitrine.analyses.activations import activations
from vitrine.analyses.cam import grad_cam
from vitrine.analyses.dream import dream
from vitrine.analyses.examples import top_examples
from vitrine.analyses.features import channel, visualize
from vitrine.analyses.layers import choose_units
from vitrine.analyses.layout import Layout, layouts
from vitrine.analyses.receptive_field import receptive_field
from vitrine.analyses.style import transfer


def images(height, width, channels=3, count=2):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


def raw_output(network, x, layer):
    """What the layer gives, as it gives it."""
    outputs = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    with torch.no_grad():
        network.eval()(x)
    handle.remove()
    return outputs[0]


class Squares(nn.Module):
    """Channel c of the map at (i, j) is (c + 1) times the pixel there."""

    def __init__(self, count, last):
        super().__init__()
        self.count, self.last = count, last
        self.layer = nn.Identity()
        self.weight = nn.Parameter(torch.arange(1.0, count + 1)[:, None, None, None])

    def forward(self, x):
        maps = torch.nn.functional.conv2d(x, self.weight)
        maps = maps.permute(0, 2, 3, 1) if self.last else maps
        maps = self.layer(maps)
        return maps.mean((1, 2)) if self.last else maps.mean((2, 3))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (8, 6), (6, 6), (12, 6), (2, 3)])
def test_maps_as_high_or_wide_as_they_have_channels_are_read_by_position(last, size):
    network, x = Squares(6, last), images(*size, channels=1)
    factors = torch.arange(1.0, 7)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(activations(network, x, ["layer"])["layer"], x * factors)
    assert layouts(network, x, ["layer"])["layer"].axes == ("NHWC" if last else "NCHW")
    planted = torch.zeros(1, 1, *size)
    planted[0, 0, 1, 2] = 1  # read by number and position everywhere
    top = top_examples(network, [(planted, torch.zeros(1, dtype=torch.int64))], ["layer"], 1)["layer"]
    assert top.values[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert top.positions[:, 0].tolist() == [[1, 2]] * 6
    assert receptive_field(network, "layer", (1, 2), size, channels=1).tolist() == [1, 2, 2, 3]
    assert choose_units(network, planted, ["layer"], [5]) == {"layer": (5,)}
    with pytest.raises(ValueError, match=r"unit 6 .* channels 0 to 5"):
        choose_units(network, planted, ["layer"], [6])
    cam = grad_cam(network, planted, 0, "layer")  # the mean of channel 0
    torch.testing.assert_close(cam, planted[:, 0] / planted[0, 0].numel())


@pytest.mark.parametrize("last", [False, True])
def test_a_unit_by_number_is_excited_dreamt_and_matched_in_either_layout(last):
    network = Squares(16, last)
    for p in network.parameters():
        p.requires_grad_(False)
    network.weight[3] = -1  # of all channels only this one wants black
    grey = torch.full((1, 1, 16, 16), 0.5)
    options = {"size": 16, "steps": 8, "seed": 0, "transforms": None, "warm_start": grey}
    dark = visualize(network, [channel("layer", 3)], parameterization="pixels", **options)
    bright = visualize(network, [channel("layer", 4)], parameterization="pixels", **options)
    assert dark.mean() < 0.5 < bright.mean()
    x, either = images(16, 24, 1, 1), [Squares(16, which) for which in (last, False)]
    dreamt = [dream(network, x, "layer", octaves=1, steps=2) for network in either]
    torch.testing.assert_close(*dreamt)
    layers = {"content_layers": [], "style_layers": ["layer"]}
    torch.testing.assert_close(*(transfer(network, x, x.flip(2), **layers, steps=2) for network in either))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("size", [(6, 9), (1, 9), (9, 1), (2, 2), (1, 1)])
def test_maps_of_one_channel_are_read_by_position(last, size):
    network, x = Squares(1, last), images(*size, channels=1)
    with torch.no_grad():
        torch.testing.assert_close(activations(network, x, ["layer"])["layer"], x)


class Vectors(nn.Module):
    """Channels without extent, as maps of one position."""

    def __init__(self, last, channels=2):
        super().__init__()
        self.conv, self.layer, self.last = nn.Conv2d(3, channels, 3), nn.Identity(), last

    def forward(self, x):
        x = self.conv(x).mean((2, 3))[:, :, None, None]
        return self.layer(x.permute(0, 2, 3, 1) if self.last else x).flatten(1)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 7])
def test_the_channels_of_a_pooled_map_are_no_positions(last, channels):
    network = Vectors(last, channels)
    assert activations(network, images(9, 9), ["layer"])["layer"].shape == (2, channels, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("swin_t", (64, 96), "features.7"),
        ("swin_t", (64, 96), "features.3"),
        ("swin_v2_t", (64, 96), "features.5"),
        ("convnext_tiny", (64, 96), "features.1.0.block.2"),  # a layer norm, inside a block
    ],
)
def test_channels_last_maps_of_oblong_images_are_turned(name, size, layer):
    network, x = torchvision.models.get_model(name, weights=None).eval(), images(*size)
    raw = raw_output(network, x, layer)
    with torch.no_grad():
        assert torch.equal(activations(network, x, [layer])[layer], raw.permute(0, 3, 1, 2))
    assert grad_cam(network, x, 1, layer).shape == raw.shape[:3]


@pytest.mark.slow
def test_a_convnext_map_as_high_as_it_has_channels_is_not_turned():
    network, x = torchvision.models.convnext_tiny().eval(), images(384, 256, count=1)
    raw = raw_output(network, x, "features.1")
    assert raw.shape == (1, 96, 96, 64)
    with torch.no_grad():
        assert torch.equal(activations(network, x, ["features.1"])["features.1"], raw)


def test_blocks_of_a_network_for_one_size_of_image():
    network = torchvision.models.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 8, 0.0, num_classes=3).eval()
    with torch.no_grad():
        maps = activations(network, images(32, 32), ["stem", "blocks.0", "blocks.1"])
    assert torch.equal(maps["blocks.0"], raw_output(network, images(32, 32), "blocks.0"))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(8, 16, 16), (8, 8, 8), (16, 4, 4)]


class Tokens(nn.Module):
    """Patches of an image as tokens, with prefix tokens before them and others after, through attention."""

    def __init__(self, prefix, suffix=0, first=False, grid=(3, 5), local=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 8))
        self.suffix = nn.Parameter(torch.randn(1, suffix, 8))
        self.places = nn.Parameter(torch.randn(1, grid[0] * grid[1], 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.layer, self.head, self.channels_first = nn.Identity(), nn.Linear(8, 3), first

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.places
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x, self.suffix.expand(len(x), -1, -1)], 1)
        x = self.block(x)
        return self.head(x.mean(1) if not self.channels_first else self.layer(x.mT).mT.mean(1))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (2, 8), (1, 6), (6, 1)])
def test_prefix_tokens_are_told_from_a_grid_of_any_shape(prefix, grid):
    network, x = Tokens(prefix, grid=grid).eval(), images(4 * grid[0], 4 * grid[1])
    raw = raw_output(network, x, "block")
    with torch.no_grad():
        maps = activations(network, x, ["block"])["block"]
    assert torch.equal(maps, raw[:, prefix:].mT.unflatten(2, grid))
    assert layouts(network, x, ["block"])["block"] == Layout("NTC", grid, prefix)


def test_tokens_after_the_grid_and_channels_before_the_tokens():
    network, x = Tokens(1, suffix=3, first=True).eval(), images(12, 20)
    raw = raw_output(network, x, "block")
    with torch.no_grad():
        maps = activations(network, x, ["block", "layer"])
    assert torch.equal(maps["block"], raw[:, 1:16].mT.unflatten(2, (3, 5)))
    assert torch.equal(maps["layer"], maps["block"])


def test_a_vision_transformer_of_torchvision_by_its_patches():
    network = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).eval()
    x, layer = images(32, 32), "encoder.layers.encoder_layer_2"
    raw = raw_output(network, x, layer)
    with torch.no_grad():
        assert torch.equal(activations(network, x, [layer])[layer], raw[:, 1:].mT.unflatten(2, (4, 4)))


@pytest.mark.parametrize("spoil", ["zeros", "nan", "dead", "half", "double"])
def test_a_layout_does_not_depend_on_what_the_weights_are(spoil):
    network = torchvision.models.SwinTransformer(
        [4, 4], 16, [1, 1, 1], [2, 2, 2], [2, 2], num_classes=3
    ).eval()
    x = images(32, 48)
    with torch.no_grad():
        for parameter in network.parameters():
            if spoil in ("zeros", "nan"):
                parameter.fill_(0.0 if spoil == "zeros" else float("nan"))
            elif spoil == "dead":
                parameter.sub_(1)
    if spoil in ("half", "double"):
        network, x = (t.to({"half": torch.bfloat16, "double": torch.float64}[spoil]) for t in (network, x))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert layouts(network, x, ["features.5"])["features.5"].axes == "NHWC"
    assert layouts(network, x, ["features.0.0"])["features.0.0"].axes == "NCHW"
    after = network.state_dict()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)


def test_a_layout_is_found_once_a_layer_and_again_where_the_layer_is_another():
    network, x = Squares(6, False), images(6, 8, channels=1)
    calls = []
    network.layer.register_forward_hook(lambda *_: calls.append(1))
    for size in ((6, 8), (8, 6), (9, 9)):
        layouts(network, images(*size, channels=1), ["layer"])
    assert len(calls) == 1  # maps of any size are read alike
    network.last, network.layer = True, nn.Sequential(nn.Identity())
    assert layouts(network, x, ["layer"])["layer"].axes == "NHWC"
    tokens = Tokens(1)
    assert layouts(tokens, images(12, 20), ["block"])["block"].grid == (3, 5)
    assert layouts(tokens, images(20, 12), ["block"])["block"].grid == (5, 3)  # tokens are not


def test_scopes_random_numbers_and_hooks_are_left_as_they_were():
    network, x = Tokens(1).train(), images(12, 20)
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    with torch.inference_mode():
        layouts(network, x, ["block"])
    assert torch.equal(torch.get_rng_state(), state) and torch.backends.mha.get_fastpath_enabled() == fast
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


class Windows(nn.Module):
    """Outputs that are no maps of the images: windows as a batch, tables, dense layers across the image."""

    def __init__(self):
        super().__init__()
        self.windows, self.table, self.dense, self.deep = (nn.Identity() for _ in range(4))
        self.mix, self.positions = nn.Linear(3 * 64, 2 * 36), nn.Parameter(torch.randn(1, 6, 6, 5))

    def forward(self, x):
        self.windows(x.unfold(2, 4, 4).unfold(3, 4, 4).movedim(1, 3).flatten(0, 2))
        self.table(self.positions.expand(len(x), -1, -1, -1))
        self.deep(x[:, None])
        return self.dense(self.mix(x.flatten(1)).unflatten(1, (2, 6, 6))).mean((2, 3))


@pytest.mark.parametrize("layer", ["windows", "table", "dense", "deep"])
def test_what_follows_no_image_is_refused_by_name(layer):
    with pytest.raises(ValueError, match=f"the layout of layer '{layer}' cannot be told.*name another layer"):
        activations(Windows(), images(8, 8), [layer])
