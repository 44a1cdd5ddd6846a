"""A run that a signal interrupts, in whichever hook it comes, resumes exactly: callbacks' state included."""

import itertools
import os
import signal

import lightning
import pytest
import tiny
import torch

from vitrine.callbacks.averaging import ExactEMA, ExactWeightAveraging
from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.distributed import interruption
from vitrine.runs.checkpoint_files import last_good_checkpoint, read_step

pytestmark = pytest.mark.slow

STEPS, EPOCHS = 3, 3


class EpochAverage(ExactWeightAveraging):
    """Stochastic weight averaging (Izmailov 2018): the mean of the weights at the ends of epochs."""

    def should_update(self, step_idx=None, epoch_idx=None):
        return epoch_idx is not None


class Counting(lightning.Callback):
    """Counts hooks as a callback of anybody's may, and keeps the counts in the checkpoint."""

    def __init__(self):
        self.counts = {"batches": 0, "epochs": 0, "validations": 0}

    def on_train_batch_end(self, *_):
        self.counts["batches"] += 1

    def on_train_epoch_end(self, *_):
        self.counts["epochs"] += 1

    def on_validation_end(self, trainer, *_):
        self.counts["validations"] += not trainer.sanity_checking

    def state_dict(self):
        return dict(self.counts)

    def load_state_dict(self, state):
        self.counts = dict(state)


class SignalAt(lightning.Callback):
    """Sends this process a SIGTERM the first time that a hook is called after so many optimizer steps."""

    def __init__(self, hook, step):
        self.sent_at = None
        setattr(self, hook, lambda trainer, *_, **__: self.send(trainer, step))

    def send(self, trainer, step):
        if self.sent_at is None and not trainer.sanity_checking and trainer.global_step >= step:
            self.sent_at = trainer.global_step
            os.kill(os.getpid(), signal.SIGTERM)


AVERAGES = {"none": list, "ema": lambda: [ExactEMA(decay=0.9)], "swa": lambda: [EpochAverage()]}
HOOKS = [
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_save_checkpoint",
]
FREQUENCIES = {
    "each epoch": {},
    "within epochs": {"val_check_interval": 2},
    "every other epoch": {"check_val_every_n_epoch": 2},
}


def train(run_dir, average, *extra, **options):
    counting = Counting()
    module, _ = tiny.train(
        run_dir,
        steps=STEPS,
        epochs=EPOCHS,
        analyses={},
        extra=(*AVERAGES[average](), counting, *extra),
        **options,
    )
    return module, counting.counts


def averaged(run_dir):
    """The step's averaged weights and how many went into them, by checkpoint."""
    found = {}
    for file in sorted((run_dir / "checkpoints").glob("step=*")):
        content = torch.load(file, weights_only=True)
        count = content.get("averaging_state", {}).get("n_averaged", torch.tensor(0)).item()
        found[file.name] = count, [tensor.tolist() for tensor in content["state_dict"].values()]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs, each made when it is first asked for."""
    made = {}

    def get(average, frequency, every_steps):
        key = average, frequency, every_steps
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            settings = CheckpointSettings(every_steps=every_steps)
            made[key] = folder, *train(folder, average, checkpoints=settings, **FREQUENCIES[frequency])
        return made[key]

    return get


def check(run_dir, whole, hook, step, average, frequency, every_steps):
    options = {"checkpoints": CheckpointSettings(every_steps=every_steps), **FREQUENCIES[frequency]}
    signalled = SignalAt(hook, step)
    try:
        with interruption.handle_signals():
            train(run_dir, average, signalled, **options)
    except interruption.Interrupted:
        found = last_good_checkpoint(run_dir)
        assert signalled.sent_at <= read_step(found) <= signalled.sent_at + 1
    assert signalled.sent_at is not None
    resumed, counts = train(run_dir, average, resume=True, **options)
    folder, unbroken, expected = whole(average, frequency, every_steps)
    assert tiny.weights(resumed) == tiny.weights(unbroken)
    assert counts == expected
    assert (run_dir / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()
    ours, theirs = averaged(run_dir), averaged(folder)
    assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize("hook", HOOKS)
def test_averaged_weights_are_exact(tmp_path, whole, hook):
    check(tmp_path, whole, hook, 3, "ema", "each epoch", None)


CASES = [
    ("on_before_optimizer_step", 4, "swa", "each epoch", None),
    ("on_before_optimizer_step", 5, "swa", "each epoch", 2),
    ("on_validation_batch_end", 6, "swa", "each epoch", None),
    ("on_train_batch_end", 3, "swa", "every other epoch", None),
    ("on_before_optimizer_step", 1, "ema", "within epochs", None),
    ("on_validation_batch_start", 5, "ema", "within epochs", 2),
    ("on_train_epoch_end", 3, "ema", "every other epoch", 3),
    ("on_train_epoch_start", 6, "none", "each epoch", 2),
]
if os.environ.get("VITRINE_THOROUGH"):  # 540 cases, five minutes
    CASES = list(itertools.product(HOOKS, (2, 3, 4), ("ema", "swa"), FREQUENCIES, (None, 2)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_that_a_signal_interrupts_resumes_exactly(tmp_path, whole, case):
    check(tmp_path, whole, *case)
