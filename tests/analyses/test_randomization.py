import copy

import pytest
import torch
from torch import nn
from torchmetrics.functional import spearman_corrcoef

from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.randomization import Randomization, cascade, randomize, rank_correlation


def test_the_rank_correlation_is_torchmetrics_ties_included():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(0, 5, (4, 6, 7), generator=generator).float()
    b = a + torch.randint(0, 3, (4, 6, 7), generator=generator)
    expected = spearman_corrcoef(a.flatten(1).T, b.flatten(1).T)
    torch.testing.assert_close(rank_correlation(a, b), expected)
    assert rank_correlation(a, a).tolist() == pytest.approx([1.0] * 4)
    assert rank_correlation(a, torch.zeros_like(a)).tolist() == [0.0] * 4
    tiled = rank_correlation(a.repeat(1, 64, 64), b.repeat(1, 64, 64))  # the sums of ranks exceed 32 bits
    torch.testing.assert_close(tiled, expected)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


def test_the_cascade_goes_from_the_logits_down_by_the_order_of_computation():
    assert cascade(network(), torch.rand(1, 3, 8, 8), ["2", "4"]) == {
        "head": ["7"],
        "4": ["3"],
        "2": ["0", "1"],
    }


def test_a_containers_own_parameters_are_placed_by_where_they_are_used():
    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.rand(17, 8))
            self.blocks = nn.Sequential(
                *(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in "ab")
            )
            self.scale = nn.ParameterList([nn.Parameter(torch.rand(8))])

        def forward(self, x):
            return self.blocks(x + self.position) * self.scale[0]

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.trunk, self.head = nn.Conv2d(3, 8, 1), Trunk(), nn.Linear(8, 3)
            self.class_token = nn.Parameter(torch.rand(1, 1, 8))

        def forward(self, x):
            x = self.stem(x.to(self.head.weight.dtype)).flatten(2).mT  # looks at what it does not use yet
            return self.head(self.trunk(torch.cat([self.class_token.expand(len(x), -1, -1), x], 1))[:, 0])

    groups = cascade(Tokens().eval(), torch.rand(1, 3, 4, 4), ["trunk.blocks.0", "trunk.blocks.1"])
    assert groups["head"] == ["trunk.scale", "head"]
    assert groups["trunk.blocks.0"][:3] == ["", "stem", "trunk"]
    assert not {"", "trunk", "stem"} & {*groups["trunk.blocks.1"]}


def test_a_transformers_parameters_are_all_in_some_group():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.zeros(16, 8))
            self.block = nn.TransformerEncoderLayer(8, 2, 16, activation="relu", batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.block(x.flatten(2).mT @ torch.ones(3, 8) + self.position).mean(1))

    net = Tokens().eval()
    groups = cascade(net, torch.rand(1, 3, 4, 4), ["block"])
    assert "head" in groups["head"] and "block.self_attn.out_proj" in groups["block"]
    changed = copy.deepcopy(net)
    for names in groups.values():
        randomize(changed, names, 3)
    same = {n for n, p in changed.named_parameters() if torch.equal(p, dict(net.named_parameters())[n])}
    assert {n for n in same if "norm" not in n and "bias" not in n} <= {"position"}  # all zeros: no spread


def test_randomizing_changes_the_named_modules_only_and_no_global_random_state():
    net = network()
    changed, again = copy.deepcopy(net), copy.deepcopy(net)
    state = torch.get_rng_state()
    randomize(changed, ["3", "7"], seed=1)
    assert torch.equal(state, torch.get_rng_state())
    randomize(again, ["3", "7"], seed=1)
    for name, value in net.state_dict().items():
        assert torch.equal(changed.state_dict()[name], value) != name.startswith(("3", "7"))
        assert torch.equal(changed.state_dict()[name], again.state_dict()[name])


def test_the_maps_of_ever_more_random_networks_are_compared_and_shown():
    net = network()
    before = copy.deepcopy(net.state_dict())
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    probes = Probes(images, torch.zeros(3, dtype=torch.int64), torch.arange(3))
    subject = Subject(net, probes, None, [f"class {i}" for i in range(5)], {"2": [0], "4": [0]})
    technique = Randomization(maps=["gradient", "guided_backprop", "grad_cam"], shown=1)
    out = list(technique(subject))
    scalars = {o.key: o.value for o in out if isinstance(o, Scalar)}
    assert set(scalars) == {
        f"rank_correlation/{name}/{stage}" for name in technique.maps for stage in ("head", "4", "2")
    }
    assert all(-1 <= value <= 1 for value in scalars.values())
    (figure,) = (o for o in out if isinstance(o, Figure))
    assert figure.image.shape == (3 * 128 + 2 * 2, 5 * 128 + 4 * 2, 3)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [o.value for o in technique(subject) if isinstance(o, Scalar)] == list(scalars.values())
    assert not Randomization().enabled
