"""analysis.budget: what analyses may cost, with a clock that the test turns."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import tiny
import torch

from vitrine.analyses import ANALYSES
from vitrine.analyses.base import Analysis, Figure
from vitrine.analyses.class_maps import ClassMaps
from vitrine.analyses.examples import Examples
from vitrine.analyses.features import Features
from vitrine.analyses.result import AnalysisResult
from vitrine.analyses.traits import Traits
from vitrine.analyses.unit_saliency import UnitSaliency
from vitrine.examination.budget import Allowance, Choice, last_results, plan
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.summary import summarize
from vitrine.reporting.page_data import run_data
from vitrine.runs.store import Store

UNITS = {"a": range(8), "b": range(8)}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@dataclass(frozen=True)
class Slow(Analysis):
    """Takes its time for every unit and step."""

    traits: ClassVar[Traits] = Traits(reducible=("units", "steps"), budget_priority=1)
    steps: int = 64
    seconds: float = 0.0

    def __call__(self, subject):
        CLOCK.now += self.seconds
        for layer, units in subject.units.items():
            for unit in units:
                CLOCK.now += self.steps / 64
                yield Figure(f"{layer}/unit-{unit}", torch.zeros(2, 2, 3, dtype=torch.uint8), "", layer, unit)


@dataclass(frozen=True)
class Whole(Slow):
    """As slow, and all or nothing."""

    traits: ClassVar[Traits] = Traits()


CLOCK = Clock()


def past(**seconds):
    return {name: AnalysisResult(seconds=value) for name, value in seconds.items()}


def test_there_is_no_limit_unless_one_is_given():
    assert AnalysisSettings().budget is None
    clock = Clock()
    allowance = Allowance(None, clock)
    clock.now += 100
    assert allowance.available() is None
    assert plan({"features": Features()}, UNITS, {}, None) == {"features": Choice()}


def test_units_go_first_then_steps_then_whole_analyses_in_the_documented_order():
    analyses = {"examples": Examples(), "unit_saliency": UnitSaliency(), "features": Features(steps=64)}
    known = past(examples=1, unit_saliency=4, features=16)

    def chosen(allowed):
        return plan(analyses, UNITS, known, allowed)

    assert chosen(21) == dict.fromkeys(analyses, Choice())
    assert chosen(13) == {**dict.fromkeys(analyses, Choice()), "features": Choice(every=2)}  # 1 + 4 + 8
    assert chosen(5.5)["unit_saliency"] == Choice(every=2)  # 1 + 2 + 2
    least = chosen(3)  # 1 + .5 + 1: one unit each, half the steps
    assert least["features"] == Choice(every=8, steps=32) and least["unit_saliency"] == Choice(every=8)
    assert chosen(1.6)["features"] == Choice(left_out=True)
    assert chosen(1.6)["unit_saliency"] == Choice(every=8)
    assert chosen(1.2)["unit_saliency"] == Choice(left_out=True)
    assert not chosen(1.2)["examples"].left_out
    assert all(choice.left_out for choice in chosen(0).values())


def test_what_takes_long_and_says_little_more_is_left_out_before_what_is_cheap():
    names = ["weights", "cam", "adversarial", "robustness", "unheard_of"]
    analyses = {name: ANALYSES[name]() if name in ANALYSES else tiny.Plain() for name in names}
    known = past(**dict.fromkeys(names, 1))
    gone = []
    for allowed in (4, 3, 2, 1, 0):
        chosen = plan(analyses, UNITS, known, allowed)
        gone += [name for name in names if chosen[name].left_out and name not in gone]
    assert gone == ["unheard_of", "robustness", "adversarial", "cam", "weights"]


def test_an_analysis_without_a_past_begins_with_the_least():
    chosen = plan({"features": Features(), "cam": tiny.Plain()}, UNITS, {}, 5)
    assert chosen == {"features": Choice(every=8, steps=16), "cam": Choice()}


def test_time_is_foretold_in_proportion_to_what_was_made():
    known = {"features": AnalysisResult(seconds=1.0, reduced={"units": [2, 16], "steps": [16, 64]})}
    assert plan({"features": Features(steps=64)}, UNITS, known, 32) == {"features": Choice()}  # 8 x 4
    assert plan({"features": Features(steps=64)}, UNITS, known, 17) == {"features": Choice(every=2)}


def test_the_allowance_is_a_share_of_the_time_trained_and_pays_back_what_was_too_much():
    clock = Clock()
    allowance = Allowance(0.1, clock)
    clock.now += 100
    allowed = allowance.available()
    assert allowed == pytest.approx(10)
    clock.now += 14
    allowance.charge(allowed, 14)
    clock.now += 100
    assert allowance.available() == pytest.approx(6)
    allowance.charge(allowance.available(), 1)
    clock.now += 100
    assert allowance.available() == pytest.approx(10)  # what was saved is not kept


@pytest.fixture
def network():
    torch.manual_seed(0)
    return tiny.tiny_network().eval()


def test_over_many_checkpoints_analyses_stay_under_their_share(tmp_path, network, monkeypatch):
    monkeypatch.setattr("time.perf_counter", CLOCK)
    store, allowance, spent, trained = Store(tmp_path), Allowance(0.1, CLOCK), 0.0, 0.0
    analyses = {"features": Slow(seconds=0.5), "cam": Whole(seconds=1.0)}  # 4.5 and 5 s whole
    examiner = tiny.examiner(tmp_path, analyses, units=4)
    for step in range(1, 13):
        CLOCK.now += 60
        trained += 60
        allowed, begun = allowance.available(), CLOCK.now
        assert not examiner.examine(network, step, allowed).errors
        spent += CLOCK.now - begun
        allowance.charge(allowed, CLOCK.now - begun)
        if step > 1:
            assert spent <= 0.1 * trained + 5  # at most the last one's error
    made = [store.results(step)["features"].reduced for step in range(1, 13)]
    assert any(made) and spent <= 0.1 * trained + 1
    assert all(store.results(step)["cam"].figures for step in (1, 12))


def test_what_is_less_is_recorded_shown_and_made_up_for(tmp_path, network, monkeypatch, caplog):
    monkeypatch.setattr("time.perf_counter", CLOCK)
    store, analyses = Store(tmp_path), {"features": Slow(), "robustness": Whole(seconds=9)}
    examiner = tiny.examiner(tmp_path, analyses, units=4)
    retrying = tiny.examiner(tmp_path, analyses, units=4, retry=True)
    examiner.examine(network, 1)
    report = examiner.examine(network, 2, seconds_allowed=1.5)
    assert store.results(2)["features"].reduced == {"units": [1, 4]}
    assert store.results(2)["robustness"].reduced == {"analysis": [0, 1]}
    assert [f.key for f in store.figures(2, "features")] == ["0/unit-0"]
    complete = json.loads((store.step_folder(2) / "complete.json").read_text())
    assert complete["analyses"]["robustness"]["figures"] == 0
    words = summarize([report])
    assert "features at step 2: 1 of 4 units" in words and "robustness at step 2: left out" in words
    assert "left out" in caplog.text
    shown = run_data(tmp_path)["steps"][1]["analyses"]
    assert shown["features"]["less"] == "1 of 4 units" and shown["robustness"]["less"] == "left out"
    assert "less" not in run_data(tmp_path)["steps"][0]["analyses"]["features"]
    assert examiner.missing(network, 2) == []  # once a checkpoint
    assert retrying.missing(network, 2) == ["features", "robustness"]
    retrying.examine(network, 2)
    assert len(store.figures(2, "features")) == 4 and not store.results(2)["features"].reduced
    assert retrying.missing(network, 2) == []


def test_pictures_of_fewer_units_are_those_that_would_have_been_made(tmp_path, network):
    analyses = {"features": Features(steps=4, size=8, classes=0, crops=0)}
    examiners = [tiny.examiner(tmp_path / name, analyses, units=4) for name in ("whole", "fewer")]
    whole, fewer = (examiner.store for examiner in examiners)
    for examiner in examiners:
        examiner.examine(network, 1)
    examiners[0].examine(network, 2)
    cost = fewer.results(1)["features"].seconds
    examiners[1].examine(network, 2, seconds_allowed=cost * 0.6)
    pictures = {f.key: f.image for f in whole.figures(2, "features")}
    some = list(fewer.figures(2, "features"))
    assert len(pictures) == 4 and len(some) == 2
    assert all(torch.equal(figure.image, pictures[figure.key]) for figure in some)


def test_the_last_time_that_an_analysis_ran_is_what_counts(tmp_path):
    store = Store(tmp_path)
    for step, (seconds, error, reduced) in enumerate(
        [(3.0, None, {}), (7.0, "failed", {}), (0.0, None, {"analysis": [0, 1]})], start=1
    ):
        with store.writing(step, weights="w") as writer:
            writer.write("cam", AnalysisResult([], [], seconds, error, reduced=reduced))
    assert last_results(store, 4, ["cam", "other"])["cam"].seconds == 3.0
    assert last_results(store, 1, ["cam"]) == {}


def test_an_analysis_that_always_fails_costs_what_it_took(tmp_path):
    store = Store(tmp_path)
    for step in (1, 2):
        with store.writing(step, weights="w") as writer:
            writer.write("cam", AnalysisResult([], [], 50.0 * step, "failed"))
    past = last_results(store, 3, ["cam"])
    assert past["cam"].seconds == 100.0
    chosen = plan({"cam": ClassMaps()}, {"layer": [0]}, past, 10.0)
    assert chosen["cam"].left_out


def test_words():
    assert (
        AnalysisResult(reduced={"units": [4, 16], "steps": [16, 64]}).reduced_text
        == "4 of 16 units, 16 of 64 steps"
    )
    assert AnalysisResult(reduced={"analysis": [0, 1]}).reduced_text == "left out"
    assert AnalysisResult(reduced={"batch": [64, 256]}).reduced_text == "batches of 64, not 256"


def test_a_training_run_measures_its_own_time(tmp_path):
    settings = AnalysisSettings(layers=["0"], units=2, probes=3, device="cpu", budget=1e-9)
    _, callback = tiny.train(tmp_path, epochs=3, settings=settings)
    results = [Store(tmp_path).results(step)["plain"] for step in (4, 8, 12)]
    assert [result.reduced for result in results] == [{}, {"analysis": [0, 1]}, {"analysis": [0, 1]}]
    assert "plain at step 12: left out" in summarize(callback.reports)
