import dataclasses

import pytest
import torch
from torch import nn

from vitrine import config
from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.robustness import Robustness, mean_report
from vitrine.attacks.health import HealthReport, check_health
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import SettingError

QUICK = {"enabled": True, "images": 24, "batch_size": 8, "steps": 10, "queries": 20, "health_queries": 10}
CLASSES = ["ant", "bee", "cat", "dog"]


class Points(ImageDataset):
    """Random images far enough from black and white that no budget below 0.1 is clipped."""

    def __init__(self, network, n=40):
        self.images = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
        with torch.no_grad():
            self.labels = network(self.images).argmax(1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


class Memory:
    """A scratch, and how often it was written to."""

    def __init__(self):
        self.kept, self.writes = {}, 0

    def load(self, key):
        return self.kept.get(key)

    def save(self, key, state):
        self.kept[key], self.writes = state, self.writes + 1


class Counting(nn.Module):
    """Counts the images that pass, and is interrupted once so many have."""

    def __init__(self, network, most=None):
        super().__init__()
        self.network, self.most, self.passed = network, most, 0

    def forward(self, images):
        self.passed += len(images)
        if self.most is not None and self.passed > self.most:
            raise KeyboardInterrupt
        return self.network(images)


def linear(classes):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, classes))
    network[1].weight.data.mul_(4)
    network[1].bias.data = -network[1].weight.data.sum(1) / 2  # mid-grey is on all boundaries
    return network.eval().requires_grad_(False)


def subject(network, classes, dataset=None, scratch=None):
    dataset = dataset or Points(network)
    probes = Probes(dataset.images[:2], dataset.labels[:2], torch.arange(2))
    given = Subject(network, probes, dataset, CLASSES[:classes], {})
    return given if scratch is None else dataclasses.replace(given, scratch=scratch)


def split(results):
    results = list(results)
    return {r.key: r for r in results if isinstance(r, Figure)}, {
        r.key: r.value for r in results if isinstance(r, Scalar)
    }


def test_of_a_linear_network_of_two_classes_all_with_a_small_margin_fall_and_no_others():
    network = linear(2)
    given = subject(network, 2)
    with pytest.warns(UserWarning, match="fall away"):
        figures, scalars = split(Robustness(**QUICK, eps=0.02, curve=[0.25, 0.5, 0.75, 1, 1.5])(given))
    drawn = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:24]
    images, labels = given.images(drawn)
    logits, weight = network(images), network[1].weight
    margin = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()
    eps = 0.02
    assert scalars["accuracy/clean"] == 1
    assert scalars["accuracy/robust"] == pytest.approx((margin > eps).float().mean().item())
    assert 0 < scalars["accuracy/robust"] < 1
    for share in (0.25, 0.5, 0.75, 1, 1.5):
        closed = (margin > share * eps).float().mean().item()
        assert scalars[f"accuracy/pgd_at_{share:g}_eps"] == pytest.approx(closed)
    by_class = figures["accuracy by class"].values
    for index, name in enumerate(CLASSES[:2]):
        closed = (margin > eps)[labels == index].float().mean().item()
        assert by_class[f"robust/{name}"] == pytest.approx(closed) and by_class[f"clean/{name}"] == 1
    assert "apgd-t" in figures["accuracy against eps"].caption  # left out, which is said


@pytest.mark.slow
def test_the_pictures_come_with_the_health_report():
    given = subject(linear(4), 4)
    figures, scalars = split(Robustness(**QUICK)(given))
    assert list(figures) == ["accuracy against eps", "accuracy by class", "health"]
    assert all(f.image.dtype == torch.uint8 and f.image.shape[1:] == (640, 3) for f in figures.values())
    curve, report = figures["accuracy against eps"], figures["health"].values
    assert curve.values["autoattack"] == scalars["accuracy/robust"]
    assert scalars["accuracy/robust"] <= scalars["accuracy/pgd_at_1_eps"] <= scalars["accuracy/clean"]
    drawn = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:24].sort().values
    whole = check_health(given.network, *given.images(drawn), queries=10)
    assert report["PGD-50"] == pytest.approx(whole.pgd50) and report["Square, 10 queries"] == pytest.approx(
        whole.square
    )
    assert report["last loss"] == pytest.approx(whole.losses[-1], rel=1e-4)
    assert scalars["healthy"] == float(whole.healthy)
    assert "Health: " in curve.caption and "Health: " in figures["health"].caption


