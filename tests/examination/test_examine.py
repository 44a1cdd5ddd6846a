"""Only what is missing runs, and all of it is kept."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import torch

from vitrine.analyses.base import Analysis, Figure, Scalar
from vitrine.examination.examine import AnalysisSettings, examine, missing, summary, weights_hash
from vitrine.examination.subject import make_subject
from vitrine.runs.store import Store


@pytest.fixture
def subject():
    torch.manual_seed(0)
    data = tiny.TinyData()
    data.setup()
    return make_subject(tiny.tiny_network(), data, AnalysisSettings(layers=["0"], units=2, probes=2), 5)


class Once(tiny.Plain):
    """Counts how often it runs."""

    runs = 0

    def __call__(self, subject):
        Once.runs += 1
        yield from super().__call__(subject)


def test_only_what_is_missing_runs_and_joins_what_is_there(tmp_path: Path, subject):
    store, weights = Store(tmp_path), weights_hash(subject.network)
    first = examine(subject, {"plain": tiny.Plain()}, store, weights=weights)
    Once.runs = 0
    both = {"plain": Once(), "other": tiny.Plain()}
    assert missing(store, 5, both, weights) == ["other"]
    second = examine(subject, both, store, weights=weights)
    assert (list(first.seconds), list(second.seconds), Once.runs) == (["plain"], ["other"], 0)
    assert set(store.results(5)) == {"plain", "other"}
    assert examine(subject, both, store, weights=weights).seconds == {}


def test_other_weights_at_the_same_step_are_looked_at_anew(tmp_path, subject):
    store, analyses = Store(tmp_path), {"plain": tiny.Plain()}
    examine(subject, analyses, store, weights=weights_hash(subject.network))
    with torch.no_grad():
        subject.network[5].bias.add_(1)
    other = weights_hash(subject.network)
    assert missing(store, 5, analyses, other) == ["plain"]
    examine(subject, analyses, store, weights=other)
    assert store.weights(5) == other


def test_a_failure_counts_as_had_unless_it_is_to_be_tried_again(tmp_path, subject):
    store, weights = Store(tmp_path), weights_hash(subject.network)
    analyses = {"flaky": tiny.Nasty()}
    report = examine(subject, analyses, store, weights=weights)
    assert report.errors == {"flaky": "RuntimeError: failed on purpose"}
    assert missing(store, 5, analyses, weights) == []
    assert missing(store, 5, analyses, weights, again=True) == ["flaky"]
    mended = examine(subject, {"flaky": tiny.Plain()}, store, weights=weights, again=True)
    assert not mended.errors
    assert store.results(5)["flaky"].error is None
    assert [f.key for f in store.figures(5, "flaky")] == ["0/unit-000"]


def test_what_is_not_enabled_does_not_run(tmp_path, subject):
    report = examine(subject, {"plain": tiny.Plain(enabled=False)}, Store(tmp_path), weights="0")
    assert report.seconds == {}
    assert Store(tmp_path).steps() == []


def test_pictures_that_cannot_be_kept_are_a_failure_of_their_analysis(tmp_path, subject):
    class Twice(tiny.Plain):
        def __call__(self, subject):
            yield from super().__call__(subject)
            yield from super().__call__(subject)

    report = examine(subject, {"twice": Twice(), "plain": tiny.Plain()}, Store(tmp_path), weights="0")
    assert list(report.errors) == ["twice"]
    assert Store(tmp_path).results(5)["plain"].error is None


def test_an_interrupt_goes_through_and_leaves_nothing_half_made(tmp_path, subject):
    class Interrupted(tiny.Plain):
        def __call__(self, subject):
            yield from super().__call__(subject)
            raise KeyboardInterrupt

    analyses = {"plain": tiny.Plain(), "interrupted": Interrupted()}
    with pytest.raises(KeyboardInterrupt):
        examine(subject, analyses, Store(tmp_path), weights="0")
    assert list((tmp_path / "analysis").iterdir()) == []


def test_the_hash_is_of_names_and_values_alone():
    torch.manual_seed(0)
    network = tiny.tiny_network()
    again = tiny.tiny_network()
    again.load_state_dict(network.state_dict())
    assert weights_hash(again.eval().requires_grad_(False)) == weights_hash(network)
    with torch.no_grad():
        again[1].running_var[0] += 1e-7 + again[1].running_var[0] * 1e-6
    assert weights_hash(again) != weights_hash(network)


def test_the_summary_counts():
    assert summary([]) == "no checkpoint was looked at"


def test_other_settings_are_looked_at_anew_where_that_is_asked_for(tmp_path, subject):
    store, weights = Store(tmp_path), weights_hash(subject.network)
    examine(subject, {"sized": Sized(size=2)}, store, weights=weights)
    assert missing(store, 5, {"sized": Sized(size=3)}, weights) == []  # in training: once a checkpoint
    assert missing(store, 5, {"sized": Sized(size=2)}, weights, again=True) == []
    examine(subject, {"sized": Sized(size=3)}, store, weights=weights, again=True)
    assert store.figures(5, "sized")[0].image.shape[0] == 3


@dataclass(frozen=True)
class Sized(Analysis):
    size: int = 2

    def __call__(self, subject):
        yield Figure("picture", torch.zeros(self.size, 2, 3, dtype=torch.uint8), "a picture")


@dataclass(frozen=True)
class Long(Analysis):
    """Three steps, each kept; `stop` says after which it is interrupted."""

    stop: int = 9

    def __call__(self, subject):
        done = (subject.scratch.load("steps") or {"done": 0})["done"]
        yield Scalar("found", float(done))
        for step in range(done + 1, 4):
            subject.scratch.save("steps", {"done": step})
            if step == self.stop:
                raise KeyboardInterrupt


def test_what_a_long_analysis_keeps_is_there_after_an_interrupt_and_gone_once_it_is_complete(
    tmp_path, subject
):
    store, weights = Store(tmp_path), weights_hash(subject.network)
    with pytest.raises(KeyboardInterrupt):
        examine(subject, {"long": Long(stop=2)}, store, weights=weights)
    examine(subject, {"long": Long(), "other": Long()}, store, weights=weights)
    assert store.scalars(5, "long")[0].value == 2  # of steps, where it went on
    assert store.scalars(5, "other")[0].value == 0  # each has its own
    assert [path.name for path in (tmp_path / "analysis").iterdir()] == ["step=00000005"]
