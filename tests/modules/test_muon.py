"""optimizer.name=muon: torch's Muon for inner matrices, AdamW for the rest; resumed exactly."""

import copy
import io

import pytest
import torch
from torch import nn

from vitrine.core.settings import SettingError
from vitrine.modules.optimizers import OptimizerSettings, build_optimizer

SETTINGS = OptimizerSettings("muon", lr=0.01, weight_decay=0.1, schedule="constant", momentum=0.9)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 5), nn.ReLU(), nn.Linear(5, 3))


def train(net, parts, steps):
    optimizer, scheduler = parts
    for step in steps:
        images = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(images).logsumexp(1).sum().backward()
        optimizer.step()
        scheduler.step()


def test_inner_matrices_are_torchs_muon_s_and_the_rest_adamw_s():
    net = network()
    other = copy.deepcopy(net)
    train(net, build_optimizer(SETTINGS, net, 10), range(4))
    rest = {"params": [other[0].weight, other[4].weight]}
    vectors = {"params": [p for p in other.parameters() if p.ndim == 1], "weight_decay": 0}
    muon = torch.optim.Muon(
        [other[2].weight], 0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([rest, vectors], 0.01, weight_decay=0.1)
    for step in range(4):
        images = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(step))
        other.zero_grad()
        other(images).logsumexp(1).sum().backward()
        muon.step(), adamw.step()
    for key, value in other.state_dict().items():
        assert torch.equal(net.state_dict()[key], value), key


def test_a_resumed_muon_goes_on_bit_for_bit():
    whole, first, second = network(), network(), network()
    train(whole, build_optimizer(SETTINGS, whole, 10), range(6))
    parts = build_optimizer(SETTINGS, first, 10)
    train(first, parts, range(2))
    file = io.BytesIO()
    torch.save([first.state_dict(), *(part.state_dict() for part in parts)], file)
    file.seek(0)
    resumed = build_optimizer(SETTINGS, second, 10)
    for part, state in zip((second, *resumed), torch.load(file, weights_only=True)):
        part.load_state_dict(state)
    train(second, resumed, range(2, 6))
    for key, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_frozen_matrices_stay_and_layers_decay():
    net = network()
    net[2].weight.requires_grad_(False)
    before = net[2].weight.clone()
    settings = OptimizerSettings("muon", lr=0.01, layer_decay=0.5, schedule="constant")
    parts = build_optimizer(settings, net, 10, frozen=["2.weight"])
    rates = {id(p): g["lr"] for g in parts[0].param_groups for p in g["params"]}
    assert [rates[id(net[i].weight)] for i in (0, 2, 4)] == [0.0025, 0.005, 0.01]
    train(net, parts, range(2))
    assert torch.equal(net[2].weight, before)


def test_a_network_without_inner_matrices_is_refused():
    with pytest.raises(SettingError, match=r"optimizer\.name: is muon, which is for matrices"):
        build_optimizer(SETTINGS, nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 3)), 10)
