"""The analysis on scenes whose parts' effects are known, as the network was made by hand."""

import logging

import pytest
import torch
from torch import nn

from vitrine.analyses import attribution, localization, truth, untrained
from vitrine.analyses.base import Figure, Probes, Scalar, State, Subject
from vitrine.analyses.localization import Localization
from vitrine.analyses.part_effects import PartLogits, drops
from vitrine.analyses.part_scores import part_attributions
from vitrine.analyses.truth import Truth
from vitrine.analyses.truth_pictures import effects_figure, verdict
from vitrine.analyses.truth_scores import SCORES, Measured, Scores, on_random, score
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.registry import UnknownName
from vitrine.datamodules.signs import SignImages

SIZE, SIDES = 16, (2, 3, 4, 3, 2)  # of the images, and of the parts: squares
COUNT, PARTS = 40, len(SIDES)
CLASSES = ["a", "b", "c"]


class Squares(ImageDataset):
    """Scenes of squares, each in a channel and a cell of its own, some of them missing."""

    parts = tuple(f"square {i}" for i in range(PARTS))
    class_parts = parts[:2]

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.zeros(COUNT, dtype=torch.int64)
        self.present = torch.rand(COUNT, PARTS, generator=generator) < 0.8
        self.squares = torch.zeros(COUNT, PARTS, SIZE, SIZE, dtype=torch.bool)
        for scene in range(COUNT):
            cells = torch.randperm(9, generator=generator).tolist()
            for side, part, cell in zip(SIDES, range(PARTS), cells):
                top, left = (5 * place for place in divmod(cell, 3))
                self.squares[scene, part, top : top + side, left : left + side] = True
        self.squares &= self.present[:, :, None, None]

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return self.squares[index].float(), 0

    def part_masks(self, indices):
        return dict(zip(self.parts, self.squares[indices].unbind(1)))

    def without_parts(self, indices, left_out):
        return (self.squares[indices] & ~left_out[:, :, None, None]).float()

    def with_other_parts(self, indices, replaced):  # another class's square is half as bright
        return self.squares[indices] * (1 - 0.5 * replaced[:, :, None, None].float())


class Presence(nn.Module):
    """The logits are the sums of the weights [K, P] of the parts that are there."""

    def __init__(self, weights):
        super().__init__()
        self.weight = nn.Parameter(weights, requires_grad=False)
        self.pixels = nn.Conv2d(PARTS, PARTS, 1, groups=PARTS, bias=False)
        nn.init.ones_(self.pixels.weight)

    def presence(self, images):
        return self.pixels(images).sum((2, 3)) / torch.tensor(SIDES) ** 2

    def forward(self, images):
        return self.presence(images) @ self.weight.T


@pytest.fixture(scope="module")
def squares():
    return Squares()


@pytest.fixture(scope="module")
def network():
    return (
        Presence(torch.randn(len(CLASSES), PARTS, generator=torch.Generator().manual_seed(3)) * 3)
        .eval()
        .requires_grad_(False)
    )


def subject_of(network, dataset, count=4):
    images, labels = dataset.batch(torch.arange(count))
    probes = Probes(images.float() / (255 if images.dtype == torch.uint8 else 1), labels, torch.arange(count))
    return Subject(network, probes, dataset, CLASSES, {})


def own_share_alone(own):
    return [own]


def measured(network, dataset, attributions):
    """As the analysis does it, of maps [2, N, H, W] by name."""
    indices = torch.arange(COUNT)
    masks = torch.stack(list(dataset.part_masks(indices).values()), 1)
    logits = PartLogits(network, dataset, indices, torch.device("cpu"))
    whole = logits.without(torch.zeros_like(dataset.present))
    targets = whole.topk(2, 1).indices.T
    single = logits.without(torch.eye(PARTS, dtype=torch.bool).expand(COUNT, -1, -1))
    replaced = torch.stack([logits.with_other(part) for part in (0, 1)], 1)
    parts = {
        name: torch.stack([part_attributions(maps, masks) for maps in of(targets)])
        for name, of in attributions.items()
    }
    return Measured(
        dataset.present,
        torch.stack([drops(whole, single, target) for target in targets]),
        drops(whole, replaced, targets[0]),
        parts,
        {name: own[0].new_ones(COUNT, PARTS + 1) for name, own in parts.items()},
    )


