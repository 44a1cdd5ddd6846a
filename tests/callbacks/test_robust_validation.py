"""Robust accuracy beside validation; and promise 5 for adversarial runs."""

import contextlib
import copy
import logging

import launch
import pytest
import torch
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from tiny import TinyData

from vitrine import assembly, attacks, config
from vitrine.analyses.base import as_float
from vitrine.callbacks.checkpoints import CheckpointSettings, model_checkpoints
from vitrine.callbacks.resume import ExactResume
from vitrine.callbacks.robust_validation import (
    METRICS,
    RobustValidation,
    ValidationSettings,
    accuracies,
    count_correct,
    random_subset,
)
from vitrine.core.settings import SettingError
from vitrine.modules import OBJECTIVES, Classifier, OptimizerSettings, load_network, record_of
from vitrine.runs.checkpoint_files import last_good_checkpoint
from vitrine.runs.checkpoint_io import AtomicCheckpointIO

BUDGET = ValidationSettings(robust_images=8, eps=0.1, steps=5)


def fit(
    folder,
    objective=None,
    validation=BUDGET,
    ema=0.0,
    epochs=2,
    extra=(),
    resume=False,
    monitor="val/robust_accuracy",
    every_steps=None,
    **options,
):
    seed_everything(3, verbose=False)
    objective = objective or OBJECTIVES["standard"]()
    network = load_network("convnet", classes=["dark", "bright"], widths=[4, 8])
    module = Classifier(network, objective, OptimizerSettings("sgd", lr=0.05), record_of(network).classes)
    robust = RobustValidation(validation, 1, objective)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[
            ExactResume(),
            *([robust] if robust.count else []),
            *([EMAWeightAveraging(decay=ema)] if ema else []),
            *extra,
            *model_checkpoints(folder, CheckpointSettings(monitor=monitor, every_steps=every_steps)),
        ],
        plugins=[AtomicCheckpointIO()],
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )
    checkpoint = last_good_checkpoint(folder) if resume else None
    trainer.fit(module, datamodule=TinyData(), ckpt_path=checkpoint, weights_only=True)
    return trainer, module, robust


def test_the_metrics_are_those_of_attacks_on_these_images(tmp_path):
    trainer, module, _ = fit(tmp_path, epochs=1)
    images, labels, indices = random_subset(trainer.datamodule.val, 8, 1)
    pixels, network = as_float(images), module.network.eval()

    def right(worst):
        clean = network(pixels).argmax(1) == labels
        return ((network(worst).argmax(1) == labels) & clean).float().mean().item()

    clean = right(pixels)
    fgsm = right(attacks.FGSM(eps=0.1)(network, pixels, labels))
    pgd = right(attacks.PGD(eps=0.1, steps=5)(network, pixels, labels, keys=indices))
    found = {name: trainer.callback_metrics[f"val/{name}"].item() for name in METRICS}
    assert found == pytest.approx(
        {
            "clean_accuracy_subset": clean,
            "robust_accuracy": pgd,
            "robust_gap": clean - pgd,
            "fgsm_minus_pgd": fgsm - pgd,
            "robust_alarm": 0.0,
        }
    )
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_the_subset_is_fixed_and_does_not_follow_the_order_of_classes(tmp_path):
    split = TinyData()._draw(64, 2)
    images, labels, indices = random_subset(split, 16, 1)
    assert 4 <= int(labels.sum()) <= 12
    assert torch.equal(images, split.images[indices]) and torch.equal(indices, random_subset(split, 16, 1)[2])
    assert not torch.equal(indices, random_subset(split, 16, 2)[2])


def test_training_is_bit_for_bit_the_same_without_it(tmp_path):
    objective = {"objective": OBJECTIVES["pgd"](steps=2)}
    _, with_it, _ = fit(tmp_path / "a", **objective)
    off = ValidationSettings(robust_images=0)
    _, without, _ = fit(tmp_path / "b", **objective, validation=off, monitor=None)
    for mine, theirs in zip(with_it.state_dict().values(), without.state_dict().values()):
        assert torch.equal(mine, theirs)


def measured_by_two(folder):
    trainer, module, _ = fit(folder, epochs=1, devices=2, strategy="ddp", validation=ODD)
    state = {name: value.tolist() for name, value in module.network.state_dict().items()}
    return state, {name: trainer.callback_metrics[f"val/{name}"].item() for name in METRICS}


ODD = ValidationSettings(robust_images=7, eps=0.1, steps=5)


@pytest.mark.slow
def test_two_ranks_divide_the_images_and_measure_what_one_does(tmp_path):
    first, second = launch.run_ranks(measured_by_two, tmp_path)
    assert first == second
    network = load_network("convnet", classes=["dark", "bright"], widths=[4, 8])
    network.load_state_dict({name: torch.tensor(value) for name, value in first[0].items()})
    images = random_subset(TinyData()._draw(8, 2), 7, 1)
    counts = count_correct(network.eval(), *images, 5, torch.device("cpu"), norm="linf", eps=0.1)
    assert counts[0] == 7
    assert {**accuracies(counts), "robust_alarm": 0.0} == pytest.approx(first[1])


def test_averaged_weights_are_the_ones_attacked(tmp_path, monkeypatch):
    seen = []
    real = RobustValidation.compute_metrics
    monkeypatch.setattr(
        RobustValidation,
        "compute_metrics",
        lambda self, trainer, module: (
            seen.append(copy.deepcopy(module.network.state_dict())) or real(self, trainer, module)
        ),
    )
    fit(tmp_path, ema=0.5)
    saved = torch.load(last_good_checkpoint(tmp_path), weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"network.{key}"]) for key, value in seen[-1].items())


