"""A signal, whenever it comes, ends a run where it can go on exactly."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
import lightning
import pytest
import tiny
import torch

from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.distributed import interruption
from vitrine.runs.checkpoint_files import last_good_checkpoint, read_step
from vitrine.runs.store import Store

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]


def sending(hook: str, when: Callable[[Any], bool], number: int = signal.SIGTERM) -> lightning.Callback:
    """A callback that sends this process a signal, once, in a hook."""

    class Sending(lightning.Callback):
        sent = False

    def send(self: Any, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        if not self.sent and when(trainer):
            self.sent = True
            os.kill(os.getpid(), number)

    setattr(Sending, hook, send)
    return Sending()


def interrupted(run_dir: Path, *extra: lightning.Callback, **options: Any) -> interruption.Interrupted:
    with interruption.handle_signals(), pytest.raises(interruption.Interrupted) as caught:
        tiny.train(run_dir, extra=extra, **options)
    return caught.value


def test_each_signal_stops_after_the_step_and_the_run_goes_on_exactly(tmp_path):
    whole, _ = tiny.train(tmp_path / "whole")
    before = [signal.getsignal(number) for number in SIGNALS]
    for number in SIGNALS:  # in the midst of the step after 5
        run_dir = tmp_path / number.name
        sender = sending("on_before_optimizer_step", lambda trainer: trainer.global_step == 5, number)
        by = interrupted(run_dir, sender)
        assert by.signal is number
        assert by.status == (130 if number is signal.SIGINT else 75)
        assert read_step(last_good_checkpoint(run_dir)) == 6
        resumed, _ = tiny.train(run_dir, resume=True)
        assert tiny.weights(resumed) == tiny.weights(whole), number.name
        assert Store(run_dir).steps() == [4, 6, 8]
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("batch", [2, 3, 6])
def test_a_step_of_several_batches_is_finished_as_well(tmp_path, batch):
    options = {"accumulate_grad_batches": 2, "checkpoints": CheckpointSettings(every_steps=3)}
    whole, _ = tiny.train(tmp_path / "whole", **options)
    seen = iter(range(100))
    interrupted(tmp_path / "cut", sending("on_train_batch_start", lambda _: next(seen) == batch), **options)
    assert read_step(last_good_checkpoint(tmp_path / "cut")) == batch // 2 + 1
    resumed, _ = tiny.train(tmp_path / "cut", resume=True, **options)
    assert tiny.weights(resumed) == tiny.weights(whole)


@pytest.mark.parametrize("interval", [{}, {"val_check_interval": 2}])
def test_a_signal_in_validation_ends_it_and_the_run_goes_on_exactly(tmp_path, interval):
    whole, _ = tiny.train(tmp_path / "whole", **interval)
    sender = sending("on_validation_batch_start", lambda trainer: trainer.global_step == 4)
    interrupted(tmp_path / "cut", sender, **interval)
    assert read_step(last_good_checkpoint(tmp_path / "cut")) == 4
    resumed, _ = tiny.train(tmp_path / "cut", resume=True, **interval)
    assert tiny.weights(resumed) == tiny.weights(whole)


@dataclass(frozen=True)
class Long(Analysis):
    """Sends its process a signal, and would go on for a minute."""

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        yield Scalar("before", 0.0)
        torch.manual_seed(0)  # not put back if the way out is not the ordinary one
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)


def test_a_signal_in_an_analysis_ends_it_at_once_and_the_step_is_caught_up(tmp_path):
    options = {"checkpoints": CheckpointSettings(every_steps=3)}
    whole, _ = tiny.train(tmp_path / "whole", **options)
    began = time.monotonic()
    interrupted(tmp_path / "cut", analyses={"plain": Long()}, **options)
    assert time.monotonic() - began < 30
    assert read_step(last_good_checkpoint(tmp_path / "cut")) == 3
    assert Store(tmp_path / "cut").steps() == []
    assert not list((tmp_path / "cut" / "analysis").glob(".step*"))
    resumed, callback = tiny.train(tmp_path / "cut", resume=True, **options)
    assert tiny.weights(resumed) == tiny.weights(whole)
    assert [report.step for report in callback.reports] == [3, 6, 8]


def test_a_signal_that_came_during_a_step_keeps_the_analyses_after_it_from_starting(tmp_path):
    options = {"checkpoints": CheckpointSettings(every_steps=3)}
    sender = sending("on_before_optimizer_step", lambda trainer: trainer.global_step == 2)
    interrupted(tmp_path, sender, **options)
    assert read_step(last_good_checkpoint(tmp_path)) == 3
    assert Store(tmp_path).steps() == []


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start"])
def test_a_signal_before_the_first_step_is_not_lost(tmp_path, hook):
    sender = sending(hook, lambda _: True)
    interrupted(tmp_path, sender)
    at = 1 if hook == "on_train_start" else None  # noted from there on: the step that follows is finished
    found = last_good_checkpoint(tmp_path)
    assert (read_step(found) if found else None) == at


def test_the_second_ctrl_c_ends_a_process_at_once():
    with interruption.handle_signals():
        child = os.fork()
        if child == 0:
            interruption.defer()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # of a scheduler that repeats itself: nothing
            os.write(1, b"still here\n")
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT


def rank(run_dir: Path, number: int, port: int, at: int) -> None:
    """One of two ranks that train together; a signal reaches only the second."""
    os.environ |= {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    torch.set_num_threads(1)
    extra = (sending("on_train_batch_start", lambda t: t.global_step == at),) if number == 1 else ()
    by = None
    with interruption.handle_signals():
        try:
            options = {"devices": 2, "strategy": "ddp", "analyses": {}, "epochs": 500}
            tiny.train(run_dir, checkpoints=CheckpointSettings(every_steps=10_000), extra=extra, **options)
        except interruption.Interrupted as error:
            by = error.signal.name
    (run_dir / f"rank-{number}.json").write_text(json.dumps(by))


@pytest.mark.slow
def test_ranks_stop_after_the_same_step_though_the_signal_reached_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [forked.start(rank, tmp_path, number, port, 7) for number in range(2)]
    for process in ranks:
        process.join(150)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert [json.loads((tmp_path / f"rank-{n}.json").read_text()) for n in range(2)] == ["SIGTERM"] * 2
    assert 8 <= read_step(last_good_checkpoint(tmp_path)) <= 8 + 100
