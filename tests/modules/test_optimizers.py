import io
import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim import lr_scheduler

from vitrine.core.settings import SettingError
from vitrine.modules.optimizers import OptimizerSettings, build_optimizer

STEPS = 40


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(3))


def ready():
    net = network()
    net(torch.zeros(2, 1, 5, 5))
    return net


def rates(settings, steps=STEPS):
    optimizer, scheduler = build_optimizer(settings, ready(), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def torchs(make, lr=0.1):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_rises_linearly_and_falls_as_half_a_cosine():
    found = rates(OptimizerSettings(lr=0.1, schedule="cosine", warmup=0.25))
    rise = [0.1 * (t + 1) / 11 for t in range(10)]
    fall = [0.05 * (1 + math.cos(math.pi * (t - 10) / 30)) for t in range(10, 40)]
    assert found == pytest.approx(rise + fall)


def test_cosine_without_warmup_is_torchs():
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS))
    assert rates(OptimizerSettings(lr=0.1, schedule="cosine", warmup=0.0)) == pytest.approx(expected)


def test_piecewise_is_torchs_multistep():
    expected = torchs(lambda o: lr_scheduler.MultiStepLR(o, [20, 30], gamma=0.2))
    settings = OptimizerSettings(lr=0.1, schedule="piecewise", milestones=[0.5, 0.75], gamma=0.2)
    assert rates(settings) == pytest.approx(expected)


@pytest.mark.parametrize("share", [None, 0.5])
def test_one_cycle_is_torchs(share):
    start = 0.3 if share is None else share
    expected = torchs(
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.1, total_steps=STEPS + 1, pct_start=start, cycle_momentum=False
        )
    )
    settings = OptimizerSettings(lr=0.1, schedule="one_cycle", warmup=share)
    optimizer, scheduler = build_optimizer(settings, ready(), STEPS + 1)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert found == pytest.approx(expected)


def test_cyclic_is_a_triangle():
    expected = np.interp(range(STEPS), [-1, 16, 40], [0, 0.2, 0])
    assert rates(OptimizerSettings(lr=0.2, schedule="cyclic")) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "piecewise", "one_cycle", "cyclic"])
def test_the_rate_is_positive_and_at_most_lr_and_never_negative_after_the_end(schedule):
    for steps in (1, 2, 3, 7):
        found = rates(OptimizerSettings(lr=0.3, schedule=schedule), steps)
        assert all(0 < lr <= 0.3 + 1e-12 for lr in found)
    optimizer, scheduler = build_optimizer(OptimizerSettings(lr=0.3, schedule=schedule), ready(), 3)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert 0 <= optimizer.param_groups[0]["lr"] <= 0.3


@pytest.mark.parametrize("name, schedule", [("sgd", "cosine"), ("adamw", "one_cycle"), ("rmsprop", "cyclic")])
def test_a_resumed_optimizer_goes_on_bit_for_bit(name, schedule):
    settings = OptimizerSettings(name=name, lr=0.01, schedule=schedule)

    def train(net, optimizer, scheduler, steps):
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            images = torch.rand(4, 1, 5, 5, generator=generator)
            optimizer.zero_grad()
            net(images).logsumexp(1).sum().backward()
            optimizer.step()
            scheduler.step()

    whole = ready()
    train(whole, *build_optimizer(settings, whole, STEPS), range(20))
    first = ready()
    parts = build_optimizer(settings, first, STEPS)
    train(first, *parts, range(7))
    file = io.BytesIO()
    torch.save([first.state_dict(), *(part.state_dict() for part in parts)], file)
    file.seek(0)
    second = ready()
    resumed = build_optimizer(settings, second, STEPS)
    for part, state in zip((second, *resumed), torch.load(file, weights_only=True)):
        part.load_state_dict(state)
    train(second, *resumed, range(7, 20))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def test_vectors_have_no_weight_decay_unless_asked_for():
    optimizer, _ = build_optimizer(OptimizerSettings(weight_decay=0.1), ready(), STEPS)
    decays = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {4: 0.1, 2: 0.1, 1: 0.0}
    optimizer, _ = build_optimizer(OptimizerSettings(weight_decay=0.1, decay_all=True), ready(), STEPS)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1]


def test_frozen_parameters_are_left_alone():
    net = ready()
    net[0].requires_grad_(False)
    optimizer, _ = build_optimizer(OptimizerSettings(), net, STEPS)
    kept = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(net[0].weight) not in kept and id(net[3].weight) in kept


def test_options_reach_torchs_optimizer():
    settings = OptimizerSettings(name="adamw", options={"betas": [0.8, 0.9], "eps": 1e-6})
    optimizer, _ = build_optimizer(settings, ready(), STEPS)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9) and optimizer.param_groups[0]["eps"] == 1e-6


@pytest.mark.parametrize(
    "settings, steps, message",
    [
        ({"name": "adm"}, STEPS, "unknown optimizer 'adm': did you mean adam"),
        ({"name": "lbfgs"}, STEPS, "unknown optimizer 'lbfgs'"),
        ({"name": "adam", "options": {"beta": 1}}, STEPS, "optimizer.options.beta: adam has no such option"),
        (
            {"name": "adam", "options": {"betas": [2, 3]}},
            STEPS,
            "optimizer: adam does not take these settings",
        ),
        ({"name": "rprop"}, STEPS, "optimizer.weight_decay: is 0.05, but rprop has none"),
        ({"schedule": "piecewise", "milestones": [0.7, 0.2]}, STEPS, "optimizer.milestones"),
        ({"schedule": "cosine"}, math.inf, "cosine needs a run with an end"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, steps, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_optimizer(OptimizerSettings(**settings), ready(), steps)
    assert "unknown" in message or isinstance(caught.value, SettingError)


def test_a_run_without_an_end_keeps_its_rate():
    optimizer, scheduler = build_optimizer(OptimizerSettings(lr=0.1, schedule="constant"), ready(), math.inf)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_omegaconf_understands_the_settings():
    merged = OmegaConf.merge(OmegaConf.structured(OptimizerSettings), {"milestones": [0.1], "warmup": None})
    settings = OmegaConf.to_object(merged)
    assert settings == OptimizerSettings(milestones=[0.1])
