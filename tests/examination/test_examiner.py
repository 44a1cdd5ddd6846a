"""Only what is missing runs, and all of it is kept."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import torch

from vitrine.analyses.base import Analysis, Figure, Scalar
from vitrine.examination.examiner import weights_hash
from vitrine.examination.summary import summarize
from vitrine.reporting.sinks import named_scalars
from vitrine.runs.store import Store


@pytest.fixture
def network():
    torch.manual_seed(0)
    return tiny.tiny_network().eval()


class Once(tiny.Plain):
    """Counts how often it runs."""

    runs = 0

    def __call__(self, subject):
        Once.runs += 1
        yield from super().__call__(subject)


def test_only_what_is_missing_runs_and_joins_what_is_there(tmp_path: Path, network):
    first = tiny.examiner(tmp_path, {"plain": tiny.Plain()}).examine(network, 5)
    Once.runs = 0
    both = tiny.examiner(tmp_path, {"plain": Once(), "other": tiny.Plain()})
    assert both.missing(network, 5) == ["other"]
    second = both.examine(network, 5)
    assert (list(first.seconds), list(second.seconds), Once.runs) == (["plain"], ["other"], 0)
    assert set(both.store.results(5)) == {"plain", "other"}
    assert both.examine(network, 5).seconds == {}


def test_other_weights_at_the_same_step_are_looked_at_anew(tmp_path, network):
    examiner = tiny.examiner(tmp_path, {"plain": tiny.Plain()})
    examiner.examine(network, 5)
    with torch.no_grad():
        network[5].bias.add_(1)
    assert examiner.missing(network, 5) == ["plain"]
    examiner.examine(network, 5)
    assert examiner.store.weights(5) == weights_hash(network)


def test_a_failure_counts_as_had_unless_it_is_to_be_tried_again(tmp_path, network):
    store, analyses = Store(tmp_path), {"flaky": tiny.Nasty()}
    examiner = tiny.examiner(tmp_path, analyses)
    assert examiner.examine(network, 5).errors == {"flaky": "RuntimeError: failed on purpose"}
    assert examiner.missing(network, 5) == []
    assert tiny.examiner(tmp_path, analyses, retry=True).missing(network, 5) == ["flaky"]
    mended = tiny.examiner(tmp_path, {"flaky": tiny.Plain()}, retry=True).examine(network, 5)
    assert not mended.errors
    assert store.results(5)["flaky"].error is None
    assert [f.key for f in store.figures(5, "flaky")] == ["0/unit-000"]


class Inapplicable(Analysis):
    """Has nothing to say of any network."""

    def __call__(self, subject):
        return iter(())


def test_what_does_not_apply_to_the_network_is_had_without_a_word(tmp_path, network):
    examiner = tiny.examiner(tmp_path, {"nothing": Inapplicable(), "plain": tiny.Plain()})
    report = examiner.examine(network, 5)
    assert list(report.seconds) == ["plain"] and not report.errors
    assert examiner.missing(network, 5) == []
    assert "1 analyses of 1 checkpoints" in summarize([report])
    assert named_scalars("nothing", report.results["nothing"]) == {}


def test_what_is_not_enabled_does_not_run(tmp_path, network):
    report = tiny.examiner(tmp_path, {"plain": tiny.Plain(enabled=False)}).examine(network, 5)
    assert report.seconds == {}
    assert Store(tmp_path).steps() == []


def test_pictures_that_cannot_be_kept_are_a_failure_of_their_analysis(tmp_path, network):
    class Twice(tiny.Plain):
        def __call__(self, subject):
            yield from super().__call__(subject)
            yield from super().__call__(subject)

    report = tiny.examiner(tmp_path, {"twice": Twice(), "plain": tiny.Plain()}).examine(network, 5)
    assert list(report.errors) == ["twice"]
    assert Store(tmp_path).results(5)["plain"].error is None


def test_an_interrupt_goes_through_and_leaves_nothing_half_made(tmp_path, network):
    class Interrupted(tiny.Plain):
        def __call__(self, subject):
            yield from super().__call__(subject)
            raise KeyboardInterrupt

    analyses = {"plain": tiny.Plain(), "interrupted": Interrupted()}
    with pytest.raises(KeyboardInterrupt):
        tiny.examiner(tmp_path, analyses).examine(network, 5)
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
    assert summarize([]) == "no checkpoint was analyzed"


def test_other_settings_are_looked_at_anew_where_that_is_asked_for(tmp_path, network):
    small, large = {"sized": Sized(size=2)}, {"sized": Sized(size=3)}
    tiny.examiner(tmp_path, small).examine(network, 5)
    assert tiny.examiner(tmp_path, large).missing(network, 5) == []  # in training: once a checkpoint
    assert tiny.examiner(tmp_path, small, retry=True).missing(network, 5) == []
    tiny.examiner(tmp_path, large, retry=True).examine(network, 5)
    assert Store(tmp_path).figures(5, "sized")[0].image.shape[0] == 3


@pytest.mark.parametrize(
    "other",
    [{"units": 1}, {"units": [1, 3]}, {"layers": ["2"]}, {"probes": 3}, {"split": "train"}, {"seed": 1}],
)
def test_what_decides_every_picture_is_made_anew_where_it_changed_and_that_is_asked_for(
    tmp_path, network, other
):
    tiny.examiner(tmp_path, {"plain": tiny.Plain()}).examine(network, 5)
    assert tiny.examiner(tmp_path, {"plain": tiny.Plain()}, **other).missing(network, 5) == []
    anew = tiny.examiner(tmp_path, {"plain": tiny.Plain()}, retry=True, **other)
    assert anew.missing(network, 5) == ["plain"]
    anew.examine(network, 5)
    assert anew.missing(network, 5) == []


def test_what_decides_no_picture_makes_none_anew(tmp_path, network):
    tiny.examiner(tmp_path, {"plain": tiny.Plain()}).examine(network, 5)
    how = {"batch_size": 3, "device": "cpu", "budget": 0.5, "strict": True, "mode": "follow"}
    assert tiny.examiner(tmp_path, {"plain": tiny.Plain()}, retry=True, **how).missing(network, 5) == []


@pytest.mark.parametrize("known", [(), ("units", "seed")])
def test_what_an_older_record_does_not_tell_counts_as_the_same(tmp_path, network, known):
    tiny.examiner(tmp_path, {"plain": tiny.Plain()}).examine(network, 5)
    file = Store(tmp_path).step_folder(5) / "complete.json"
    complete = json.loads(file.read_text())
    subject = complete["analyses"]["plain"].pop("subject")
    if known:
        complete["analyses"]["plain"]["subject"] = {key: subject[key] for key in known}
    file.write_text(json.dumps(complete))
    assert tiny.examiner(tmp_path, {"plain": tiny.Plain()}, retry=True, probes=3).missing(network, 5) == []
    fewer = tiny.examiner(tmp_path, {"plain": tiny.Plain()}, retry=True, units=1)
    assert fewer.missing(network, 5) == (["plain"] if known else [])


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
    tmp_path, network
):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        tiny.examiner(tmp_path, {"long": Long(stop=2)}).examine(network, 5)
    tiny.examiner(tmp_path, {"long": Long(), "other": Long()}).examine(network, 5)
    assert store.scalars(5, "long")[0].value == 2  # of steps, where it went on
    assert store.scalars(5, "other")[0].value == 0  # each has its own
    assert [path.name for path in (tmp_path / "analysis").iterdir()] == ["step=00000005"]
