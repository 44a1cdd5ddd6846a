"""Promises 1, 2 and 3, over whole training runs."""

import json
import logging
from pathlib import Path

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.summary import summarize
from vitrine.runs.store import Store


def complete(run_dir: Path, step: int) -> dict:
    return json.loads((run_dir / "analysis" / f"step={step:08d}" / "complete.json").read_text())


class Raise(Callback):
    """At the end of the validation at a step."""

    def __init__(self, step: int, exception: BaseException):
        self.step, self.exception = step, exception

    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.global_step == self.step and not trainer.sanity_checking:
            raise self.exception


def test_training_with_analyses_is_bit_identical_to_training_without(tmp_path):
    without, _ = tiny.train(tmp_path / "off", analyses={}, checkpoints=CheckpointSettings(every_steps=3))
    nasty = {"nasty": tiny.Nasty(), "plain": tiny.Plain()}
    module, callback = tiny.train(
        tmp_path / "on", analyses=nasty, checkpoints=CheckpointSettings(every_steps=3)
    )
    assert tiny.weights(module) == tiny.weights(without)
    assert [r.step for r in callback.reports] == [3, 6, 8]
    assert torch.get_default_dtype() == torch.float32


def test_an_analysis_that_raises_is_recorded_and_counted_and_the_others_run(tmp_path, caplog):
    sink = tiny.Sink()
    _, callback = tiny.train(tmp_path, analyses={"nasty": tiny.Nasty(), "plain": tiny.Plain()}, sinks=(sink,))
    outcomes = Store(tmp_path).results(8)
    assert "failed on purpose" in outcomes["nasty"].error
    assert outcomes["plain"].error is None
    assert [f.key for f in Store(tmp_path).figures(8, "nasty")] == ["before"]
    assert "Traceback" in caplog.text
    assert "failed on purpose" in caplog.text
    assert "4 analyses of 2 checkpoints gave 4 pictures" in summarize(callback.reports)
    assert "2 failed" in summarize(callback.reports)
    assert "nasty at step 4: RuntimeError: failed on purpose" in summarize(callback.reports)
    assert sink.logged == [(4, ["nasty", "plain"]), (8, ["nasty", "plain"])]


def test_strict_raises_and_what_was_made_stays(tmp_path):
    settings = AnalysisSettings(layers=["0"], units=2, probes=3, strict=True)
    with pytest.raises(RuntimeError, match="failed on purpose"):
        tiny.train(tmp_path, analyses={"plain": tiny.Plain(), "nasty": tiny.Nasty()}, settings=settings)
    assert Store(tmp_path).results(4)["plain"].error is None


@pytest.mark.parametrize(
    ("checkpoints", "steps"),
    [
        (CheckpointSettings(), [4, 8]),
        (CheckpointSettings(every_epochs=2), [8]),
        (CheckpointSettings(every_steps=3), [3, 6, 8]),  # 8: the end
        (CheckpointSettings(every_steps=4), [4, 8]),
        (CheckpointSettings(at_start=True), [0, 4, 8]),
        (CheckpointSettings(keep=1), [4, 8]),
        (CheckpointSettings(monitor="val/accuracy"), [4, 8]),
    ],
    ids=str,
)
def test_each_checkpoint_is_looked_at_exactly_once(tmp_path, checkpoints, steps):
    sink = tiny.Sink()
    tiny.train(tmp_path, checkpoints=checkpoints, sinks=(sink,))
    assert sink.logged == [(step, ["plain"]) for step in steps]
    assert Store(tmp_path).steps() == steps
    names = [f"step={step:08d}.ckpt" for step in steps][-(checkpoints.keep or 99) :]
    best = ["best.ckpt"] if checkpoints.monitor else []
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [*best, "last.ckpt", *names]
    assert (tmp_path / "checkpoints" / "last.ckpt").resolve().name == names[-1]


def test_a_checkpoint_written_twice_and_by_somebody_else_is_looked_at_once(tmp_path):
    sink = tiny.Sink()
    theirs = ModelCheckpoint(tmp_path / "checkpoints", "theirs-{step}", every_n_train_steps=2, save_last=True)
    tiny.train(tmp_path, extra=(theirs,), sinks=(sink,))
    assert [step for step, _ in sink.logged] == [2, 4, 6, 8]