def test_a_collapse_is_told_once_and_marked_as_long_as_it_lasts(tmp_path, monkeypatch, caplog):
    accuracies = iter([0.5, 0.6, 0.35, 0.3, 0.55])
    alarms = []

    def measure(self, trainer, module):
        return dict.fromkeys(METRICS[:-1], 0.0) | {"robust_accuracy": next(accuracies)}

    class Listener(Callback):
        def on_validation_end(self, trainer, module):
            alarms.append(trainer.callback_metrics["val/robust_alarm"].item())

    monkeypatch.setattr(RobustValidation, "compute_metrics", measure)
    with caplog.at_level(logging.WARNING, "vitrine.callbacks.robust_validation"):
        trainer, *_ = fit(tmp_path, epochs=5, extra=(Listener(),))
    assert alarms == [0, 0, 1, 1, 0]
    assert [r.getMessage().split(",")[0] for r in caplog.records] == [
        "robust accuracy collapsed at step 12: 35.0 %"
    ]
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == 8  # where it was .6
    assert trainer.callback_metrics["val/robust_accuracy"] == pytest.approx(0.55)


def test_budget_and_whether_at_all_follow_the_objective_unless_said():
    standard, pgd = OBJECTIVES["standard"](), OBJECTIVES["pgd"](norm="l2", eps=0.5)
    assert RobustValidation(ValidationSettings(), objective=standard).count == 0
    found = RobustValidation(ValidationSettings(), objective=pgd)
    assert found.count == 256 and found.budget == {"norm": "l2", "eps": 0.5}
    found = RobustValidation(ValidationSettings(robust_images=9, eps=0.1), objective=pgd)
    assert found.count == 9 and found.budget == {"norm": "l2", "eps": 0.1}
    found = RobustValidation(ValidationSettings(robust_images=9), objective=standard)
    assert found.budget == {"norm": "linf", "eps": 8 / 255}
    found = RobustValidation(ValidationSettings(), objective=OBJECTIVES["free"](eps=0.02))
    assert found.budget == {"norm": "linf", "eps": 0.02}


def test_a_best_checkpoint_by_what_nothing_measures_is_refused(tmp_path):
    said = [f"run.root={tmp_path}", "checkpoint.monitor=val/robust_accuracy", "trainer.accelerator=cpu"]
    with pytest.raises(SettingError, match=r"checkpoint\.monitor.*validation\.robust_images"):
        assembly.build_trainer(config.load(said))
    attacked = assembly.build_trainer(
        config.load([*said, "validation.robust_images=16", "optimizer.ema=0.9"])
    )
    kinds = [type(callback).__name__ for callback in attacked.callbacks]
    assert kinds.index("RobustValidation") < kinds.index("ExactEMA")


def test_the_most_robust_checkpoint_stays_unless_another_metric_is_named(tmp_path):
    said = [f"run.root={tmp_path}", "trainer.accelerator=cpu"]
    for more, monitored in (
        (["objective.name=pgd"], ["val/robust_accuracy"]),
        (["objective.name=pgd", "checkpoint.monitor=val/accuracy"], ["val/accuracy"]),
        (["objective.name=pgd", "validation.robust_images=0"], []),
        ([], []),
    ):
        callbacks = assembly.build_trainer(config.load([*said, *more])).callbacks
        best = [c.monitor for c in callbacks if getattr(c, "filename", None) == "best"]
        assert best == monitored


def test_replays_and_gathered_gradients_are_refused(tmp_path):
    said = [f"run.root={tmp_path}", "trainer.accumulate_grad_batches=2", "objective.name=free"]
    with pytest.raises(SettingError, match=r"accumulate_grad_batches.*beside objective\.replays=8"):
        assembly.build_trainer(config.load(said))
    assembly.build_trainer(config.load([*said, "objective.replays=1", "trainer.accelerator=cpu"]))


class StopAt(Callback):
    """As if killed: nothing after it runs, nothing is saved."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            trainer.callbacks = []
            raise ConnectionAbortedError


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pgd", {"steps": 2, "attack_mode": "train", "eps_warmup": 9}),
        pytest.param("fast", {"guard_every": 2, "guard_drop": 0.01}, marks=pytest.mark.slow),
        pytest.param("free", {"replays": 2, "awp": 0.01}, marks=pytest.mark.slow),
        pytest.param("trades", {"steps": 2, "awp": 0.01}, marks=pytest.mark.slow),
        pytest.param("mart", {"steps": 2}, marks=pytest.mark.slow),
    ],
)
def test_an_adversarial_run_cut_off_at_any_step_ends_in_the_same_weights(tmp_path, name, options):
    def run(folder, *extra, resume=False):
        objective = OBJECTIVES[name](**options)
        return fit(
            folder,
            objective,
            ema=0.9 if name == "pgd" else 0.0,
            extra=extra,
            resume=resume,
            every_steps=3,
        )

    _, whole, watched = run(tmp_path / "whole")
    with contextlib.suppress(ConnectionAbortedError):
        run(tmp_path / "cut", StopAt(5))
    _, resumed, again = run(tmp_path / "cut", resume=True)
    for mine, theirs in zip(resumed.state_dict().values(), whole.state_dict().values()):
        assert torch.equal(mine, theirs)
    assert again.best == watched.best