def test_the_measured_effects_are_those_that_the_network_was_given(squares, network):
    found = measured(network, squares, {})
    targets = network(squares.squares.float()).topk(2, 1).indices.T
    for effects, target in zip(found.effects, targets):
        torch.testing.assert_close(effects, network.weight[target] * squares.present)
    torch.testing.assert_close(found.replaced, (network.weight[targets[0]] * squares.present)[:, :2] / 2)


def test_an_exact_attribution_scores_one_and_a_wrong_one_at_most_what_random_scores(squares, network):
    def exact(targets):
        share = network.weight[targets] / torch.tensor(SIDES) ** 2  # of a pixel
        return (share[..., None, None] * squares.squares).sum(2)

    def random(targets):
        return torch.rand(2, COUNT, SIZE, SIZE, generator=torch.Generator().manual_seed(1))

    maps = {"exact": exact, "wrong": lambda targets: -exact(targets), "random": random}
    twins = {on_random(name): random for name in ("exact", "wrong")}
    scores = score(measured(network, squares, maps | twins), [0, 1], seed=0, samples=1000)
    for name in ("rank_correlation", "rank_correlation_replaced", "most_important", "target_sensitivity"):
        means = {key: mean for key, (mean, _, _) in scores[name].intervals.items()}
        assert means["exact"] >= 0.99, name
        assert means["wrong"] <= means["random"] < 0.8, name
        assert scores[name].techniques == ["exact", "wrong"] and "wrong" not in scores[name].clear, name
    for name in ("rank_correlation", "most_important", "target_sensitivity"):
        assert "exact; not wrong" in verdict(scores[name]), name


def test_the_intervals_of_effects_are_of_the_runs_seed_and_number_of_samples():
    effects = torch.randn(2, 12, 2, generator=torch.Generator().manual_seed(0))
    found = Measured(torch.ones(12, 2, dtype=torch.bool), effects, effects[0], {}, {})
    scores = {"rank_correlation": Scores(SCORES["rank_correlation"], {}, {}, [])}
    figures = [
        effects_figure(found, ["a", "b"], ["a", "b"], scores, seed, samples).image
        for seed, samples in ((0, 100), (0, 100), (1, 100), (0, 101))
    ]
    assert [torch.equal(figures[0], figure) for figure in figures] == [True, True, False, False]


@pytest.mark.slow
def test_integrated_gradients_are_exact_on_it_through_the_whole_analysis(squares, network):
    technique = Truth(images=COUNT, maps=["integrated_gradients", "gradient"], baseline=0.0, shown=2)
    out = list(technique(subject_of(network, squares)))
    found = {o.key: o.value for o in out if isinstance(o, Scalar)}
    for name in ("rank_correlation", "most_important", "target_sensitivity"):
        assert found[f"{name}/integrated_gradients"] >= 0.99, name
        for control in ("random", "centre", "edges"):
            assert found[f"{name}/{control}"] < 0.7, (name, control)
    assert found["distractibility/integrated_gradients"] < 0.05 < found["distractibility/random"]
    assert found["deletion/integrated_gradients"] >= max(
        value for key, value in found.items() if key.startswith("deletion/")
    )
    assert found["clear_of_controls/rank_correlation"] >= 1
    weights = network.weight[network(squares.squares.float()).argmax(1)]
    expected = weights[squares.present[:, 0], 0].mean().item()
    assert found["effect/left_out/square 0"] == pytest.approx(expected, abs=1e-5)
    assert found["effect/replaced/square 0"] == pytest.approx(expected / 2, abs=1e-5)
    figures = [o for o in out if isinstance(o, Figure)]
    assert [f.key for f in figures] == ["effects", *SCORES, "disagreement/1", "disagreement/2"]
    assert "integrated gradients" in figures[1].caption and "95 % intervals" in figures[0].caption
    assert list(figures[0].table.columns) == ["map", *(kind.title for kind in SCORES.values())]


