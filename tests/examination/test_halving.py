"""An analysis that runs out of memory is tried again with half the batch."""

import json
from dataclasses import dataclass

import pytest
import tiny
import torch

from vitrine.analyses import visualizer
from vitrine.analyses.base import Analysis, Figure, Scalar
from vitrine.analyses.features import Features
from vitrine.core.memory import is_out_of_memory
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.subject import make_subject
from vitrine.runs.store import Store

SAID = {
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "host": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    ),
    "python": MemoryError,
}


@dataclass(frozen=True)
class Hungry(Analysis):
    """Has room for batches of so many images."""

    room: int = 8
    says: str = "device"

    def __call__(self, subject):
        yield Figure("first", torch.zeros(2, 2, 3, dtype=torch.uint8), "made before memory ran out")
        if subject.batch_size > self.room:
            raise SAID[self.says]()
        yield Scalar("batch", float(subject.batch_size))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return tiny.tiny_network().eval()


@pytest.mark.slow
@pytest.mark.parametrize("says", SAID)
def test_the_batch_is_halved_until_there_is_room_and_that_is_recorded(tmp_path, network, says, caplog):
    store, analyses = Store(tmp_path), {"hungry": Hungry(says=says)}
    examiner = tiny.examiner(tmp_path, analyses, batch_size=32, retry=True)
    assert not examiner.examine(network, 5).errors
    assert [scalar.value for scalar in store.scalars(5, "hungry")] == [8]
    assert len(store.figures(5, "hungry")) == 1  # nothing twice
    complete = json.loads((store.step_folder(5) / "complete.json").read_text())
    assert complete["analyses"]["hungry"]["reduced"] == {"batch": [8, 32]}
    assert "again with batches of 16" in caplog.text
    assert examiner.missing(network, 5) == []  # another try would end the same way


@pytest.mark.slow
def test_without_room_for_one_image_it_is_reported_and_the_next_one_runs(tmp_path, network):
    analyses = {"hungry": Hungry(room=0), "plain": tiny.Plain()}
    report = tiny.examiner(tmp_path, analyses, batch_size=32).examine(network, 5)
    assert list(report.errors) == ["hungry"] and "out of memory" in report.errors["hungry"]
    assert Store(tmp_path).results(5)["plain"].error is None


@pytest.mark.slow
def test_an_analysis_own_batch_is_halved_too(tmp_path, network):
    @dataclass(frozen=True)
    class Own(Analysis):
        batch_size: int = 64

        def __call__(self, subject):
            if self.batch_size > 4:
                raise MemoryError
            yield Scalar("batch", float(self.batch_size))

    tiny.examiner(tmp_path, {"own": Own()}, batch_size=1).examine(network, 5)
    assert Store(tmp_path).scalars(5, "own")[0].value == 4


def test_other_failures_are_not_tried_again(tmp_path, network):
    calls = []

    class Wrong(tiny.Plain):
        def __call__(self, subject):
            calls.append(subject.batch_size)
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
            yield

    assert tiny.examiner(tmp_path, {"wrong": Wrong()}, batch_size=32).examine(network, 5).errors
    assert calls == [32]


def test_what_the_allocator_of_the_host_really_says_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_features_make_fewer_pictures_at_a_time(network, monkeypatch):
    data = tiny.TinyData()
    data.setup()
    settings = AnalysisSettings(layers=["0"], units=2, probes=2, batch_size=2)
    subject = make_subject(network, data, settings, 5)
    sizes, real = [], visualizer.visualize

    def visualize(*args, batch_size, **how):
        sizes.append(batch_size)
        return real(*args, batch_size=batch_size, **how)

    monkeypatch.setattr(visualizer, "visualize", visualize)
    list(Features(steps=1, size=8, crops=0)(subject))
    assert set(sizes) == {2}
