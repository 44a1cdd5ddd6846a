"""Two processes train and examine together: the pictures are those of one, whatever happens to either."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import launch
import lightning
import pytest
import tiny
import torch
import torch.distributed as dist

from vitrine.analyses.base import Analysis, Figure, File, Scalar, State, Subject
from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.distributed import interruption
from vitrine.examination.settings import AnalysisSettings
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow

TWO = {"devices": 2, "strategy": "ddp"}
EXAMINED = {"layers": ["0"], "units": 4, "probes": 3, "device": "cpu"}


@dataclass(frozen=True)
class Sharded(Analysis):
    """A picture a unit, and their mean; rank 1 raises in its midst."""

    sharded: ClassVar[bool] = True
    raises: str = ""
    most: int = 1000  # images a batch that memory has room for

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        def fail(where: str) -> None:
            if self.raises == where and subject.rank == 1:
                raise ValueError(f"{where}, on purpose")

        fail("before")
        if subject.rank == 1 and subject.batch_size > self.most:
            raise MemoryError("no more")
        for layer, units in subject.units.items():
            weight = dict(subject.network.named_modules())[layer].weight
            shades = subject.cached(("shades", layer), lambda weight=weight: self._shades(subject, weight))
            fail("between")
            figures = subject.map_sharded(
                list(units), lambda own, s=shades: [self._figure(u, s[u]) for u in own]
            )
            yield from figures
            yield Scalar("shade", sum(f.values["shade"] for f in figures) / len(figures), layer)
        fail("after")

    def _shades(self, subject: Subject, weight: torch.Tensor) -> list[float]:
        return subject.map_sharded(list(weight), lambda own: [w.sum().item() for w in own])

    def _figure(self, unit: int, shade: float) -> Figure:
        image = torch.full((4, 4, 3), int(abs(shade) * 100) % 256, dtype=torch.uint8)
        return Figure(f"0/unit-{unit:03d}", image, "a filter", layer="0", unit=unit, values={"shade": shade})


@dataclass(frozen=True)
class Whole(Analysis):
    """Somebody else's, who knows nothing of ranks."""

    raises: bool = False

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        assert (subject.rank, subject.world_size) == (0, 1)
        yield Scalar("process", os.getpid())
        yield Figure(
            "it",
            torch.zeros(2, 2, 3, dtype=torch.uint8),
            "it",
            values={"sum": float(sum(subject.all_gather(2)))},
        )
        if self.raises:
            raise ValueError("whole, on purpose")


@dataclass(frozen=True)
class Remembers(Analysis):
    """Hands on which steps it has seen, and what large tensors of all ranks have held."""

    name: str = ""

    def __call__(self, subject: Subject) -> Iterator[Scalar | State | File]:
        before = subject.previous_state.get(self.name, {}).get("steps", torch.zeros(0))
        large = subject.scratch.empty("large", (2, 3)).fill_(subject.rank)
        known = subject.all_gather((before.tolist(), large.sum().item()))
        assert all(steps == before.tolist() for steps, _ in known)
        yield Scalar("process", os.getpid())
        yield Scalar("large", sum(held for _, held in known))
        yield State({"steps": torch.cat([before, torch.tensor([float(subject.step)])])})
        yield File("process.txt", f"{os.getpid()}.0")


class RemembersTogether(Remembers):
    sharded: ClassVar[bool] = True


ANALYSES = {
    "well": Sharded(),
    "before": Sharded(raises="before"),
    "between": Sharded(raises="between"),
    "after": Sharded(raises="after"),
    "again": Sharded(),
    "scarce": Sharded(most=64),
    "one": Whole(),
    "another": Whole(),
    "fails": Whole(raises=True),
    "alone": Remembers(name="alone"),
    "alone_too": Remembers(name="alone_too"),
    "together": RemembersTogether(name="together"),
}


def trained(run_dir: Path, analyses: dict, strict: bool = False, load=None, **options) -> list[float]:
    if load is not None:
        tiny.load = load
    settings = AnalysisSettings(**EXAMINED, strict=strict)
    module, callback = tiny.train(run_dir, analyses=analyses, settings=settings, **TWO, **options)
    assert bool(callback.reports) == (dist.get_rank() == 0 and bool(analyses))
    return tiny.weights(module)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, list]:
    """A run with all that can go wrong in an analysis, and the final weights of both ranks."""
    run_dir = tmp_path_factory.mktemp("together") / "run"
    return run_dir, launch.run_ranks(trained, run_dir, ANALYSES)


def complete(run_dir: Path, step: int) -> dict:
    return json.loads((run_dir / "analysis" / f"step={step:08d}" / "complete.json").read_text())["analyses"]


def test_all_ranks_end_with_the_same_weights_as_without_analyses(run, tmp_path):
    _, (first, second) = run
    assert isinstance(first, list), first
    assert first == second
    assert launch.run_ranks(trained, tmp_path / "off", {})[0] == first


def test_what_fails_on_another_rank_is_recorded_with_its_traceback_and_the_rest_is_made(run):
    run_dir, _ = run
    assert Store(run_dir).steps() == [2, 4]
    for step in (2, 4):
        found = complete(run_dir, step)
        assert set(found) == set(ANALYSES)
        for name in ("before", "between", "after"):
            assert f"rank 1: ValueError: {name}, on purpose" in found[name]["error"]
            assert "in fail" in found[name]["error"]  # where it was raised
        assert "whole, on purpose" in found["fails"]["error"]
        assert not any(found[name]["error"] for name in ("well", "again", "scarce", "one", "another"))
        assert found["scarce"]["reduced"] == {"batch": [64, 256]}


