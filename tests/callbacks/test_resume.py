"""Promise 5: a killed run, resumed, ends as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning
import pytest
import torch

import tiny
from callbacks.checkpoints import CheckpointSettings
from callbacks.resume import damage_of, last_good_checkpoint, step_of
from gallery.store import Store

ROOT = Path(__file__).resolve().parents[2]


def start(run_dir: Path, *options: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = Path(__file__).with_name("tiny.py")
    return subprocess.Popen([sys.executable, str(program), str(run_dir), *options], env=environment)


def metrics(run_dir: Path) -> str:
    return (run_dir / "metrics.csv").read_text()


class StopAt(lightning.Callback):
    """As if killed, without the cost of another process: nothing after it runs, nothing is saved."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.callbacks = []
            raise ConnectionAbortedError


@pytest.mark.parametrize("every_steps", [None, 1, 2, 3], ids=lambda n: f"every_steps={n}")
@pytest.mark.parametrize("limit", [{}, {"max_steps": 11}, {"val_check_interval": 2}], ids=str)
def test_a_run_cut_off_at_any_step_ends_in_the_same_weights(tmp_path, every_steps, limit):
    settings = CheckpointSettings(every_steps=every_steps)
    whole, _ = tiny.train(tmp_path / "whole", epochs=3, checkpoints=settings, **limit)
    for step in (1, 3, 4, 5, 8, 10):
        run_dir = tmp_path / f"cut-{step}"
        with pytest.raises(ConnectionAbortedError):
            tiny.train(run_dir, epochs=3, checkpoints=settings, extra=(StopAt(step),), **limit)
        resumed, _ = tiny.train(run_dir, epochs=3, checkpoints=settings, resume=True, **limit)
        assert tiny.weights(resumed) == tiny.weights(whole), f"cut at step {step}"
        assert Store(run_dir).steps() == Store(tmp_path / "whole").steps()


def test_a_run_cut_off_twice_ends_in_the_same_weights(tmp_path):
    settings = CheckpointSettings(every_steps=3)
    whole, _ = tiny.train(tmp_path / "whole", epochs=3, checkpoints=settings)
    for step in (5, 10):
        with pytest.raises(ConnectionAbortedError):
            tiny.train(
                tmp_path / "cut", epochs=3, checkpoints=settings, extra=(StopAt(step),), resume=True
            )
    resumed, _ = tiny.train(tmp_path / "cut", epochs=3, checkpoints=settings, resume=True)
    assert tiny.weights(resumed) == tiny.weights(whole)


@pytest.mark.parametrize("step", [3, 6])
def test_a_run_killed_with_sigkill_ends_in_the_same_weights_and_metrics(tmp_path, step):
    whole, _ = tiny.train(tmp_path / "whole", checkpoints=CheckpointSettings(every_steps=2))
    run_dir = tmp_path / "killed"
    assert start(run_dir, "--every-steps=2", f"--kill={step}").wait(120) == -signal.SIGKILL
    assert start(run_dir, "--every-steps=2", "--resume").wait(120) == 0
    assert torch.load(run_dir / "final.pt") == tiny.weights(whole)
    assert Store(run_dir).steps() == [2, 4, 6, 8]


def test_a_kill_in_an_analysis_leaves_nothing_half_made_and_is_caught_up_on(tmp_path):
    whole, _ = tiny.train(tmp_path / "whole", checkpoints=CheckpointSettings(every_steps=3))
    run_dir = tmp_path / "killed"
    process = start(run_dir, "--every-steps=3", "--slow=60")
    deadline = time.monotonic() + 120
    while not (run_dir / "analysis").exists() and time.monotonic() < deadline:  # made as the first begins
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert (run_dir / "checkpoints" / "step=00000003.ckpt").exists()
    assert Store(run_dir).steps() == []
    assert start(run_dir, "--every-steps=3", "--resume").wait(120) == 0
    assert torch.load(run_dir / "final.pt") == tiny.weights(whole)
    assert Store(run_dir).steps() == [3, 6, 8]


def test_sigterm_and_ctrl_c_stop_between_steps_and_the_run_goes_on_exactly(tmp_path):
    class Signal(lightning.Callback):
        def __init__(self, number):
            self.number = number

        def on_before_optimizer_step(self, trainer, *_):  # in the midst of the step after 5
            if trainer.global_step == 5:
                os.kill(os.getpid(), self.number)

    whole, _ = tiny.train(tmp_path / "whole")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        run_dir, before = tmp_path / number.name, signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit):
            tiny.train(run_dir, extra=(Signal(number),))
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on: the process is to end
        assert step_of(last_good_checkpoint(run_dir)) == 6
        resumed, _ = tiny.train(run_dir, resume=True)
        assert tiny.weights(resumed) == tiny.weights(whole), number.name
        assert Store(run_dir).steps() == [4, 6, 8]


def test_a_truncated_and_a_flipped_checkpoint_are_passed_over_with_a_warning(tmp_path, caplog):
    settings = CheckpointSettings(every_steps=2)
    whole, _ = tiny.train(tmp_path, checkpoints=settings)
    folder = tmp_path / "checkpoints"
    assert last_good_checkpoint(tmp_path) == folder / "step=00000008.ckpt"
    truncated, flipped = folder / "step=00000008.ckpt", folder / "step=00000006.ckpt"
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    content = bytearray(flipped.read_bytes())
    place = bytes(torch.load(flipped, weights_only=True)["state_dict"]["network.0.weight"].numpy().tobytes())
    content[content.index(place) + 5] ^= 1
    flipped.write_bytes(content)
    torch.load(flipped, weights_only=True)  # torch itself sees nothing wrong
    assert last_good_checkpoint(tmp_path) == folder / "step=00000004.ckpt"
    assert "step=00000008.ckpt" in caplog.text
    assert "step=00000006.ckpt" in caplog.text
    assert "damaged" in caplog.text
    again, _ = tiny.train(tmp_path, checkpoints=settings, resume=True)
    assert tiny.weights(again) == tiny.weights(whole)
    assert last_good_checkpoint(tmp_path) == folder / "step=00000008.ckpt"


def test_where_there_is_nothing_to_resume_from_there_is_none(tmp_path):
    assert last_good_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").symlink_to("step=00000004.ckpt")
    (tmp_path / "checkpoints" / "step=00000002.ckpt").write_bytes(b"")
    assert last_good_checkpoint(tmp_path) is None


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "step=00000002.ckpt"
    torch.save({"global_step": 2, "state_dict": {}, "bomb": Bomb()}, file)
    assert damage_of(file)
    assert last_good_checkpoint(tmp_path) is None
    assert not (tmp_path / "exploded").exists()


def test_a_copy_under_another_name_serves_where_the_rest_is_gone(tmp_path):
    tiny.train(tmp_path, checkpoints=CheckpointSettings(monitor="val/accuracy"), epochs=1)
    folder = tmp_path / "checkpoints"
    (folder / "step=00000004.ckpt").unlink()
    assert last_good_checkpoint(tmp_path) == folder / "best.ckpt"
