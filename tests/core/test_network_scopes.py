"""A network is left as it was, whatever runs inside a scope (promise 1)."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from vitrine.core import random_state
from vitrine.core.network_scopes import eval_mode, full_isolation


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    network[1].eval()
    network[4].bias.requires_grad_(False)
    network[4].weight.grad = None
    return network


def draw() -> tuple:
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def misbehave(network: nn.Sequential) -> None:
    """Everything an analysis must not do."""
    draw()
    network.eval()
    network[1].train()
    with torch.no_grad():
        network[0].weight.add_(1)
        network[4].bias.data = torch.zeros(5, dtype=torch.float64)
        network[1].running_mean.fill_(7)
    network.requires_grad_(False)
    network[4].bias.requires_grad_(True)
    network[0].weight.grad.zero_()
    network[0].bias.grad = None
    network[4].weight.grad = torch.ones_like(network[4].weight)
    network[0].register_forward_hook(lambda *_: None)
    network[4].register_full_backward_hook(lambda *_: None)
    network[4].bias.register_hook(lambda g: g * 2)
    nn.modules.module.register_module_forward_hook(lambda *_: None)
    network[2].forward = lambda x: x
    network[2] = nn.Tanh()
    network.register_buffer("extra", torch.zeros(1))
    network[0].weight = nn.Parameter(torch.zeros(1))
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    torch.set_autocast_enabled("cpu", True)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True


def process_state() -> list:
    hooks = nn.modules.module
    return [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.conv.fp32_precision,
        torch.get_num_threads(),
        len(hooks._global_forward_hooks),
    ]


def module_state(network: nn.Module) -> list:
    state = []
    for name, module in network.named_modules():
        hooks = sum(len(v) for k, v in vars(module).items() if k.endswith("_hooks") and v)
        state.append((name, id(module), module.training, hooks, "forward" in vars(module)))
    for name, t in [*network.named_parameters(), *network.named_buffers()]:
        grad = None if t.grad is None else (id(t.grad), t.grad.tolist())
        state.append(
            (name, id(t), t.data_ptr(), t.tolist(), grad, t.requires_grad, len(t._backward_hooks or {}))
        )
    return state


@pytest.mark.parametrize("caller", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_analysis_that_misbehaves_and_raises_leaves_everything_as_it_found_it(caller):
    network = small_network()
    with caller():
        random_state.restore(random_state.capture())
        before = module_state(network), process_state()
        rng = random_state.capture()
        expected = draw()
        random_state.restore(rng)
        with pytest.raises(RuntimeError, match="on purpose"), full_isolation(network):
            misbehave(network)
            raise RuntimeError("on purpose")
        assert module_state(network) == before[0]
        assert process_state() == before[1]
        assert draw() == expected


def test_a_hook_that_was_there_can_still_be_removed_by_its_handle():
    network = small_network()
    calls = []
    handle = network[0].register_forward_hook(lambda *_: calls.append(1))
    with full_isolation(network):
        handle.remove()
        network(torch.rand(1, 3, 8, 8))
    assert not calls
    network(torch.rand(1, 3, 8, 8))
    assert len(calls) == 1
    handle.remove()
    network(torch.rand(1, 3, 8, 8))
    assert len(calls) == 1


def test_inside_autograd_records_in_float32_whatever_the_caller_is_in():
    network = small_network()
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), full_isolation(network):
        pixels = images.clone().requires_grad_()
        logits = network(pixels)
        (gradient,) = torch.autograd.grad(logits.sum(), pixels)
    assert logits.dtype == torch.float32
    assert gradient.abs().sum() > 0


@pytest.fixture
def precision():
    """`torch.backends`, whose precisions are put back afterwards."""
    backends = torch.backends
    new = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]
    before = [switch.fp32_precision for switch in new]
    matmul, cudnn = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
    yield backends
    torch.set_float32_matmul_precision(matmul)
    backends.cudnn.allow_tf32 = cudnn
    for switch, value in zip(new, before):
        switch.fp32_precision = value


def precision_state() -> list:
    backends, state = torch.backends, []
    for read in (
        lambda: backends.cuda.matmul.fp32_precision,
        lambda: backends.cudnn.conv.fp32_precision,
        lambda: backends.cudnn.rnn.fp32_precision,
        lambda: backends.mkldnn.matmul.fp32_precision,
        lambda: backends.cuda.matmul.allow_tf32,
        lambda: backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision,
    ):
        try:
            state.append(read())
        except RuntimeError:  # torch refuses to read an older switch that contradicts a newer one
            state.append("unreadable")
    return state


@pytest.mark.parametrize(
    "choose",
    [
        lambda backends: None,
        lambda backends: torch.set_float32_matmul_precision("high"),
        lambda backends: torch.set_float32_matmul_precision("medium"),
        lambda backends: setattr(backends.cuda.matmul, "allow_tf32", True),
        lambda backends: setattr(backends.cudnn, "allow_tf32", False),
        lambda backends: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda backends: setattr(backends.cuda.matmul, "fp32_precision", "ieee"),
        lambda backends: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
        lambda backends: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
    ],
)
def test_float32_is_float32_by_the_older_and_the_newer_switches_and_returns_to_what_it_was(precision, choose):
    choose(precision)
    before = precision_state()
    with full_isolation(), full_isolation():
        inside = precision_state()
        if before[5] != "unreadable":  # else a network that asks fails outside, too
            with precision.cudnn.flags(enabled=True, benchmark=False):
                pass
    assert inside[:5] == ["ieee"] * 4 + [False] and inside[6] == "highest"
    assert inside[5] is False or before[5] == "unreadable"
    assert precision_state() == before


def test_a_weight_shared_by_two_modules_and_an_absent_one_are_handled():
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    before = network[0].weight.detach().clone()
    with full_isolation(network, network[1]), torch.no_grad():
        network[1].weight.zero_()
    assert torch.equal(network[0].weight, before)
    assert network[1].weight is network[0].weight


def test_random_states_are_plain_enough_to_be_loaded_safely(tmp_path):
    torch.save(random_state.capture(), tmp_path / "state.pt")
    expected = draw()
    draw()
    random_state.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_generators_of_every_gpu_are_put_back():
    torch.cuda.init()
    before = torch.cuda.get_rng_state_all()
    with full_isolation():
        torch.rand(3, device="cuda")
    assert all(torch.equal(a, b) for a, b in zip(before, torch.cuda.get_rng_state_all()))


def test_every_submodule_s_own_mode_returns():
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()), nn.Dropout())
    network[1].eval()
    modes = [module.training for module in network.modules()]
    with pytest.raises(RuntimeError), eval_mode(network):
        assert not any(module.training for module in network.modules())
        raise RuntimeError
    assert [module.training for module in network.modules()] == modes
