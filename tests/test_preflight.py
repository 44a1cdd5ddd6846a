"""What would fail at the first step, or an epoch later, is refused before anything is written."""

import pytest
import torch

from vitrine import assembly, config
from vitrine.cli import train
from vitrine.core import random_state
from vitrine.core.settings import SettingError
from vitrine.modules import OBJECTIVES
from vitrine.preflight import check_run

SMALL = [
    "data.train_size=32",
    "data.val_size=16",
    "data.image_size=16",
    "data.batch_size=8",
    "model.options={widths: [4, 8]}",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "analysis.mode=off",
    "logging.wandb.mode=disabled",
]
OTHER_MODEL = [word for word in SMALL if not word.startswith("model.")]


def build(*words, base=SMALL):
    settings = config.load([*base, *words])
    data = assembly.build_data(settings)
    return settings, data, assembly.build_classifier(settings, data), assembly.build_trainer(settings)


REFUSED = [
    (["checkpoint.monitor=val/acc"], "checkpoint.monitor", "did you mean val/accuracy"),
    (["checkpoint.monitor=train/loss"], "checkpoint.monitor", "which validation does not log"),
    (["checkpoint.monitor=val/accuracy_class/house"], "checkpoint.monitor", "does not log"),
    (
        ["checkpoint.monitor=val/accuracy_class/stop", "logging.class_curves=2"],
        "checkpoint.monitor",
        "where logging.class_curves is at least",
    ),
    (
        ["checkpoint.monitor=val/robust_acc", "validation.robust_images=4"],
        "checkpoint.monitor",
        "did you mean",
    ),
    (["checkpoint.monitor=val/loss"], "checkpoint.mode", "a lower val/loss is better"),
    (["checkpoint.monitor=val/ece", "checkpoint.mode=max"], "checkpoint.mode", "expected min"),
    (
        ["checkpoint.monitor=val/accuracy", "trainer.limit_val_batches=0"],
        "checkpoint.monitor",
        "no validation",
    ),
    (
        ["checkpoint.monitor=val/accuracy", "trainer.check_val_every_n_epoch=3"],
        "checkpoint.monitor",
        "no validation",
    ),
    (  # the first three images are of as many other classes
        ["checkpoint.monitor=val/accuracy_class/warning", "trainer.limit_val_batches=1", "data.batch_size=3"],
        "checkpoint.monitor",
        "does not log",
    ),
    (
        [
            "checkpoint.monitor=val/worst_classes/2",
            "logging.class_curves=4",
            "trainer.limit_val_batches=0.25",
            "data.batch_size=3",
        ],
        "checkpoint.monitor",
        "does not log",
    ),
    (
        [
            "checkpoint.monitor=val/accuracy",
            "trainer.val_check_interval=9",
            "trainer.check_val_every_n_epoch=null",
        ],
        "checkpoint.monitor",
        "no validation",
    ),
    (["trainer.val_check_interval=0"], "trainer.val_check_interval", "is 0, expected more than 0"),
    (["trainer.val_check_interval=100"], "trainer.val_check_interval", "more than the 4 batches"),
    (["trainer.limit_val_batches=0.1"], "trainer.limit_val_batches", "no batch of 2"),
    (["trainer.limit_train_batches=0"], "trainer.limit_train_batches", "no batch of 4"),
    (["trainer.max_epochs=-1", "trainer.max_steps=-1"], "optimizer.schedule", "a run with an end"),
    (["trainer.precision=bf16-true"], "trainer.precision", "expected bf16-mixed"),
    (["trainer.precision=16-true"], "trainer.precision", "expected bf16-mixed"),
    (["trainer.precision=transformer-engine"], "trainer.precision", "expected bf16-mixed"),
]