def test_validation_several_times_an_epoch_and_not_every_epoch(tmp_path):
    for name, options, epochs in [
        ("often", {"val_check_interval": 2}, 2),
        ("rarely", {"check_val_every_n_epoch": 2}, 3),
    ]:
        sink = tiny.Sink()
        tiny.train(tmp_path / name, sinks=(sink,), epochs=epochs, **options)
        assert [step for step, _ in sink.logged] == [4 * (epoch + 1) for epoch in range(epochs)]


def test_what_is_saved_on_an_exception_is_looked_at(tmp_path):
    sink = tiny.Sink()
    with pytest.raises(ArithmeticError):
        tiny.train(tmp_path, sinks=(sink,), extra=(Raise(4, ArithmeticError()),))
    assert sink.logged == [(4, ["plain"])]
    assert (tmp_path / "checkpoints" / "step=00000004.ckpt").exists()


def test_in_the_midst_of_a_step_nothing_is_saved(tmp_path):
    with pytest.raises(ArithmeticError, match="midst"):
        tiny.train(tmp_path, raise_at=6)
    assert Store(tmp_path).steps() == [4]
    assert not (tmp_path / "checkpoints" / "step=00000006.ckpt").exists()


def test_what_an_interrupt_saves_is_caught_up_on_at_the_next_start(tmp_path):
    with pytest.raises(SystemExit):
        tiny.train(tmp_path, extra=(Raise(4, KeyboardInterrupt()),))
    assert (tmp_path / "checkpoints" / "step=00000004.ckpt").exists()
    assert Store(tmp_path).steps() == []
    sink = tiny.Sink()
    tiny.train(tmp_path, resume=True, sinks=(sink,))
    assert sink.logged == [(4, ["plain"]), (8, ["plain"])]


def test_a_step_whose_pictures_are_there_is_not_looked_at_again_when_resumed(tmp_path):
    tiny.train(tmp_path, epochs=1)
    before = complete(tmp_path, 4)
    sink = tiny.Sink()
    tiny.train(tmp_path, epochs=2, resume=True, sinks=(sink,))
    assert sink.logged == [(8, ["plain"])]
    assert complete(tmp_path, 4) == before


def test_a_disk_that_refuses_to_write_pictures_does_not_stop_training(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    without, _ = tiny.train(tmp_path / "off", analyses={})
    with monkeypatch.context() as patch:
        patch.setattr("vitrine.runs.pictures.write", full)
        module, callback = tiny.train(tmp_path / "on", epochs=2)
    assert tiny.weights(module) == tiny.weights(without)
    assert "No space left" in caplog.text
    assert "2 failed" in summarize(callback.reports)
    assert not list((tmp_path / "on" / "analysis").iterdir())
    sink = tiny.Sink()
    tiny.train(tmp_path / "on", epochs=3, resume=True, sinks=(sink,))  # there is space again
    assert [step for step, _ in sink.logged] == [4, 8, 12]


def test_a_checkpoint_that_cannot_be_read_back_is_counted_not_raised(tmp_path, monkeypatch):
    def unreadable(_file):
        raise ValueError("not a checkpoint of ours")

    monkeypatch.setattr(tiny, "load", unreadable)
    _, callback = tiny.train(tmp_path)
    assert "checkpoint at step 8: ValueError: not a checkpoint of ours" in summarize(callback.reports)


def test_a_sink_that_fails_is_passed_over(tmp_path):
    class Broken:
        def log(self, *_):
            raise ConnectionError("no network")

    sink = tiny.Sink()
    _, callback = tiny.train(tmp_path, epochs=1, sinks=(Broken(), sink))
    assert sink.logged == [(4, ["plain"])]
    assert "Broken at step 4: ConnectionError: no network" in summarize(callback.reports)


def test_nothing_is_looked_at_in_the_sanity_check_or_a_fast_run(tmp_path):
    sink = tiny.Sink()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    tiny.train(tmp_path, sinks=(sink,), fast_dev_run=True)
    assert sink.logged == []
