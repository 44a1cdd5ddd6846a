import dataclasses

import pytest
import torch
from torch import nn

from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.cam import cam
from vitrine.analyses.concept_evidence import concept_layer, concept_maps, find_evidence, match_concepts
from vitrine.analyses.concepts import Concepts
from vitrine.analyses.dictionary import Nonnegative
from vitrine.core.settings import SettingError
from vitrine.datamodules.memory import InMemory

COLOURS = torch.eye(3)


def network(seed=0, signed=False):
    """Channels that see one colour each, some twice, averaged and classified."""
    see = nn.Conv2d(3, 6, 1)
    with torch.no_grad():
        see.weight.copy_(torch.cat([COLOURS, 2 * COLOURS])[:, :, None, None])
        see.bias.fill_(-0.5 if signed else 0.0)
    head = nn.Linear(6, 3)
    with torch.no_grad():
        head.weight.copy_(torch.cat([COLOURS, COLOURS]).T)
        head.bias.zero_()
    act = nn.Identity() if signed else nn.ReLU()
    return nn.Sequential(see, act, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval().requires_grad_(False)


def squares(count=60, size=8):
    """Images with a square of one colour, in one of four corners; the class is the colour."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    strength = 128 + torch.randint(0, 127, (count,), generator=generator)
    corners = torch.randint(0, 2, (count, 2), generator=generator) * (size // 2)
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    for i, (row, column) in enumerate(corners.tolist()):
        images[i, labels[i], row : row + size // 2, column : column + size // 2] = strength[i]
    return images, labels


def subject(net=None, **more):
    images, labels = squares()
    probes = Probes(images[:3] / 255, labels[:3], torch.arange(3))
    data = InMemory(images, labels)
    return Subject(net or network(), probes, data, ["red", "green", "blue"], {}, batch_size=16, **more)


def run(given, **settings):
    settings = {"layer": "1", "concepts": 3, "side": 16, "examples": 4} | settings
    found = list(Concepts(**settings)(given))
    return {f.key: f for f in found if isinstance(f, Figure)}, {
        s.key: s.value for s in found if isinstance(s, Scalar)
    }


def test_each_colour_is_a_concept_that_its_class_uses():
    figures, scalars = run(subject())
    assert [*figures] == ["importance", "concept-00", "concept-01", "concept-02"]
    table = figures["importance"].table.columns
    assert sorted(table["adds most to"]) == ["blue", "green", "red"]
    _, labels = squares()
    for figure in [*figures.values()][1:]:
        assert len(set(labels[figure.indices].tolist())) == 1
        assert list(figure.scores) == sorted(figure.scores, reverse=True)
    assert scalars["reconstruction_error/1"] < 1e-4 and scalars["agreement/1"] == 1
    assert sum(table["share"]) == pytest.approx(1)


def test_a_concept_is_seen_where_its_colour_is():
    images, labels = squares()
    dictionary = Nonnegative(torch.cat([COLOURS, 2 * COLOURS], 1) / 5**0.5)
    maps = concept_maps(network(), images / 255, "1", dictionary)
    seen = (images / 255).gather(1, labels[:, None, None, None].expand(-1, -1, 8, 8))[:, 0]
    own = maps[torch.arange(60), labels]
    torch.testing.assert_close(own, seen * 5**0.5)
    assert maps.sum() == pytest.approx(own.sum().item(), rel=1e-4)


def test_parts_of_the_logit_add_up_to_class_activation_maps():
    """Where a linear head follows an average and the concepts rebuild all of a layer."""
    images, labels = squares()
    torch.manual_seed(0)
    net = network()
    with torch.no_grad():
        net[4].weight.copy_(torch.randn(3, 6))
    dictionary = Nonnegative(torch.cat([COLOURS, 2 * COLOURS], 1) / 5**0.5)
    evidence = find_evidence(
        net, [(images[:40] / 255, labels[:40]), (images[40:] / 255, labels[40:])], "1", dictionary
    )
    logits = cam(net, images / 255, labels).mean((1, 2))
    torch.testing.assert_close(evidence.parts.sum(1), logits, atol=1e-5, rtol=1e-4)
    assert evidence.unexplained == pytest.approx(0, abs=1e-5) and evidence.agrees.all()
    one = evidence.importance(4)
    torch.testing.assert_close(one[:, 1], evidence.parts[labels == 1].mean(0))
    assert one[:, 3].isnan().all()


def test_what_concepts_leave_out_is_counted():
    images, labels = squares()
    red = torch.cat([COLOURS, 2 * COLOURS], 1)[:1] / 5**0.5
    evidence = find_evidence(network(), [(images / 255, labels)], "1", Nonnegative(red))
    maps = network()[:2](images / 255)
    rest = maps.clone()
    rest[:, [0, 3]] = 0
    variance = (maps - maps.mean((0, 2, 3), keepdim=True)).square().sum()
    assert evidence.unexplained == pytest.approx((rest.square().sum() / variance).item(), rel=1e-4)
    assert evidence.agrees.tolist() == (labels == 0).tolist()  # without evidence the first class wins


def test_concepts_keep_their_numbers_when_channels_are_permuted():
    """Another network that has learned the same: what is compared is where concepts are seen."""
    first, _ = run(subject())
    other, order = network(), torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        other[0].weight.copy_(other[0].weight[order] * 3)
        other[4].weight.copy_(other[4].weight[:, order] / 3)
    figures = [
        dataclasses.replace(f, key=f"concept-{7 - int(f.key[-2:]):02d}") for f in [*first.values()][1:]
    ]
    before = {f.key: f for f in figures}
    second, scalars = run(subject(other, previous={"concepts": [first["importance"], *figures]}))
    assert {*second} == {"importance", *before}
    for key, figure in before.items():
        assert set(second[key].class_shares) == set(figure.class_shares)
        assert second[key].values["correlation_with_before"] > 0.99
    assert scalars["stability/1"] > 0.99
    assert Concepts().needs_previous


def test_more_concepts_than_before_get_numbers_of_their_own():
    traces = torch.tensor([[0.0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1.5]])
    matches = match_concepts(traces, [[0, 0, 1, 1], [0, 2, 0, 2]])
    assert [match and match[0] for match in matches] == [1, None, 0]
    assert matches[0][1] == pytest.approx(1)
    assert match_concepts(traces, [[1, 2]]) == [None] * 3  # of other places

    first, _ = run(subject(), concepts=2)
    second, _ = run(subject(previous={"concepts": [*first.values()]}), concepts=3)
    assert [*second] == ["importance", "concept-00", "concept-01", "concept-02"]
    assert "correlation_with_before" not in second["concept-02"].values


def test_layers_that_go_below_0_take_a_sparse_autoencoder():
    figures, scalars = run(subject(network(signed=True)), active=1, steps=100, positions=2000)
    assert "a sparse autoencoder" in figures["importance"].caption
    assert scalars["reconstruction_error/1"] < 0.5
    with pytest.raises(ValueError, match=r"layer '1' goes down to -0\.5, expected none below 0: sae takes"):
        run(subject(network(signed=True)), method="nmf")


def test_batches_and_callers_random_numbers_do_not_matter():
    one, _ = run(subject())
    torch.manual_seed(5)
    other, _ = run(dataclasses.replace(subject(), batch_size=7))
    for key, figure in one.items():
        assert other[key].indices == figure.indices
        assert (other[key].image.int() - figure.image.int()).abs().max() <= 1


def test_images_and_places_are_as_many_as_asked_for():
    asked = []

    class Counting(InMemory):
        def batch(self, indices):
            asked.extend(indices.tolist())
            return super().batch(indices)

    images, labels = squares()
    given = dataclasses.replace(subject(), dataset=Counting(images, labels))
    run(given, images=12, positions=24, examples=1)
    assert len(set(asked)) == 12 and len(asked) == 12 * 2 + 3


def test_without_a_number_there_are_no_more_factors_than_channels():
    figures, _ = run(subject(), concepts=None)
    assert len(figures["importance"].table.columns["concept"]) <= 6


def test_token_grids_are_read_as_maps():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.see, self.mix, self.head = nn.Conv2d(3, 6, 2, 2), nn.ReLU(), nn.Linear(6, 3)

        def forward(self, images):
            return self.head(self.mix(self.see(images).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(3)
    figures, scalars = run(subject(Tokens().eval().requires_grad_(False)), layer="mix", concepts=2)
    assert "concept-00" in figures and scalars["reconstruction_error/mix"] < 1


def test_what_cannot_be_done_is_answered_in_a_line():
    with pytest.raises(ValueError, match="did you mean"):
        run(subject(), layer="11")
    with pytest.raises(ValueError, match="3 concepts are more than the 2 places"):
        run(subject(), images=2, positions=2)
    with pytest.raises(SettingError, match="concepts: is 7, expected at most the 6 channels of layer '1'"):
        run(subject(), concepts=7)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval().requires_grad_(False)
    with pytest.raises(ValueError, match=r"concepts\.layer=NAME"):
        run(subject(flat), layer="auto")
    with pytest.raises(SettingError, match="active: is 5, expected at most `concepts`, 3"):
        run(subject(), method="sae", active=5)


class Block(nn.Module):
    """As the last block of a transformer: the head averages the normalised sum, `inner` is a branch of it."""

    def __init__(self):
        super().__init__()
        self.see, self.inner, self.mix = nn.Conv2d(3, 6, 2, 2), nn.LayerNorm(6), nn.Linear(6, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, images):
        tokens = self.see(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(tokens + self.mix(self.inner(tokens)).relu()).mean(1))


def test_the_layer_is_the_one_that_the_head_averages():
    torch.manual_seed(0)
    block, images = Block().eval().requires_grad_(False), torch.rand(2, 3, 8, 8)
    assert concept_layer(block, images) == "norm"
    assert concept_layer(network(), images) == "1"


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"layer": "11"}, "layer: unknown layer '11'"),
        ({"layer": "0", "method": "nmf"}, "method: is nmf, but layer '0' goes down to"),
        ({"layer": "1", "concepts": 7}, "concepts: is 7, expected at most the 6"),
        ({"method": "sae", "active": 17}, "active: is 17, expected at most `concepts`, 16"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_run(settings, refusal):
    net = network()
    net[0].bias.sub_(0.5)
    with pytest.raises(SettingError, match=refusal):
        Concepts(**settings).check(net, torch.zeros(1, 3, 8, 8))
    Concepts(layer="0").check(net, torch.zeros(1, 3, 8, 8))