@pytest.mark.slow
def test_a_search_in_bfloat16_is_told_and_what_falls_falls_to_the_network():
    given = subject(linear(4), 4)
    results = [split(Robustness(**QUICK, eps=0.02, precision=p)(given)) for p in ("float32", "bfloat16")]
    (figures, scalars), (searched, low) = results
    assert 0 < low["accuracy/robust"] == scalars["accuracy/robust"] < 1
    assert "bfloat16" in searched["accuracy against eps"].caption
    assert "bfloat16" not in figures["accuracy against eps"].caption


@pytest.mark.slow
def test_masked_gradients_are_told_in_the_captions():
    class Rounded(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(
                images + ((images * 16).round() / 16 - images).detach() - images + images.detach()
            )

    network = linear(4)
    given = subject(Rounded(network), 4, Points(network))
    figures, scalars = split(Robustness(**QUICK)(given))
    assert scalars["healthy"] == 0
    assert "gradients are zero" in figures["health"].caption
    assert "gradients are zero" in figures["accuracy against eps"].caption


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_where_it_was_and_ends_the_same():
    network, analysis = linear(4), Robustness(**QUICK)
    dataset, memory = Points(network), Memory()
    whole = Counting(network)
    expected, curves = split(analysis(subject(whole, 4, dataset)))
    passed = 0
    for share in (0.2, 0.5):  # within AutoAttack, then in what follows
        cut = Counting(network, most=int(share * whole.passed))
        with pytest.raises(KeyboardInterrupt):
            list(analysis(subject(cut, 4, dataset, memory)))
        passed = cut.passed
    last = Counting(network)
    figures, scalars = split(analysis(subject(last, 4, dataset, memory)))
    assert scalars == curves
    assert all(torch.equal(figures[key].image, expected[key].image) for key in expected)
    assert last.passed < whole.passed - 0.3 * passed
    before = memory.writes
    other = dataclasses.replace(analysis, eps=2 / 255)
    assert (
        split(other(subject(network, 4, dataset, memory)))[1]["accuracy/robust"] > scalars["accuracy/robust"]
    )
    assert memory.writes > before  # nothing kept for one budget is taken for another's


def test_no_pixels_are_kept_for_a_run_that_goes_on():
    network, memory = linear(2), Memory()
    quick = {**QUICK, "images": 16, "batch_size": 4, "steps": 2, "curve": [1], "health_queries": 2}
    with pytest.warns(UserWarning, match="fall away"):
        list(Robustness(**quick, eps=0.3)(subject(network, 2, scratch=memory)))
    (state,) = (kept for kept in memory.kept.values() if "broken_by" in kept)
    assert (state["broken_by"] > 0).all()  # there were some
    assert sum(of.numel() for of in state.values() if isinstance(of, torch.Tensor)) <= 16


def test_budgets_beyond_all_images_are_those_of_all_images():
    network = linear(4)
    network[1].bias.data[0] = 1000  # whatever the image
    quick = {**QUICK, "images": 4, "steps": 2, "queries": 2, "curve_steps": 2, "health_queries": 2}
    figures, scalars = split(Robustness(**quick, eps=0.3, curve=[1, 3.5, 4])(subject(network, 4)))
    assert scalars["accuracy/pgd_at_3.5_eps"] == scalars["accuracy/pgd_at_4_eps"] == 1
    assert sum(name.startswith("pgd/") for name in figures["accuracy against eps"].values) == 4


def test_the_health_of_batches_is_pooled_by_their_sizes():
    def report(images, value, losses):
        return HealthReport(images, value, losses, value, value, value, value, value, value)

    both = mean_report([report(1, 0.0, [1.0, 2.0]), report(3, 1.0, [5.0, 6.0])])
    assert (both.images, both.pgd10, both.losses) == (4, 0.75, [4.0, 5.0])


def test_it_is_off_unless_asked_for_and_its_settings_are_understood():
    said = [
        "analysis.robustness.enabled=true",
        "analysis.robustness.eps=4/255",
        "analysis.robustness.curve=[1,2]",
    ]
    assert not config.load([]).analysis.robustness.enabled
    assert config.load(said).analysis.robustness == Robustness(enabled=True, eps=4 / 255, curve=[1, 2])
    with pytest.raises(SettingError, match="expected rising numbers"):
        config.load(["analysis.robustness.curve=[2,1]"])
