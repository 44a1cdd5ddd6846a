"""Promise 5: a killed run, resumed, ends as if it had not been."""

import contextlib
import itertools
import os
import signal
import time
from multiprocessing import Process
from pathlib import Path

import forked
import lightning
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.examination.examiner import weights_hash
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules.vision_transformer import SmallVisionTransformer
from vitrine.runs.checkpoint_files import find_damage, last_good_checkpoint
from vitrine.runs.store import Store


def start(run_dir: Path, **options) -> Process:
    return forked.start(tiny.run, run_dir, **options)


def status(process: Process) -> int | None:
    process.join(120)
    return process.exitcode


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


# Checkpoints and cuts fall within an epoch of 4 steps, at its end, before and after its validation.
LIMITS = [{}, {"max_steps": 11}, {"val_check_interval": 2}, {"accumulate_grad_batches": 2}]
CUTS = [
    ({}, None, 3),
    ({}, None, 5),
    ({}, 2, 5),
    ({}, 3, 8),
    (LIMITS[1], None, 5),
    (LIMITS[2], 2, 3),
    (LIMITS[3], 1, 3),
]
if os.environ.get("VITRINE_THOROUGH"):
    CUTS = list(itertools.product(LIMITS, [None, 1, 2, 3], range(1, 11)))


@pytest.mark.parametrize(("limit", "every_steps", "step"), CUTS, ids=str)
def test_a_run_cut_off_at_any_step_ends_in_the_same_weights(tmp_path, limit, every_steps, step):
    options = {"epochs": 3, "checkpoints": CheckpointSettings(every_steps=every_steps), **limit}
    whole, _ = tiny.train(tmp_path / "whole", **options)
    with contextlib.suppress(ConnectionAbortedError):
        tiny.train(tmp_path / "cut", extra=(StopAt(step),), **options)
    resumed, _ = tiny.train(tmp_path / "cut", resume=True, **options)
    assert tiny.weights(resumed) == tiny.weights(whole)
    assert Store(tmp_path / "cut").steps() == Store(tmp_path / "whole").steps()


@pytest.mark.slow
def test_which_branches_stochastic_depth_leaves_out_is_resumed_exactly_too(tmp_path, monkeypatch):
    sizes = {"image_size": 8, "width": 12, "depth": 3, "stochastic_depth": 0.5}
    monkeypatch.setattr(tiny, "tiny_network", lambda: SmallVisionTransformer(2, **sizes))
    settings = AnalysisSettings(layers=["patch_embed"], units=2, probes=3, device="cpu")
    options = {"checkpoints": CheckpointSettings(every_steps=2), "analyses": {}, "settings": settings}
    whole, _ = tiny.train(tmp_path / "whole", **options)
    with pytest.raises(ConnectionAbortedError):
        tiny.train(tmp_path / "cut", extra=(StopAt(5),), **options)
    resumed, _ = tiny.train(tmp_path / "cut", resume=True, **options)
    assert tiny.weights(resumed) == tiny.weights(whole)
    monkeypatch.setitem(sizes, "stochastic_depth", 0)
    assert tiny.weights(tiny.train(tmp_path / "plain", **options)[0]) != tiny.weights(whole)


def test_averaged_weights_are_resumed_exactly_too(tmp_path):
    def train(name, *extra, **options):
        callbacks = (EMAWeightAveraging(decay=0.9), *extra)
        settings = CheckpointSettings(every_steps=3)
        return tiny.train(tmp_path / name, checkpoints=settings, extra=callbacks, **options)[0]

    whole = train("whole")
    with pytest.raises(ConnectionAbortedError):
        train("cut", StopAt(5))
    assert tiny.weights(train("cut", resume=True)) == tiny.weights(whole)
    for step in (6, 8):
        file = f"checkpoints/step={step:08d}.ckpt"
        cut, unbroken = (weights_hash(tiny.load(tmp_path / name / file)) for name in ("cut", "whole"))
        assert cut == unbroken


@pytest.mark.slow
def test_a_run_cut_off_twice_ends_in_the_same_weights(tmp_path):
    settings = CheckpointSettings(every_steps=3)
    whole, _ = tiny.train(tmp_path / "whole", epochs=3, checkpoints=settings)
    for step in (5, 10):
        with pytest.raises(ConnectionAbortedError):
            tiny.train(tmp_path / "cut", epochs=3, checkpoints=settings, extra=(StopAt(step),), resume=True)
    resumed, _ = tiny.train(tmp_path / "cut", epochs=3, checkpoints=settings, resume=True)
    assert tiny.weights(resumed) == tiny.weights(whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6])
def test_a_run_killed_with_sigkill_ends_in_the_same_weights_and_metrics(tmp_path, step):
    whole, _ = tiny.train(tmp_path / "whole", checkpoints=CheckpointSettings(every_steps=2))
    run_dir = tmp_path / "killed"
    assert status(start(run_dir, every_steps=2, kill=step)) == -signal.SIGKILL
    assert status(start(run_dir, every_steps=2, resume=True)) == 0
    assert torch.load(run_dir / "final.pt") == tiny.weights(whole)
    assert Store(run_dir).steps() == [2, 4, 6, 8]
    assert metrics(run_dir) == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_a_kill_in_an_analysis_leaves_nothing_half_made_and_is_caught_up_on(tmp_path):
    whole, _ = tiny.train(tmp_path / "whole", checkpoints=CheckpointSettings(every_steps=3))
    run_dir = tmp_path / "killed"
    process = start(run_dir, every_steps=3, seconds=60)
    deadline = time.monotonic() + 120
    while not (run_dir / "analysis").exists() and time.monotonic() < deadline:  # made as the first begins
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    assert status(process) == -signal.SIGKILL
    assert (run_dir / "checkpoints" / "step=00000003.ckpt").exists()
    assert Store(run_dir).steps() == []
    assert status(start(run_dir, every_steps=3, resume=True)) == 0
    assert torch.load(run_dir / "final.pt") == tiny.weights(whole)
    assert Store(run_dir).steps() == [3, 6, 8]


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
    assert find_damage(file)
    assert last_good_checkpoint(tmp_path) is None
    assert not (tmp_path / "exploded").exists()


def test_a_copy_under_another_name_serves_where_the_rest_is_gone(tmp_path):
    tiny.train(tmp_path, checkpoints=CheckpointSettings(monitor="val/accuracy"), epochs=1)
    folder = tmp_path / "checkpoints"
    (folder / "step=00000004.ckpt").unlink()
    assert last_good_checkpoint(tmp_path) == folder / "best.ckpt"
