"""Each private name of Lightning that is used does in the installed version what it is used for."""

import re
import signal
from pathlib import Path

import lightning
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from vitrine.callbacks import lightning_internals as internals

SUPERFLUOUS = "Lightning does so by itself now: the function can go"


class Calling(Callback):
    """Calls a function with the trainer in a hook; keeps the results."""

    def __init__(self, hook, function):
        self.results = []
        setattr(self, hook, lambda trainer, *_, **__: self.results.append(function(trainer)))


class Recorder(CSVLogger):
    """Keeps the steps of train/loss."""

    def __init__(self, folder):
        super().__init__(folder)
        self.steps = []

    def log_metrics(self, metrics, step=None):
        if "train/loss" in metrics:
            self.steps.append(step)


class Indices(Callback):
    """Keeps epoch and first index of each training batch; raises before a step, if asked."""

    def __init__(self, fail_at=None):
        self.seen, self.fail_at = [], fail_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.fail_at:
            raise ArithmeticError
        self.seen.append((trainer.current_epoch, int(batch.indices[0])))


class Module(tiny.TinyModule):
    """`estimated`: asks for the number of steps, which makes the loaders before a checkpoint is read."""

    def __init__(self, estimated=False):
        super().__init__()
        self.estimated = estimated

    def configure_optimizers(self):
        if self.estimated:
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, *callbacks, steps=4, ckpt=None, estimated=False, **trainer):
    """A fit of tiny data by a Trainer with these callbacks alone."""
    made = lightning.Trainer(
        **{"max_epochs": 1, "logger": False, "enable_checkpointing": False, **trainer},
        callbacks=list(callbacks),
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    made.fit(Module(estimated), datamodule=tiny.TinyData(steps), ckpt_path=ckpt, weights_only=True)
    return made


def checkpoint_before(folder, step, **trainer):
    """The file that is written where an exception comes before a step."""
    file = folder / "cut.ckpt"
    saving = Calling("on_exception", lambda trainer: trainer.save_checkpoint(file))
    with pytest.raises(ArithmeticError):
        fit(folder, saving, Indices(fail_at=step), **trainer)
    return file


@pytest.mark.parametrize("disable", [True, False])
def test_lightnings_signal_handlers_are_not_installed(tmp_path, disable):
    off = Calling("setup", internals.disable_signal_handling if disable else lambda _: None)
    handlers = Calling("on_train_start", lambda _: signal.getsignal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    made = fit(tmp_path, off, handlers, limit_val_batches=0)
    assert (handlers.results == [before]) is disable
    assert callable(made.fit_loop.epoch_loop._broadcast_sigterm_tensor)
    if disable:
        made.fit_loop.epoch_loop._broadcast_sigterm_tensor()  # nothing, although there is no process group


def test_accumulation_is_known_after_each_batch(tmp_path):
    accumulating = Calling("on_train_batch_end", internals.is_accumulating)
    fit(tmp_path, accumulating, steps=5, accumulate_grad_batches=2, limit_val_batches=0)
    assert accumulating.results == [True, False, True, False, False]


def test_a_call_between_batches_comes_after_all_hooks_of_the_former(tmp_path):
    events = []
    hooks = ("on_train_batch_start", "on_train_batch_end", "on_validation_end", "on_train_epoch_end")
    heard = [
        Calling(hook, lambda trainer, hook=hook: events.append((hook, trainer.global_step))) for hook in hooks
    ]

    def between(trainer):
        internals.call_between_batches(trainer, lambda: events.append(("between", trainer.global_step)))

    how = {"steps": 3, "max_epochs": 2, "val_check_interval": 3, "num_sanity_val_steps": 0}
    fit(tmp_path, *heard, Calling("on_train_start", between), **how)
    calls = [i for i, (name, _) in enumerate(events) if name == "between"]
    assert [events[i][1] for i in calls] == [1, 2, 3, 4, 5]
    assert [events[i - 1] for i in calls] == [
        ("on_train_batch_end", 1),
        ("on_train_batch_end", 2),
        ("on_train_epoch_end", 3),
        ("on_train_batch_end", 4),
        ("on_train_batch_end", 5),
    ]
    assert all(events[i + 1][0] == "on_train_batch_start" for i in calls)


@pytest.mark.parametrize("repeated", [True, False])
def test_a_validation_that_was_interrupted_is_repeated_as_a_whole(tmp_path, repeated):
    def interrupt(trainer):
        if trainer.global_step == 2:
            raise ArithmeticError

    file = tmp_path / "cut.ckpt"
    how = {"val_check_interval": 2, "num_sanity_val_steps": 0}
    with pytest.raises(ArithmeticError):
        saving = Calling("on_exception", lambda trainer: trainer.save_checkpoint(file))
        fit(tmp_path, saving, Calling("on_validation_batch_end", interrupt), **how)
    repeat = Calling("on_train_start", internals.repeat_validation if repeated else lambda _: None)
    batches = Calling("on_validation_batch_start", lambda trainer: trainer.global_step)
    fit(tmp_path, repeat, batches, rest := Indices(), ckpt=file, **how)
    assert (batches.results == [2, 2, 4, 4]) is repeated, SUPERFLUOUS
    assert len(rest.seen) == 2


@pytest.mark.parametrize(("how", "batches"), [({}, [4]), ({"val_check_interval": 2}, [2, 4])])
def test_a_validation_is_known_before_it_comes(tmp_path, how, batches):
    due = Calling("on_train_batch_end", internals.validation_is_due)
    validated = Calling("on_validation_start", lambda trainer: trainer.global_step)
    fit(tmp_path, due, validated, num_sanity_val_steps=0, **how)
    assert [step for step, is_due in enumerate(due.results, 1) if is_due] == batches == validated.results


@pytest.mark.parametrize("made", [True, False])
def test_loaders_of_a_validation_epochs_away_are_made_at_the_start(tmp_path, made):
    make = Calling("on_train_start", internals.make_validation_loaders if made else lambda _: None)
    stages = Calling("on_train_batch_start", lambda t: (t.training, t.val_dataloaders is not None))
    fit(tmp_path, make, stages, steps=2, max_epochs=2, num_sanity_val_steps=0, check_val_every_n_epoch=2)
    assert stages.results == [(True, made)] * 4, SUPERFLUOUS


@pytest.mark.parametrize("corrected", [True, False])
def test_loggers_count_optimizer_steps_after_an_exception(tmp_path, corrected):
    file = checkpoint_before(tmp_path, 2)
    correct = Calling("on_train_batch_start", internals.set_logged_step if corrected else lambda _: None)
    fit(tmp_path, correct, logger=(logger := Recorder(tmp_path)), ckpt=file, limit_val_batches=0)
    assert (logger.steps == [2, 3]) is corrected, SUPERFLUOUS


@pytest.mark.parametrize("restored", [True, False])
def test_a_loader_made_before_the_checkpoint_was_read_goes_on_in_it(tmp_path, restored):
    fit(tmp_path, whole := Indices())
    file = checkpoint_before(tmp_path, 2)
    restore = Calling("on_train_start", internals.restore_loader_state if restored else lambda _: None)
    fit(tmp_path, restore, rest := Indices(), ckpt=file, estimated=True)
    assert (rest.seen == whole.seen[2:]) is restored, (
        "if Lightning does so by itself: the function is not needed"
    )


@pytest.mark.parametrize("corrected", [True, False])
def test_a_run_of_max_steps_that_ended_an_epoch_begins_the_next(tmp_path, corrected):
    how = {"max_epochs": 3, "max_steps": 12, "limit_val_batches": 0}
    save = Calling(
        "on_train_epoch_end", lambda trainer: trainer.save_checkpoint(tmp_path / f"{trainer.global_step}")
    )
    fit(tmp_path, save, whole := Indices(), **how)
    begin = Calling("on_train_start", internals.begin_next_epoch if corrected else lambda _: None)
    fit(tmp_path, begin, rest := Indices(), ckpt=tmp_path / "4", **how)
    assert (rest.seen == whole.seen[4:]) is corrected, (
        "if Lightning does so by itself: the function is not needed"
    )


def test_a_checkpoint_can_be_asked_for_and_what_was_resumed_from_is_replaced(tmp_path):
    def checkpoints():
        return internals.ExplicitModelCheckpoint(
            tmp_path, "{step}", monitor="step", mode="max", save_top_k=1, every_n_train_steps=100
        )

    def ask(trainer, found):
        if found.may_save(trainer):
            found.save_now(trainer)
        return found.may_save(trainer)

    first = checkpoints()
    asking = Calling("on_train_batch_end", lambda trainer: ask(trainer, first))
    fit(tmp_path, first, asking, enable_checkpointing=True, limit_val_batches=0)
    assert asking.results == [False] * 4
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["step=4.ckpt"]

    again = checkpoints()
    known = Calling("on_train_start", lambda t: (again.set_saved(t, t.ckpt_path), again.may_save(t))[1])
    asking = Calling("on_train_batch_end", lambda trainer: ask(trainer, again))
    how = {"enable_checkpointing": True, "limit_val_batches": 0, "max_epochs": 2}
    fit(tmp_path, again, known, asking, ckpt=tmp_path / "step=4.ckpt", **how)
    assert known.results == [False]
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["step=8.ckpt"]


def test_private_names_of_lightning_stand_nowhere_else():
    private = re.compile(r"(trainer|loop|fetcher|connector)\._[a-z]|lightning.* import .*\b_[A-Za-z]")
    own = Path(internals.__file__)
    assert private.search(own.read_text(encoding="utf-8"))
    files = [file for file in own.parents[1].rglob("*.py") if file != own]
    assert not [file for file in files if private.search(file.read_text(encoding="utf-8"))]