@pytest.mark.slow
def test_ranks_share_the_scenes_and_get_the_same_scores(squares, network):
    technique = Truth(images=10, maps=["gradient"], shown=0)
    alone = {o.key: o.value for o in technique(subject_of(network, squares)) if isinstance(o, Scalar)}
    base, shares = subject_of(network, squares), []
    for rank in range(2):
        subject = Subject(
            **{**vars(base), "rank": rank, "world_size": 2, "all_gather": own_share_alone, "cache": {}}
        )
        shares.append(technique.measure(subject)[1])
    assert [len(share.present) for share in shares] == [5, 5]
    together = Measured.join(shares)
    scores = score(together, [0, 1], base.seed, technique.samples)
    for name, of in scores.items():
        for key, (mean, _, _) in of.intervals.items():
            assert mean == pytest.approx(alone[f"{name}/{key}"], abs=1e-6), (name, key)


@pytest.mark.slow
def test_what_random_weights_give_is_taken_from_the_checkpoint_before_where_nothing_differs(
    squares, network, monkeypatch
):
    technique = Truth(images=10, maps=["gradient"], shown=0)
    first = list(technique(subject_of(network, squares)))
    (state,) = (o.tensors for o in first if isinstance(o, State))
    later = Presence(-network.weight).eval().requires_grad_(False)
    later.pixels.weight.mul_(2)
    expected = list(technique(subject_of(later, squares)))

    def again(seed):
        before = {"truth": state}
        return technique(
            Subject(**{**vars(subject_of(later, squares)), "previous_state": before, "seed": seed})
        )

    def forbidden(*_):
        raise AssertionError("computed once more")

    with monkeypatch.context() as patch:
        patch.setattr(untrained, "randomized", forbidden)
        found = list(again(0))
        with pytest.raises(AssertionError, match="computed once more"):
            list(again(1))
    scalars = [[(o.key, o.value) for o in out if isinstance(o, Scalar)] for out in (found, expected)]
    assert scalars[0] == scalars[1]


@pytest.mark.slow
def test_scenes_of_signs_have_a_sticker_each_and_localization_shares_its_maps(monkeypatch):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8)
    )
    subject = subject_of(network.eval().requires_grad_(False), SignImages(1, 12, 16))
    subject = Subject(**{**vars(subject), "classes": [str(i) for i in range(8)]})
    asked, original = [], attribution.attributions

    def counted(network, names, *rest):
        asked.append((network is subject.network, list(names), rest[1].ndim))
        return original(network, names, *rest)

    monkeypatch.setattr(localization, "attributions", counted)
    monkeypatch.setattr(truth, "attributions", counted)
    list(Localization(images=6, maps=["gradient"], curve_images=0, shown=0)(subject))
    assert asked == [(True, ["gradient"], 1)] * 2  # without stickers, and with
    out = list(Truth(images=6, maps=["gradient"], shown=0)(subject))
    assert asked[2:] == [(True, ["gradient"], 1), (True, [], 2)]  # of the second class alone
    keys = {o.key for o in out if isinstance(o, Scalar)}
    assert "effect/left_out/sticker" in keys and "effect/replaced/sticker" in keys
    assert "effect/replaced/pole" not in keys


def test_without_parts_there_is_no_truth_and_the_log_says_so(network, caplog):
    class Bare(ImageDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.zeros(PARTS, SIZE, SIZE), 0

    with caplog.at_level(logging.INFO):
        assert list(Truth()(subject_of(network, Bare()))) == []
    assert "not drawn from parts" in caplog.text
    with pytest.raises(UnknownName, match="did you mean gradient"):
        Truth(maps=["gradiant"])