def test_pictures_and_curves_are_in_the_order_of_one_process(run, tmp_path):
    run_dir, _ = run
    alone = {name: ANALYSES[name] for name in ("well", "again")}
    file = run_dir / "checkpoints" / "step=00000004.ckpt"
    report = tiny.examiner(tmp_path, alone, **EXAMINED).examine_loaded(lambda: tiny.load(file), 4)
    assert not report.errors
    for name in alone:
        mine, theirs = Store(run_dir), Store(tmp_path)
        assert mine.entries(4, name) == theirs.entries(4, name)
        assert mine.scalars(4, name) == theirs.scalars(4, name)
        for a, b in zip(mine.figures(4, name), theirs.figures(4, name), strict=True):
            assert torch.equal(a.image, b.image)


def test_analyses_that_are_not_sharded_are_shared_out(run):
    run_dir, _ = run
    names = ("one", "another", "fails", "alone", "alone_too")
    processes = {n: Store(run_dir).scalars(4, n)[0].value for n in names}
    assert len(set(processes.values())) == 2
    assert Store(run_dir).figures(4, "one")[0].values == {"sum": 2.0}


def test_states_and_files_arrive_whichever_rank_yields_them(run):
    run_dir, _ = run
    for name in ("alone", "alone_too", "together"):
        found = {step: Store(run_dir).results(step)[name] for step in (2, 4)}
        assert not any(result.error for result in found.values()), found
        assert [result.state["steps"].tolist() for result in found.values()] == [[2], [2, 4]]
        process, large = found[4].scalars
        assert found[4].files["process.txt"] == str(process.value)
        assert large.value == (6 if name == "together" else 0)  # each rank's is its own
    assert not list((run_dir / "analysis").glob(".unfinished"))


def test_strict_raises_on_every_rank(tmp_path):
    start = time.monotonic()
    first, second = launch.run_ranks(trained, tmp_path, {"after": ANALYSES["after"]}, True)
    assert "rank 1: ValueError: after, on purpose" in first
    assert "after, on purpose" in second
    assert time.monotonic() - start < 60


def unreadable(file: Path):
    if dist.get_rank() == 1:
        raise OSError(f"{file.name} is not on this machine")
    return LOAD(file)


LOAD = tiny.load


def test_a_checkpoint_that_one_rank_cannot_read_is_reported_and_training_goes_on(tmp_path):
    first, second = launch.run_ranks(trained, tmp_path, {"well": Sharded()}, False, unreadable)
    assert isinstance(first, list) and first == second
    assert Store(tmp_path).steps() == []


def full_disk(run_dir: Path) -> list[float]:
    from vitrine.runs import pictures

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    pictures.write = full
    return trained(run_dir, {"well": Sharded(), "again": Sharded()})


def test_a_disk_that_refuses_to_write_pictures_does_not_stop_any_rank(tmp_path, run):
    first, second = launch.run_ranks(full_disk, tmp_path)
    assert first == second == run[1][0]
    assert Store(tmp_path).steps() == []


class RaiseOnOne(lightning.Callback):
    """On rank 1, between two steps, where a checkpoint has just been written."""

    def on_validation_end(self, trainer, pl_module):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise ArithmeticError("on one rank")


def one_raises(run_dir: Path) -> list[float]:
    return trained(run_dir, {"well": Sharded()}, extra=(RaiseOnOne(),))


def test_an_exception_on_one_rank_ends_both_and_none_waits_to_save(tmp_path):
    start = time.monotonic()
    first, second = launch.run_ranks(one_raises, tmp_path)
    assert second == "ArithmeticError: on one rank"
    assert isinstance(first, str)
    assert time.monotonic() - start < 60
    assert not (tmp_path / "checkpoints" / "step=00000004.ckpt").exists()


@dataclass(frozen=True)
class Long(Analysis):
    """Asked to end in its midst, as all ranks are by a launcher."""

    sharded: ClassVar[bool] = True

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in subject.progress(range(1000), "long", 1000):
            time.sleep(0.1)
        yield Scalar("done", 1.0)


def signalled(run_dir: Path) -> list[float]:
    with interruption.handle_signals():
        return trained(run_dir, {"long": Long()})


def test_a_signal_in_an_analysis_ends_all_ranks_without_waiting_for_it(tmp_path):
    start = time.monotonic()
    assert (
        launch.run_ranks(signalled, tmp_path) == ["vitrine.distributed.interruption.Interrupted: SIGTERM"] * 2
    )
    assert time.monotonic() - start < 60
    assert (tmp_path / "checkpoints" / "step=00000002.ckpt").is_file()
    assert Store(tmp_path).steps() == []


def cut(run_dir: Path, kill: int | None, resume: bool = False) -> list[float]:
    checkpoints = CheckpointSettings(every_steps=2)
    extra = () if kill is None else (tiny.KillAt(kill),)
    options = {"checkpoints": checkpoints, "extra": extra, "resume": resume, "epochs": 4}
    return trained(run_dir, {"well": Sharded()}, **options)


def test_killed_ranks_resume_and_end_in_the_weights_of_the_unkilled(tmp_path):
    whole, _ = launch.run_ranks(cut, tmp_path / "whole", None)
    assert launch.run_ranks(cut, tmp_path / "cut", 5) == [-9, -9]
    first, second = launch.run_ranks(cut, tmp_path / "cut", None, True)
    assert isinstance(whole, list), whole
    assert first == second == whole
    assert Store(tmp_path / "cut").steps() == Store(tmp_path / "whole").steps() == [2, 4, 6, 8]
