import pytest
import torch
from torch import nn

from vitrine.analyses.head import NoLinearHead, head_inputs, linear_head
from vitrine.modules.network_search import examinable_copy

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(*tail):
    torch.manual_seed(0)
    trunk = (nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*trunk, *tail).requires_grad_(False)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(192, 4), nn.Linear(192, 4)

    def forward(self, images):
        return (self.first(images.flatten(1)) + self.second(images.flatten(1))) / 2


class LaterHead(nn.Module):
    """The head is given its input by name, and two others are called after it, one as wide as it is."""

    def __init__(self):
        super().__init__()
        self.head, self.auxiliary, self.embedding = (nn.Linear(192, n) for n in (4, 4, 7))

    def forward(self, images):
        features = images.flatten(1)
        logits = self.head(input=features)
        self.auxiliary(features)
        return {"logits": logits, "embedding": self.embedding(features)}


class TokenMean(nn.Module):
    def forward(self, tokens):
        return tokens.mean(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("convolution", [True, False])
def test_what_the_head_reads_gives_the_logits(bias, convolution):
    tail = (nn.Conv2d(6, 4, 1, bias=bias), nn.Flatten())
    net = network(*(tail if convolution else (nn.Flatten(), nn.Linear(6, 4, bias=bias)))).train()
    head = linear_head(net, IMAGES)
    batches = [(IMAGES[:3], torch.zeros(3)), (IMAGES[3:], torch.ones(2))]
    features, logits, labels = map(torch.cat, zip(*head_inputs(net, head, batches)))
    if bias:
        features = torch.cat([features, torch.ones(5, 1)], 1)
    assert net.training and labels.tolist() == [0, 0, 0, 1, 1]
    torch.testing.assert_close((features.double() @ head.augmented.T).float(), logits)
    torch.testing.assert_close(logits, net.eval()(IMAGES))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_the_head_is_the_layer_that_gives_the_logits_whatever_is_called_after_it():
    torch.manual_seed(0)
    net = examinable_copy(LaterHead(), None)
    head = linear_head(net, IMAGES)
    assert head.name == "head"
    ((features, logits, _),) = head_inputs(net, head, [(IMAGES, torch.zeros(5))])
    assert torch.equal(features, IMAGES.flatten(1))
    torch.testing.assert_close(features @ head.weight.T + head.bias, logits)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (network(nn.Flatten()), "has no linear head: its head, '0', is a convolution"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "no linear layer"),
        (network(nn.Flatten(), nn.Linear(6, 4), nn.Softmax(1)), "something follows it"),
        (network(nn.Flatten(), nn.Linear(6, 4), nn.ReLU()), "something follows it"),
        (TwoHeads(), "the mean of two heads"),
        (nn.Sequential(nn.Linear(8, 4), nn.Flatten(), nn.ReLU()), "'0', has 4 outputs for 96 logits"),
        (
            nn.Sequential(nn.Flatten(2), nn.Linear(64, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            "reads 3 x 64",
        ),
    ],
)
def test_a_network_without_a_linear_head_is_refused(net, reason):
    if reason.endswith("convolution"):
        net[0] = nn.Conv2d(3, 6, 1)
    with pytest.raises(NoLinearHead, match=reason):
        linear_head(net, IMAGES)


def test_logits_that_are_not_finite_are_refused():
    net = network(nn.Flatten(), nn.Linear(6, 4))
    net[-1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        linear_head(net, IMAGES)
