"""`vitrine.look`: a network examined without Lightning."""

import logging

import pytest
import torch
from foreign import Colours, network, normalised
from torch import nn
from torch.utils.data import DataLoader

import vitrine
from vitrine.analyses import ANALYSES
from vitrine.analyses.base import Analysis, File, State
from vitrine.core.registry import UnknownName
from vitrine.examination.examiner import weights_hash
from vitrine.reporting.page_data import run_data
from vitrine.runs.store import Store

CHEAP = {"analyses": ["weights", "cam"], "layers": ["2"], "units": 2, "probes": 3}


def test_a_plain_loop_gets_a_page_of_all_its_steps(tmp_path):
    net = network().train()
    for step in (0, 5):
        before, state = weights_hash(net), torch.get_rng_state()
        report = vitrine.look(net, normalised(9), tmp_path, step=step, metrics={"val/accuracy": 0.5}, **CHEAP)
        assert report.step == step and not report.errors and report.figures
        assert net.training and weights_hash(net) == before and torch.equal(torch.get_rng_state(), state)
        assert not any(p.grad is not None or not p.requires_grad for p in net.parameters())
        nn.init.normal_(net[0].weight)
    assert Store(tmp_path).steps() == [0, 5]
    assert report.page == tmp_path / "index.html" and report.page.exists()
    content = run_data(tmp_path)
    assert content["metrics"]["val/accuracy"] == [[0, 0.5], [5, 0.5]]
    assert content["facts"][:2] == [["data", "Colours, 9 images"], ["network", "Sequential"]]


