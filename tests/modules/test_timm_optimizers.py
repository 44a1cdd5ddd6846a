"""timm's optimizers by name."""

import importlib.util
import io
import subprocess
import sys

import pytest
import torch
from torch import nn

from vitrine.core.registry import UnknownName
from vitrine.core.settings import SettingError
from vitrine.modules.optimizers import OptimizerSettings, build_optimizer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3))


def train(net, optimizer, scheduler, steps):
    for step in steps:
        images = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        net(images).logsumexp(1).sum().backward()
        optimizer.step()
        scheduler.step()


def test_torchs_names_need_no_timm_and_timm_s_say_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "timm" else real(n, *a))
    build_optimizer(OptimizerSettings("adamw"), network(), 10)
    for name in ("lamb", "timm/lion"):
        with pytest.raises(SettingError, match=r'optimizer\.name: .*pip install "vitrine\[timm\]"'):
            build_optimizer(OptimizerSettings(name), network(), 10)


def test_an_optimizer_of_torch_imports_no_timm():
    code = (
        "import sys; from torch import nn; from vitrine.modules.optimizers import *;"
        "build_optimizer(OptimizerSettings('sgd'), nn.Linear(2, 2), 10); assert 'timm' not in sys.modules"
    )
    pytest.importorskip("timm", reason="timm is not installed")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["lamb", "lion", "adan", "timm/muon", "lars", "timm/sgd"])
def test_they_are_timm_s_own_and_resumed_bit_for_bit(name):
    optim = pytest.importorskip("timm.optim", reason="timm is not installed")
    settings = OptimizerSettings(name, lr=0.01, schedule="constant", weight_decay=0.1)
    whole, first, second, other = network(), network(), network(), network()
    train(whole, *build_optimizer(settings, whole, 10), range(6))
    parts = build_optimizer(settings, first, 10)
    train(first, *parts, range(2))
    file = io.BytesIO()
    torch.save([first.state_dict(), *(part.state_dict() for part in parts)], file)
    file.seek(0)
    resumed = build_optimizer(settings, second, 10)
    for part, state in zip((second, *resumed), torch.load(file, weights_only=True)):
        part.load_state_dict(state)
    train(second, *resumed, range(2, 6))
    momentum = {"momentum": 0.9, "nesterov": True} if name in ("timm/muon", "lars", "timm/sgd") else {}
    theirs = optim.create_optimizer_v2(
        other, name.removeprefix("timm/"), lr=0.01, weight_decay=0.1, **({"momentum": 0.9} | momentum)
    )
    train(other, theirs, torch.optim.lr_scheduler.ConstantLR(theirs, 1.0), range(6))
    for key, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
        torch.testing.assert_close(other.state_dict()[key], value, msg=key)


def test_every_one_of_them_trains_and_leaves_alone_what_is_frozen():
    optim = pytest.importorskip("timm.optim", reason="timm is not installed")
    refused = []
    for name in optim.list_optimizers():
        net = network()
        net[0].weight.requires_grad_(False)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        try:
            parts = build_optimizer(OptimizerSettings(f"timm/{name}", lr=1e-3), net, 10, frozen=["0.weight"])
        except SettingError as error:
            assert str(error).startswith("optimizer")
            refused.append(name)
            continue
        train(net, *parts, range(2))
        assert torch.equal(net[0].weight, before["0.weight"]), name
        assert not torch.equal(net[3].weight, before["3.weight"]), name
    assert all(n == "adahessian" or n.startswith(("bnb", "fused")) for n in refused), refused


def test_an_unknown_name_is_answered_with_the_nearest_of_both():
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(UnknownName, match="unknown optimizer 'lionn': did you mean lion"):
        build_optimizer(OptimizerSettings("lionn"), network(), 10)
