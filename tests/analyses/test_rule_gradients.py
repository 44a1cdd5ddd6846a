import pytest
import torch
from torch import nn

from vitrine.analyses.relu_rules import NoRule
from vitrine.analyses.rule_gradients import rule_gradients
from vitrine.analyses.saliency import deconvnet, guided_backprop, input_gradient

ALONE = {"gradient": input_gradient, "guided_backprop": guided_backprop, "deconvnet": deconvnet}
SCORES = {"gradient": "log_prob", "guided_backprop": "logit", "deconvnet": "logit"}
IMAGES = torch.rand(3, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Clamp(nn.Module):
    """A ReLU whose own gradient passes at 0, where the one before it leaves many inputs."""

    def forward(self, x):
        return x.clamp(min=0)


def network(activation):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), activation, nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).eval()


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True), nn.Sequential(nn.ReLU(), Clamp())],
)
def test_one_forward_pass_gives_to_the_bit_what_one_a_rule_gives(activation):
    net, targets = network(activation), torch.tensor([[0, 1, 2], [4, 4, 0]])
    found = rule_gradients(net, IMAGES, SCORES, targets)
    for rule, of in SCORES.items():
        alone = torch.stack([ALONE[rule](net, IMAGES, own, of) for own in targets])
        assert torch.equal(found[rule], alone), rule
        assert torch.equal(rule_gradients(net, IMAGES, {rule: of}, targets[0])[rule], alone[0])


def test_of_units_too_and_below_the_first_relu():
    net, unit = network(nn.ReLU()), {"unit": torch.tensor([0, 3, 1]), "position": (2, 3)}
    for layer in ("0", "2"):
        found = rule_gradients(net, IMAGES, SCORES, layer=layer, **unit)
        for rule in SCORES:
            assert torch.equal(found[rule], ALONE[rule](net, IMAGES, layer=layer, **unit)), (layer, rule)


def test_the_network_is_called_once():
    net, calls = network(nn.ReLU()), []
    with_hook = net.register_forward_hook(lambda *_: calls.append(1))
    rule_gradients(net, IMAGES, SCORES, torch.tensor([[0, 1, 2], [4, 4, 0]]))
    with_hook.remove()
    assert len(calls) == 1


def test_what_has_no_rule_or_no_target_is_refused():
    with pytest.raises(NoRule, match="GELU"):
        rule_gradients(network(nn.GELU()), IMAGES, SCORES, torch.tensor([0, 1, 2]))
    with pytest.raises(NoRule, match="none was met"):
        rule_gradients(nn.Sequential(nn.Flatten(), nn.Linear(300, 2)), IMAGES, SCORES, torch.zeros(3).long())
    with pytest.raises(ValueError, match="targets: expected class indices"):
        rule_gradients(network(nn.ReLU()), IMAGES, SCORES)