def test_a_folder_is_made_and_nothing_is_warned_of(tmp_path, caplog):
    folder = tmp_path / "not" / "there"
    vitrine.look(network(), Colours(6), folder, **CHEAP)
    assert (folder / "run.json").exists() and (folder / "index.html").exists()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_volumes_over_channels_are_examined_as_images_are(tmp_path):
    volumes = (nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3, padding=1), nn.Flatten(1, 2), nn.ReLU())
    net = nn.Sequential(*volumes, nn.Conv2d(12, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    techniques = {"analyses": ["examples", "unit_saliency"], "layers": ["4"]}
    assert not vitrine.look(net, Colours(6), tmp_path, **{**CHEAP, **techniques}).errors


def test_a_notebook_shows_the_pictures_with_their_captions_escaped(tmp_path):
    data = Colours(6)
    data.classes = ["<b>red</b>", "green", "blue"]
    report = vitrine.look(network(), DataLoader(data, 2), tmp_path, **CHEAP)
    shown = report._repr_html_()
    assert shown.count("<img ") == min(12, len(report.results["cam"].figures)) + len(
        report.results["weights"].figures
    )
    assert "<b>red" not in shown and "&lt;b&gt;red" in shown
    assert str(tmp_path / "index.html") in shown


@pytest.mark.slow
def test_what_was_examined_already_is_examined_again_only_with_new_settings(tmp_path):
    net = network()
    first = vitrine.look(net, Colours(6), tmp_path, **CHEAP)
    assert first.results.keys() == {"weights", "cam"}
    assert not vitrine.look(net, Colours(6), tmp_path, **CHEAP).results
    assert vitrine.look(
        net, Colours(6), tmp_path, **{**CHEAP, "analyses": ["cam", "examples"]}
    ).results.keys() == {"examples"}


class Shifted(Colours):
    """The same labels of other images."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return 1 - image, label


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (Shifted(6), {}),
        (Colours(7), {}),
        (Colours(6), {"classes": ["one", "two", "three"]}),
        (Colours(6), {"mean": (0.1, 0.1, 0.1), "std": (1, 1, 1)}),
        (Colours(6), {"units": range(2)}),
    ],
)
def test_other_images_are_looked_at_anew(tmp_path, data, options):
    net, few = network(), {**CHEAP, "analyses": ["weights"]}
    vitrine.look(net, Colours(6), tmp_path, **few)
    assert not vitrine.look(net, DataLoader(Colours(6), 2), tmp_path, **few).results
    assert vitrine.look(net, data, tmp_path, **{**few, **options}).results
    assert not vitrine.look(net, data, tmp_path, **{**few, **options}).results


class InDouble(nn.Module):
    """Computes in one precision whatever its input and parameters are made to have."""

    def __init__(self):
        super().__init__()
        self.inner = network().double()

    def forward(self, images):
        return self.inner(images.double())


@pytest.mark.parametrize(
    ("net", "options", "problem"),
    [
        (nn.Conv2d(3, 3, 3), {}, "expected logits .N, classes."),
        (network(), {"classes": ["one"]}, "1 names came, expected 3"),
        (network(), {"analyses": ["cams"]}, "did you mean cam"),
        (network(), {"layer": "2"}, "did you mean layers"),
        (network(), {"layers": ["9"]}, "unknown layer '9'"),
        (network(), {"analyses": {"cam": ANALYSES["cam"](layer="9")}}, "analysis.cam.layer: unknown layer"),
        (network(), {"device": "cuda:99"}, "analysis.device: cuda:99 cannot be used"),
        (InDouble(), {}, "InDouble in float32, in which it is examined, fails on images .*: Input type"),
        (network(), {"mean": (0, 0, 0), "std": (5, 5, 5)}, "un-normalised with them images run from"),
    ],
)
def test_what_cannot_be_examined_is_refused_before_a_folder_is_made(tmp_path, net, options, problem):
    data = normalised(6) if "mean" in options else Colours(6)
    with pytest.raises((ValueError, UnknownName), match=problem):
        vitrine.look(net, data, tmp_path / "new", **{**CHEAP, **options})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "net", [network(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(560, 3))]
)
def test_a_normalised_network_that_is_a_sequence_keeps_its_logits(tmp_path, net):
    """The normalisation stands before the network, not among its layers."""
    data = normalised(6)
    with torch.no_grad():
        expected = net.eval()(torch.stack([data[i][0] for i in range(3)])).softmax(1)
    report = vitrine.look(net, data, tmp_path, **{**CHEAP, "layers": ["0"]})
    assert not report.errors
    confidences = [f.values["confidence"] for f in report.results["cam"].figures if "confidence" in f.values]
    assert all(min(abs(c - e) for e in expected.flatten().tolist()) < 1e-4 for c in confidences)


def test_a_network_with_a_normalize_of_its_own_keeps_it(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.normalize, self.classes, self.body = nn.BatchNorm2d(3), nn.Linear(3, 3), network()

        def forward(self, images):
            return self.classes(self.body(self.normalize(images)))

    report = vitrine.look(Own(), normalised(6), tmp_path, **{**CHEAP, "layers": ["body.2"]})
    assert not report.errors


class Training(Analysis):
    """What an analysis is given of the training."""

    def __call__(self, subject):
        rate = torch.tensor(float("nan") if subject.learning_rate is None else subject.learning_rate)
        images = torch.zeros(0) if subject.train is None else subject.train_images(range(4))[0]
        yield File("note.txt", subject.train_note)
        yield State({"rate": rate, "images": images})


def test_training_images_and_the_learning_rate_are_given_by_the_caller(tmp_path):
    chosen = {**CHEAP, "analyses": {"cam": Training()}}
    given = {"train": DataLoader(normalised(5), 2, shuffle=True), "learning_rate": 0.25}
    report = vitrine.look(network(), normalised(6, 1), tmp_path / "a", **given, **chosen)
    found = report.results["cam"]
    assert found.state["rate"] == 0.25 and found.files["note.txt"] == ""
    torch.testing.assert_close(found.state["images"], torch.stack([Colours(5)[i][0] for i in range(4)]))
    none = vitrine.look(network(), normalised(6, 1), tmp_path / "b", **chosen).results["cam"]
    assert none.state["rate"].isnan() and none.files["note.txt"] == "none were given"