@pytest.mark.parametrize(("words", "key", "problem"), REFUSED, ids=str)
def test_a_run_that_cannot_go_well_is_refused_by_name(words, key, problem):
    with pytest.raises(SettingError, match=problem) as caught:
        check_run(*build(*words))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["trainer.max_steps=3"],
            "max_steps=3 ends before the first validation, which is after 4 steps: there will be no best",
        ),
        (["trainer.max_steps=7", "trainer.check_val_every_n_epoch=2"], "which is after 8 steps"),
        (["trainer.max_steps=1", "trainer.accumulate_grad_batches=3"], "which is after 2 steps"),
    ],
)
def test_a_run_that_ends_before_what_it_monitors_says_so(words, problem, caplog):
    check_run(*build("checkpoint.monitor=val/accuracy", *words))
    assert problem in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "mobilenet_v3_small",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", marks=pytest.mark.slow),
    ],
)
def test_batches_of_one_image_are_refused_where_batch_normalisation_needs_two(model):
    with pytest.raises(SettingError, match="batches of one image, expected at least 2") as caught:
        check_run(*build("data.batch_size=1", f"model.name={model}", base=OTHER_MODEL))
    assert caught.value.key == "data.batch_size"
    check_run(*build("data.batch_size=2", f"model.name={model}", base=OTHER_MODEL))


def test_batches_of_one_image_are_let_through_where_the_last_maps_have_several_pixels():
    check_run(*build("data.batch_size=1", "model.name=preact_resnet18", base=OTHER_MODEL))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trainer.precision=bf16-mixed"],
        ["trainer.precision=64-true"],
        ["checkpoint.monitor=val/loss", "checkpoint.mode=min"],
        ["checkpoint.monitor=val/accuracy_class/stop"],
        ["checkpoint.monitor=val/accuracy_class/warning", "trainer.limit_val_batches=4", "data.batch_size=2"],
        ["checkpoint.monitor=val/robust_accuracy", "validation.robust_images=4"],
        ["data.train_size=1"],
        ["trainer.max_epochs=-1", "trainer.max_steps=3"],
        ["checkpoint.monitor=val/accuracy", "trainer.max_steps=4"],
        ["checkpoint.monitor=val/accuracy", "trainer.max_steps=2", "trainer.accumulate_grad_batches=3"],
        ["checkpoint.monitor=val/accuracy", "trainer.max_steps=1", "trainer.val_check_interval=0.25"],
        ["trainer.val_check_interval=7", "trainer.check_val_every_n_epoch=null"],
    ],
    ids=str,
)
def test_what_goes_well_is_let_through(words, caplog):
    check_run(*build(*words))
    assert "ends before" not in caplog.text


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_trial_leaves_network_objective_and_random_numbers_alone(name):
    settings, data, module, trainer = build(f"objective.name={name}", "objective.awp=0.01")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state, objective = random_state.capture(), str(module.objective.state_dict())
    check_run(settings, data, module, trainer)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert str(module.objective.state_dict()) == objective and module.training
    assert torch.equal(random_state.capture()["torch"], state["torch"])


def test_an_error_of_the_step_itself_comes_before_anything_is_written(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(OBJECTIVES["standard"], "__call__", fail)
    with pytest.raises(RuntimeError, match="no such kernel") as caught:
        train.main([*SMALL, f"run.root={tmp_path}", "run.name=a"])
    assert "nothing has been written" in caught.value.__notes__[-1]
    assert list(tmp_path.iterdir()) == []


def test_compiling_is_refused_where_it_cannot_be_done(monkeypatch):
    def no_compiler(*_, **__):
        raise RuntimeError("No working C++ compiler found in g++\ndetails")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    with pytest.raises(
        SettingError, match=r"^model\.compile: is true, but .*No working C\+\+ compiler"
    ) as refused:
        check_run(*build("model.compile=true"))
    assert "details" not in str(refused.value)


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(SettingError):
        train.main([*SMALL, f"run.root={tmp_path}", "run.name=a", "checkpoint.monitor=val/acc"])
    assert list(tmp_path.iterdir()) == []
