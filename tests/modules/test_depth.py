"""Layer-wise learning rate decay: which block each parameter is of."""

import pytest
import torch
from torch import nn

from vitrine.core.settings import SettingError
from vitrine.modules import OptimizerSettings, load_network
from vitrine.modules.depth import parameter_depths
from vitrine.modules.optimizers import build_optimizer


def network(name, **options):
    with torch.device("meta"):
        return load_network(name, classes=7, mean=[0.5] * 3, std=[1] * 3, **options)


def test_a_vision_transformer_s_depths_are_those_of_beit():
    depths = parameter_depths(network("vit_b_16"))

    def expected(name):
        block = name.removeprefix("encoder.layers.encoder_layer_").split(".")[0]
        if block.isdigit():
            return int(block) + 1
        return 13 if name.startswith("heads") else 12 if name.startswith("encoder.ln") else 0

    assert depths == {name: expected(name) for name in depths} and len(depths) == 152


def test_a_residual_network_s_depths_are_its_blocks_also_where_it_is_a_part_of_another():
    class Own(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.head = nn.Linear(7, 2)  # defined first, and the last layer is nevertheless another
            self.body = body

    body = network("resnet18")
    places = ["conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1", "layer4.0"]
    places += ["layer4.1", "fc"]
    depths = parameter_depths(body)
    assert {p: {d for n, d in depths.items() if n.startswith(p)} for p in places} == {
        place: {depth} for depth, place in enumerate(places)
    }
    assert depths["bn1.weight"] == 0
    inner = {n.removeprefix("body."): d for n, d in parameter_depths(Own(body)).items() if n[:4] == "body"}
    assert {n: d - inner["conv1.weight"] for n, d in inner.items()} == depths


@pytest.mark.parametrize(
    "name, blocks", [("vgg11", 11), ("squeezenet1_0", 10), ("convnext_tiny", 23), ("googlenet", 13)]
)
def test_other_networks_have_as_many_depths_as_blocks_or_layers_one_after_another(name, blocks):
    assert sorted(set(parameter_depths(network(name)).values())) == list(range(blocks))


def test_the_learning_rate_falls_by_the_factor_from_block_to_block():
    net = load_network("convnet", classes=3, widths=[2, 2, 2])
    settings = OptimizerSettings("sgd", lr=0.8, layer_decay=0.5, schedule="constant", weight_decay=0.1)
    optimizer, _ = build_optimizer(settings, net, 10)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    names = {name: found[id(p)] for name, p in net.named_parameters()}
    for place, rate in (("features.0", 0.1), ("features.1", 0.2), ("features.2", 0.4)):
        assert names[f"{place}.0.weight"] == (rate, 0.1) and names[f"{place}.1.weight"] == (rate, 0)
    assert names["head.weight"] == (0.8, 0.1) and names["head.bias"] == (0.8, 0)


def test_a_network_without_blocks_has_nothing_to_decay():
    with pytest.raises(SettingError, match=r"optimizer\.layer_decay: is 0\.5, but Linear has no blocks"):
        build_optimizer(OptimizerSettings(layer_decay=0.5), nn.Linear(2, 2), 10)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "deit3_small_patch16_224", "mixer_s32_224"]
)
def test_the_learning_rates_are_timm_s(name):
    optim = pytest.importorskip("timm.optim", reason="timm is not installed")
    net = load_network(f"timm/{name}", classes=7)
    theirs = optim.param_groups_layer_decay(net, weight_decay=0.1, layer_decay=0.75)
    expected = {id(p): (0.5 * g["lr_scale"], g["weight_decay"]) for g in theirs for p in g["params"]}
    settings = OptimizerSettings("sgd", lr=0.5, layer_decay=0.75, weight_decay=0.1, schedule="constant")
    optimizer, _ = build_optimizer(settings, net, 10)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    for key, p in net.named_parameters():
        assert found[id(p)] == pytest.approx(expected[id(p)]), key
