import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from vitrine import modules
from vitrine.analyses.layers import auto_layers, choose_units, last_layers
from vitrine.core.registry import UnknownName


def build(name):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("resnet18", 64, "relu layer1 layer2 layer3 layer4"),
        pytest.param("resnet50", 64, "relu layer1 layer2 layer3 layer4", marks=pytest.mark.slow),
        ("squeezenet1_0", 127, "features.1 features.5 features.10 features.12"),
        pytest.param(
            "densenet121",
            64,
            "features.relu0 features.denseblock1 features.denseblock2 features.denseblock3 "
            "features.denseblock4",
            marks=pytest.mark.slow,
        ),
        ("googlenet", 64, "conv1 conv3 inception3b inception4e inception5b"),
        ("mobilenet_v2", 64, "features.1 features.3 features.6 features.13 features.18"),
        ("shufflenet_v2_x0_5", 64, "conv1 maxpool stage2 stage3 conv5"),
        pytest.param(
            "efficientnet_b0",
            64,
            "features.1 features.2 features.3 features.5 features.8",
            marks=pytest.mark.slow,
        ),
        (
            "regnet_x_400mf",
            64,
            "stem trunk_output.block1 trunk_output.block2 trunk_output.block3 trunk_output.block4",
        ),
        pytest.param(
            "convnext_tiny", 64, "features.1 features.3 features.5 features.7", marks=pytest.mark.slow
        ),
        pytest.param(
            "swin_t",
            112,
            "features.1.1.mlp.1 features.3.1.mlp.1 features.5.5.mlp.1 features.7.1.mlp.1 features.7",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_last_block_at_each_resolution_is_found_whatever_the_architecture(name, size, layers):
    assert auto_layers(build(name), torch.rand(1, 3, size, size)) == layers.split()


def test_of_a_transformer_hidden_units_of_four_blocks_over_the_depth_and_the_last_block_are_taken():
    images = torch.rand(1, 3, 32, 32)
    network = torchvision.models.VisionTransformer(32, 8, 9, 2, 16, 32, num_classes=5)
    block = "encoder.layers.encoder_layer_"
    assert last_layers(network, images) == [f"{block}8"]
    assert auto_layers(network, images) == [*(f"{block}{i}.mlp.1" for i in (1, 3, 5, 8)), f"{block}8"]
    assert isinstance(network.get_submodule(f"{block}8.mlp.1"), nn.GELU)
    chosen = choose_units(network, images, units=4)
    assert chosen[f"{block}8.mlp.1"] == (0, 8, 16, 24)  # of 32 hidden units
    assert chosen[f"{block}8"] == (0, 4, 8, 12)  # of 16 residual channels


def test_of_windowed_transformers_hidden_units_of_the_last_block_at_each_resolution_are_taken():
    sizes = {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": [2, 2], "num_classes": 5}
    network = torchvision.models.SwinTransformer([4, 4], **sizes)
    images = torch.rand(1, 3, 32, 32)
    assert last_layers(network, images) == ["features.1", "features.3"]
    assert auto_layers(network, images) == ["features.1.1.mlp.1", "features.3.0.mlp.1", "features.3"]


class Mixed(nn.Module):
    """A convolution and blocks with attention after it, whose activation is a module or a function."""

    def __init__(self, activation, gated=False):
        super().__init__()
        self.stem, self.patches = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 2, 2)
        self.blocks = nn.ModuleList(HandMade(activation, gated) for _ in range(5))
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        x = self.patches(self.stem(images).relu()).flatten(2).mT
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class HandMade(nn.Module):
    def __init__(self, activation, gated):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.widen, self.narrow = nn.Linear(8, 24 * (1 + gated)), nn.Linear(24, 8)
        self.activation, self.drop, self.gated = activation and activation(), nn.Dropout(), gated

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        hidden = self.widen(x)
        if self.gated:
            gate, hidden = hidden.chunk(2, -1)
            return x + self.narrow(self.drop(gate.sigmoid() * hidden))
        return x + self.narrow(self.drop(self.activation(hidden) if self.activation else hidden.tanh()))


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (Mixed(nn.SiLU), "blocks.{}.activation"),
        (Mixed(None), "blocks.{}.drop"),  # the dropout gives what the function gave
        (Mixed(None, gated=True), "blocks.{}.drop"),
    ],
)
def test_hidden_units_are_found_however_a_block_is_written(network, layer):
    layers = ["stem", *(layer.format(i) for i in (0, 1, 2, 4)), "blocks.4"]
    assert auto_layers(network, torch.rand(1, 3, 16, 16)) == layers
    chosen = choose_units(network, torch.rand(1, 3, 16, 16), units=100)
    assert [len(units) for units in chosen.values()] == [8, 24, 24, 24, 24, 8]


@pytest.mark.slow
def test_a_chain_of_single_layers_is_cut_before_each_pool():
    network = nn.Sequential(make_layers(cfgs["D"]), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 5))
    assert auto_layers(network, torch.rand(1, 3, 64, 64)) == ["0.3", "0.8", "0.15", "0.22", "0.29", "0.30"]


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.normalize, self.network = nn.BatchNorm2d(3, affine=False), build("resnet18")

    def forward(self, x):
        return self.network(self.normalize(x))


def test_wrappers_and_normalisation_are_seen_through():
    layers = [f"network.{name}" for name in ("relu", "layer1", "layer2", "layer3", "layer4")]
    assert auto_layers(Wrapped(), torch.rand(1, 3, 64, 64)) == layers


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("convnet", ["features.0", "features.2", "features.4"]),
        ("resnet20", ["layer1", "layer2", "layer3"]),
        ("vit_tiny_4", [*(f"blocks.{i}.mlp.act" for i in (0, 2, 3, 5)), "blocks.5"]),
        ("perceptron", ["linear"]),
    ],
)
def test_our_own_networks_have_layers_to_look_at(name, layers):
    network = modules.load_network(name, classes=5, image_size=32)
    assert auto_layers(network, torch.rand(2, 3, 32, 32)) == layers


def test_the_network_is_left_as_it_was():
    network = build("resnet18").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        choose_units(network, torch.rand(1, 3, 64, 64))
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_units_are_evenly_spaced_channels_and_all_where_there_are_fewer():
    network = nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.Conv2d(64, 6, 3, 2))
    assert choose_units(network, torch.rand(1, 3, 16, 16), units=8) == {
        "0": (0, 8, 16, 24, 32, 40, 48, 56),
        "1": (0, 1, 2, 3, 4, 5),
    }


def test_named_layers_come_shallow_to_deep_with_the_units_named():
    network = build("resnet18")
    chosen = choose_units(network, torch.rand(1, 3, 64, 64), ["layer4", "layer1.0.conv1"], [3, 60])
    assert list(chosen.items()) == [("layer1.0.conv1", (3, 60)), ("layer4", (3, 60))]


def test_wrong_names_and_units_are_answered_with_what_is_right():
    network, images = build("resnet18"), torch.rand(1, 3, 64, 64)
    with pytest.raises(UnknownName, match="did you mean layer3"):
        choose_units(network, images, ["layer33"])
    with pytest.raises(ValueError, match=r"unit 64 .* layer 'layer1' has channels 0 to 63"):
        choose_units(network, images, ["layer1"], [64])
    with pytest.raises(ValueError, match="units is 0"):
        choose_units(network, images, ["layer1"], 0)
