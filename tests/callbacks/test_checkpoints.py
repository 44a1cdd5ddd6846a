"""Which checkpoints are written; when, is in test_analyze_run."""

import shutil

import lightning
import pytest
import tiny

from vitrine.callbacks.checkpoints import CheckpointSettings, model_checkpoints
from vitrine.core.settings import SettingError
from vitrine.runs.checkpoint_files import read_step
from vitrine.runs.metrics_csv import read_curves


def test_epochs_and_steps_at_once_are_refused(tmp_path):
    with pytest.raises(SettingError, match="one of the two"):
        model_checkpoints(tmp_path, CheckpointSettings(every_epochs=1, every_steps=10))


def test_the_newest_stay_and_a_resumed_run_goes_on_counting(tmp_path):
    settings = CheckpointSettings(keep=2)
    tiny.train(tmp_path, epochs=2, checkpoints=settings)
    tiny.train(tmp_path, epochs=4, checkpoints=settings, resume=True)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["last.ckpt", "step=00000012.ckpt", "step=00000016.ckpt"]


@pytest.mark.parametrize("carry", [shutil.move, shutil.copytree])
def test_a_run_that_was_moved_or_copied_knows_its_newest_and_its_best(tmp_path, carry):
    settings = CheckpointSettings(keep=2, monitor="val/accuracy", mode="min")
    tiny.train(tmp_path / "before", epochs=2, checkpoints=settings)
    best = read_step(tmp_path / "before" / "checkpoints" / "best.ckpt")
    left = sorted(p.name for p in (tmp_path / "before" / "checkpoints").iterdir())
    carry(tmp_path / "before", tmp_path / "after")
    tiny.train(tmp_path / "after", epochs=4, checkpoints=settings, resume=True)
    kept = sorted(p.name for p in (tmp_path / "after" / "checkpoints").iterdir())
    assert kept == ["best.ckpt", "last.ckpt", "step=00000012.ckpt", "step=00000016.ckpt"]
    values = dict(read_curves(tmp_path / "after")["val/accuracy"])
    assert values[best] == min(values.values())  # of all four
    assert read_step(tmp_path / "after" / "checkpoints" / "best.ckpt") == best
    if carry is shutil.copytree:
        assert sorted(p.name for p in (tmp_path / "before" / "checkpoints").iterdir()) == left


def test_what_a_run_was_resumed_from_is_not_written_again(tmp_path):
    tiny.train(tmp_path, epochs=1)
    file = tmp_path / "checkpoints" / "step=00000004.ckpt"
    before = file.stat().st_mtime_ns
    tiny.train(tmp_path, epochs=2, resume=True)
    assert file.stat().st_mtime_ns == before


def test_a_disk_that_is_full_on_an_exception_does_not_hide_the_exception(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    class Raise(tiny.lightning.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                monkeypatch.setattr("vitrine.runs.checkpoint_io.AtomicCheckpointIO.save_checkpoint", full)
                raise ArithmeticError("the first thing that went wrong")

    with pytest.raises(ArithmeticError, match="the first thing"):
        tiny.train(tmp_path, extra=(Raise(),))


def test_a_validation_that_a_kill_cut_off_is_made_up_for(tmp_path):
    """The checkpoint of an epoch's last step comes after that epoch's validation, whoever asked for it."""

    class CutOff(lightning.Callback):
        def on_validation_start(self, trainer, *_):
            if trainer.global_step == 8:
                trainer.callbacks = []  # as if killed: nothing after it runs, nothing is saved
                raise ConnectionAbortedError

    settings = CheckpointSettings(every_steps=2)
    tiny.train(tmp_path / "whole", epochs=3, checkpoints=settings)
    with pytest.raises(ConnectionAbortedError):
        tiny.train(tmp_path / "cut", epochs=3, checkpoints=settings, extra=(CutOff(),))
    tiny.train(tmp_path / "cut", epochs=3, checkpoints=settings, resume=True)
    whole, cut = ((tmp_path / name / "metrics.csv").read_text() for name in ("whole", "cut"))
    assert cut == whole and "val/accuracy" in whole
