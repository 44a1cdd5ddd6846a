import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, GuidedBackprop
from torch import nn

from vitrine.analyses.relu_rules import NoRule, ReluRule, deconvnet_relu, guided_relu
from vitrine.analyses.saliency import deconvnet as deconvnet_map
from vitrine.analyses.saliency import guided_backprop

RELUS = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU(inplace)": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu(inplace)": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu(input=)": lambda x: torch.relu(input=x),
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_, its result unused": lambda x: (x.relu_(), x)[1],
    "F.threshold": lambda x: F.threshold(x, 0, 0),
    "nn.Threshold(inplace)": nn.Threshold(0.0, 0.0, inplace=True),
    "F.threshold_": lambda x: F.threshold_(x, 0, 0),
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "torch.clamp": lambda x: torch.clamp(x, 0),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp_": lambda x: x.clamp_(min=0.0),
    "clamp of a view in place": lambda x: (x[:, :3].relu_(), x[:, 3:].relu_(), x)[2],
    "chunks": lambda x: torch.cat([F.relu(part) for part in x.chunk(2, 1)], 1),
}
RELU6S = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6(inplace)": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0.0, 6.0),
    "nn.Hardtanh": nn.Hardtanh(0, 6),
    "clamp(0, 6)": lambda x: x.clamp(0, 6),
    "clip_": lambda x: x.clip_(0, 6),
}


class Spelled(nn.Module):
    """Two convolutions and a skip; the ReLU between them, whichever it is, is used twice."""

    def __init__(self, relu):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv1, self.conv2, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.relu = relu

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x) + x)
        return self.head(x.mean((2, 3)))


class Rectifier(nn.Module):
    """A ReLU written with the rule inside: what the scope is to make of any spelling."""

    def __init__(self, rule, ceiling):
        super().__init__()
        self.rule, self.ceiling = rule, ceiling

    def forward(self, x):
        passes = (x > 0) if self.ceiling is None else (x > 0) & (x < self.ceiling)
        y = x.detach().clamp(0, self.ceiling)
        if self.rule == "guided":  # a ReLU's slope, and a hook for the incoming signal
            y = y + (x - x.detach()) * passes
        else:
            y = y + (x - x.detach())
        y.register_hook(lambda signal: signal.clamp(min=0))
        return y


def images():
    return torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", [*RELUS, *RELU6S])
def test_every_spelling_of_a_relu_is_given_the_rule(name, rule):
    relu, ceiling = (RELUS[name], None) if name in RELUS else (RELU6S[name], 6.0)
    network, by_hand = Spelled(relu), Spelled(Rectifier(rule, ceiling))
    x, targets = images(), torch.tensor([0, 1, 2, 3, 0])
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(by_hand(leaf).gather(1, targets[:, None]).sum(), leaf)[0]
    found = (guided_backprop if rule == "guided" else deconvnet_map)(network, x, targets)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(x), by_hand(x))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(guided_backprop, GuidedBackprop), (deconvnet_map, Deconvolution)]
)
def test_captum_agrees_where_relus_are_modules_used_once(ours, theirs):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 25, 4)
    )
    x, targets = images(), torch.tensor([0, 1, 2, 3, 0])
    expected = theirs(network).attribute(x.clone().requires_grad_(), target=targets)
    torch.testing.assert_close(ours(network, x, targets), expected, rtol=1e-5, atol=1e-5)


def test_forward_values_and_the_untouched_branch_of_a_skip_are_those_of_a_relu():
    x = torch.tensor([[-1.0, 2.0, 8.0]], requires_grad=True)
    for rule, expected in ((guided_relu, [0.0, 1.0, 0.0]), (deconvnet_relu, [1.0, 1.0, 1.0])):
        y = rule(x, 6.0)
        assert y.tolist() == [[0.0, 2.0, 6.0]]
        assert torch.autograd.grad((y + 3 * x).sum(), x)[0].tolist() == [[e + 3 for e in expected]]


def test_a_clipped_image_is_not_taken_for_a_relu():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    with ReluRule(guided_relu) as relus:
        network(torch.rand(1, 3, 1, 1).clamp(0, 1))
        F.hardtanh(torch.rand(3))
    assert relus.count == 0


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(), "GELU"),
        (nn.GELU("tanh"), "GELU"),
        (nn.SiLU(inplace=True), "SiLU"),
        (F.hardswish, "Hardswish"),
        (nn.ELU(), "ELU"),
        (torch.selu, "SELU"),
        (nn.LeakyReLU(), "leaky ReLU"),
        (nn.PReLU(), "PReLU"),
        (nn.Mish(), "Mish"),
        (nn.Softplus(), "softplus"),
    ],
)
def test_an_activation_without_an_agreed_rule_is_refused_by_name_with_the_alternative(activation, name):
    network = Spelled(lambda x: activation(F.relu(x)))
    with pytest.raises(NoRule, match=f"uses {name}: .*integrated_gradients"):
        guided_backprop(network, images(), torch.zeros(5, dtype=torch.int64))


def test_a_network_in_which_no_relu_is_met_is_an_error():
    network = nn.Sequential(nn.Flatten(), nn.Linear(243, 4), nn.Sigmoid())
    with pytest.raises(NoRule, match="none was met"):
        guided_backprop(network, images(), torch.zeros(5, dtype=torch.int64))
