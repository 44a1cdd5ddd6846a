"""AnalyzeCheckpoints in a training that is not ours; that of our own is in test_analyze_run."""

import logging
import random
import shutil

import lightning
import numpy as np
import pytest
import torch
from foreign import MEAN, STD, Colours, Module, fit, loaders, network, normalised
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset
from torchvision.transforms import v2

from vitrine import AnalyzeCheckpoints, look
from vitrine.analyses import ANALYSES, choose_analyses
from vitrine.analyses.base import Analysis, File, State
from vitrine.examination.examiner import weights_hash
from vitrine.modules.network_search import examinable_copy
from vitrine.reporting.page_data import run_data
from vitrine.runs.run_record import read
from vitrine.runs.store import Store

CHEAP = ["weights", "cam"]


def analyze(**options):
    return AnalyzeCheckpoints(**{"analyses": CHEAP, "layers": ["2"], "units": 2, "probes": 3, **options})


def pixels_of(folder, step):
    """The probe that a class map is shown on, [h, w, 3] in [0, 1]."""
    figures = Store(folder).figures(step, "cam")
    return {figure.key: figure.image for figure in figures}


def test_one_line_gives_pictures_at_every_checkpoint_a_page_and_curves(tmp_path, caplog):
    callback = analyze()
    fit(tmp_path, [callback])
    assert callback.folder == tmp_path / "vitrine"
    store = Store(callback.folder)
    assert store.steps() == [3, 6]  # Lightning's own ModelCheckpoint, which is still there
    assert [len(store.figures(step, "cam")) > 0 for step in (3, 6)] == [True, True]
    content = run_data(callback.folder)
    assert content["name"] == "Module"
    assert [step for step, _ in content["metrics"]["val_acc"]] == [3, 6]
    assert dict(content["facts"])["pixels"] == f"un-normalised by mean {list(MEAN)}, std {list(STD)}"
    assert (callback.folder / "index.html").exists()


class Training(Analysis):
    """What an analysis is given of the training."""

    def __call__(self, subject):
        images, labels = next(subject.train_batches())
        yield File("training.txt", subject.train_note)
        yield State({"images": images, "labels": labels, "rate": torch.tensor(subject.learning_rate)})


def test_analyses_see_the_training_images_as_pixels_and_the_learning_rate(tmp_path):
    class Decaying(Module):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    callback = analyze(analyses={"cam": Training()})
    fit(tmp_path, [callback], module=Decaying())
    results = [Store(callback.folder).results(step)["cam"] for step in (3, 6)]
    assert not any(result.error for result in results) and results[0].files["training.txt"] == ""
    expected = torch.stack([Colours(24)[i][0] for i in range(24)])
    torch.testing.assert_close(results[0].state["images"], expected)
    assert results[1].state["labels"].tolist() == [i % 3 for i in range(24)]
    (file,) = tmp_path.rglob("*.ckpt")  # of the last epoch
    (optimizer,) = torch.load(file, weights_only=True)["optimizer_states"]
    assert [result.state["rate"].item() for result in results] == [pytest.approx(0.05), pytest.approx(0.025)]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        (lambda: [DataLoader(normalised(), 8), DataLoader(normalised(), 8)], "training has 2 loaders"),
        (lambda: DataLoader(Batches(), 8), "a Batches cannot be read image by image"),
    ],
)
def test_training_data_that_cannot_be_indexed_are_none_and_analyses_are_told(tmp_path, train, problem):
    class FirstLoader(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[0] if isinstance(batch[0], list) else batch, batch_idx)

    callback = analyze(analyses={"cam": Training()})
    fit(tmp_path, [callback], FirstLoader(), (train(), loaders()[1]), max_epochs=1, limit_train_batches=3)
    assert problem in Store(callback.folder).results(callback.reports[-1].step)["cam"].error


@pytest.mark.slow
def test_reading_random_training_images_changes_no_training(tmp_path):
    class Jittered(Colours):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            by = random.randrange(4), np.random.randint(4), int(torch.randint(4, ()))
            return v2.RandomErasing(0.5)(image.roll(by, (0, 1, 2))), label

    weights = []
    for name, callbacks in (
        ("with", [analyze(analyses={"cam": Training()}, every_n_steps=1)]),
        ("off", []),
    ):
        module, _ = fit(tmp_path / name, callbacks, data=loaders(train=Jittered()))
        weights.append(torch.cat([tensor.flatten().float() for tensor in module.state_dict().values()]))
    assert torch.equal(*weights)
    results = [Store(tmp_path / "with" / "vitrine").results(step)["cam"] for step in (1, 6)]
    assert "at random" in results[0].files["training.txt"]
    assert torch.equal(results[0].state["images"], results[1].state["images"])


class Brightened(Colours):
    """Random by torch's numbers, or by those of a generator of its own."""

    def __init__(self, own=False):
        super().__init__()
        self.random = torch.Generator() if own else None

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image * torch.rand((), generator=self.random), label


class Probed(Analysis):
    """The images that an analysis shows."""

    def __call__(self, subject):
        yield State({"images": subject.probes.images})


@pytest.mark.parametrize("options", [{"split": "train"}, {}], ids=["asked for", "no validation"])
def test_random_images_that_are_trained_on_are_the_same_probes_at_each_checkpoint(tmp_path, options):
    limits = {} if options else {"limit_val_batches": 0}
    callback = analyze(analyses={"cam": Probed()}, every_n_epochs=1, **options)
    module, _ = fit(tmp_path / "with", [callback], data=loaders(Brightened()), **limits)
    plain, _ = fit(tmp_path / "without", [], data=loaders(Brightened()), **limits)
    assert weights_hash(module) == weights_hash(plain)
    first, last = (Store(callback.folder).results(step)["cam"].state["images"] for step in (3, 6))
    assert torch.equal(first, last)
    assert "at random" in dict(run_data(callback.folder)["facts"])["images"]
    with pytest.raises(ValueError, match="a random number generator of its own"):
        fit(tmp_path / "own", [analyze(**options)], data=loaders(Brightened(own=True)), **limits)


def test_images_of_a_validation_that_is_still_to_come_are_examined(tmp_path):
    class Late(lightning.LightningDataModule):
        drawn = 0

        def train_dataloader(self):
            return loaders()[0]

        def val_dataloader(self):
            self.drawn = torch.rand(())
            return loaders()[1]

    rare = {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2}
    callback = analyze(every_n_epochs=1)
    module, _ = fit(tmp_path / "with", [callback], data=(data := Late()), **rare)
    assert len(callback.examiner.data.split) == 9 and data.drawn > 0
    assert weights_hash(module) == weights_hash(fit(tmp_path / "without", [], data=Late(), **rare)[0])


def test_training_ends_in_the_same_weights_as_without(tmp_path):
    module, _ = fit(tmp_path / "with", [analyze(every_n_steps=1)])
    plain, _ = fit(tmp_path / "without", [])
    for (name, one), (_, other) in zip(module.state_dict().items(), plain.state_dict().items()):
        assert torch.equal(one, other), name


@pytest.mark.slow
def test_images_are_shown_as_they_were_before_they_were_normalised(tmp_path):
    shown = []
    for name, data, options in [
        ("found", loaders(), {}),
        (
            "given",
            loaders(val=[normalised(9, 1)[i] for i in range(9)]),
            {"mean": MEAN, "std": STD, "classes": Colours.classes},
        ),
    ]:
        callback = analyze(**options)
        fit(tmp_path / name, [callback], data=data, max_epochs=1)
        probes = callback.examiner.data.split.batch(torch.arange(3))[0]
        torch.testing.assert_close(probes, torch.stack([Colours(9, 1)[i][0] for i in range(3)]))
        shown.append(pixels_of(callback.folder, 3))
    assert shown[0].keys() == shown[1].keys()
    assert all(torch.equal(shown[0][key], shown[1][key]) for key in shown[0])


@pytest.mark.parametrize(
    ("options", "val", "problem"),
    [
        (
            {},
            [normalised(9, 1)[i] for i in range(9)],
            r"images run from -2.* no Normalize was found.*give mean=",
        ),
        ({"mean": (0, 0, 0), "std": (1, 1, 1)}, None, r"un-normalised with them images run from -2"),
        ({"mean": MEAN}, None, "mean and std come together"),
        ({}, Colours(9, 1, v2.Compose([lambda x: x * 255])), r"std=\(1/255"),
        ({}, Colours(9, 1, v2.Compose([lambda x: (x * 255).byte()])), "images are bytes"),
        ({"network": "modle"}, None, "has no 'modle'; its modules: model, loss"),
        ({"network": "loss"}, None, "CrossEntropyLoss fails on images"),
        ({"classes": ["a", "b"]}, None, "2 names came, expected 3"),
        ({"layers": ["nowhere"]}, None, "unknown layer 'nowhere'"),
        ({"analyses": {"cam": ANALYSES["cam"](layer="nope")}}, None, "analysis.cam.layer: unknown layer"),
        ({"device": "gpu"}, None, "analysis.device: gpu cannot be used"),
        ({}, [(normalised(9, 1)[i][0], torch.rand(3)) for i in range(9)], "expected .N. for"),
    ],
)
def test_what_cannot_be_examined_is_refused_before_the_first_step(tmp_path, options, val, problem):
    module = Module()
    before = weights_hash(module)
    with pytest.raises(ValueError, match=problem):
        fit(tmp_path, [analyze(**options)], module, loaders(val=val), num_sanity_val_steps=0)
    assert weights_hash(module) == before
    assert not (tmp_path / "vitrine").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"analyses": ["camm"]}, "did you mean cam"),
        ({"probe": 3}, "did you mean probes"),
        ({"probes": 0}, "expected at least 1"),
        ({"every_n_steps": 0}, "every_n_steps is 0"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(options, problem):
    with pytest.raises(ValueError, match=problem):
        AnalyzeCheckpoints(**options)


class Plain(Module):
    """Without a forward of its own."""

    forward = nn.Module.forward

    def __init__(self, model=None):
        super().__init__(model=model)
        self.other = nn.Linear(3, 2)

    def __call__(self, images):
        return self.model(images)


class Wrapped(nn.Module):
    """A network with an output of another form."""

    def __init__(self, form, inner=None):
        super().__init__()
        self.inner, self.form = network() if inner is None else inner, form

    def forward(self, images):
        return self.form(self.inner(images))


class LogitsOf(Module):
    def forward(self, images):
        output = self.model(images)
        return output["logits"] if isinstance(output, dict) else output


@pytest.mark.slow
def test_the_network_is_found_where_the_module_itself_maps_nothing(tmp_path):
    callback = analyze()
    module, _ = fit(tmp_path, [callback], Plain())
    assert Store(callback.folder).weights(6) == weights_hash(examinable_copy(module.model, None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "layers"),
    [
        (lambda: LogitsOf(model=Wrapped(lambda z: {"logits": z})), ["inner.2"]),
        (lambda: Module(model=Wrapped(lambda z: z.log_softmax(1))), ["inner.2"]),
    ],
)
def test_logits_in_another_form_are_read(tmp_path, module, layers):
    callback = analyze(layers=layers)
    fit(tmp_path, [callback], module())
    assert not callback.reports[-1].errors
    assert callback.reports[-1].figures


class Keeping(nn.Sequential):
    """Keeps an activation, with its history."""

    def forward(self, images):
        self.kept = {"first": self[0](images)}
        return super().forward(images)


class Counting(nn.Sequential):
    """Keeps more in its state_dict than tensors."""

    def get_extra_state(self):
        return {"calls": 1}

    def set_extra_state(self, state):
        assert state == {"calls": 1}


def normed(norm):
    layers = network()
    norm(layers[0])
    return layers


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Keeping(*network()),
        lambda: Counting(*network()),
        lambda: normed(nn.utils.weight_norm),
        lambda: normed(nn.utils.spectral_norm),
    ],
    ids=["activation", "extra state", "weight norm", "spectral norm"],
)
def test_a_network_that_keeps_more_than_weights_is_examined(tmp_path, make):
    callback = analyze()
    module, _ = fit(tmp_path, [callback], Module(model=make()), max_epochs=1)
    assert [report.step for report in callback.reports] == [3] and not callback.reports[0].errors
    assert Store(callback.folder).weights(3) == weights_hash(module.model)
    module.model(torch.rand(2, 3, 12, 16)).sum().backward()
    assert not look(module.model, normalised(6), tmp_path / "look", analyses=["cam"], probes=1).errors


def test_a_network_that_needs_another_precision_than_float32_is_refused(tmp_path):
    class InDouble(nn.Sequential):
        def forward(self, images):
            return super().forward(images.double())

    module = Module(model=InDouble(*network()).double())
    with pytest.raises(ValueError, match="network: InDouble in float32, in which it is examined, fails on"):
        fit(tmp_path, [analyze()], module)


def test_probabilities_and_tuples_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="gives probabilities, expected logits"):
        fit(tmp_path, [analyze()], Module(model=Wrapped(lambda z: z.softmax(1))))
    pairs = analyze(network=lambda module: Wrapped(lambda z: (z, z), module.model))
    with pytest.raises(ValueError, match="returns tuple of 2, expected logits"):
        fit(tmp_path, [pairs])


@pytest.mark.slow
def test_averaged_weights_are_examined_as_the_file_holds_them(tmp_path):
    callback = analyze()
    module, trainer = fit(tmp_path, [EMAWeightAveraging(decay=0.5), callback])
    file = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    held = {name.removeprefix("model."): value for name, value in file["state_dict"].items()}
    expected = weights_hash(examinable_copy(module.model, None, held))
    assert Store(callback.folder).weights(6) == expected


@pytest.mark.slow
def test_a_resumed_training_keeps_the_averaged_pictures_of_its_checkpoint_and_makes_those_that_lack(tmp_path):
    def train(**options):
        callback = analyze(folder=tmp_path / "pictures")
        writers = [
            EMAWeightAveraging(decay=0.5),
            ModelCheckpoint(tmp_path / "c", save_last=True, save_top_k=-1),
        ]
        fit(tmp_path, [*writers, callback], **options)
        return Store(callback.folder)

    averaged = train(max_epochs=1).weights(3)
    last = tmp_path / "c" / "last.ckpt"
    assert train(ckpt_path=last).weights(3) == averaged
    shutil.rmtree(tmp_path / "pictures")
    assert train(ckpt_path=tmp_path / "c" / "epoch=0-step=3.ckpt").weights(3) == averaged


class Forgetful(TorchCheckpointIO):
    """Writes other weights than it is given."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        zeros = {name: torch.zeros_like(value) for name, value in checkpoint["state_dict"].items()}
        super().save_checkpoint({**checkpoint, "state_dict": zeros}, path)


@pytest.mark.slow
def test_a_file_that_holds_other_weights_than_those_examined_is_named(tmp_path, caplog):
    fit(tmp_path, [analyze(analyses=["weights"])], max_epochs=1)
    assert "holds other weights" not in caplog.text
    fit(tmp_path / "other", [analyze(analyses=["weights"])], plugins=[Forgetful()], max_epochs=1)
    assert "epoch=0-step=3.ckpt holds other weights than those examined" in caplog.text


def test_numbers_that_are_none_are_the_same_in_the_file(tmp_path, caplog):
    class Best(Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("best", torch.tensor(float("nan")))

    fit(tmp_path, [analyze(analyses=["weights"])], Best(), max_epochs=1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_pictures_of_a_training_that_is_kept_elsewhere_go_to_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = f"memory://{tmp_path.name}/run"
    callback = analyze(analyses=["weights"])
    with pytest.warns(UserWarning, match="is remote, so pictures go to"):
        fit(root, [callback], max_epochs=1)
    assert callback.folder == tmp_path / "vitrine" and [f.name for f in tmp_path.iterdir()] == ["vitrine"]
    with pytest.raises(ValueError, match=f"folder: {root} is remote, expected a local one"):
        fit(root, [analyze(folder=root)])


@pytest.mark.slow
def test_own_hyperparameters_folders_and_several_checkpoints_are_no_obstacle(tmp_path):
    callback = analyze()
    writers = [
        ModelCheckpoint(tmp_path / "a", save_top_k=1, monitor="val_acc", filename="{epoch}-{step}"),
        ModelCheckpoint(tmp_path / "b", every_n_train_steps=2, save_top_k=-1, save_weights_only=True),
    ]
    fit(tmp_path, [callback, *writers], Module(anything={"a": object}))
    assert Store(callback.folder).steps()[:3] == [2, 3, 4]


@pytest.mark.slow
def test_without_checkpoints_it_examines_when_it_is_told_to(tmp_path, caplog):
    callback = analyze(every_n_epochs=2)
    fit(tmp_path / "epochs", [callback], enable_checkpointing=False)
    assert Store(callback.folder).steps() == [6]
    callback = analyze(every_n_steps=2)
    fit(tmp_path / "steps", [callback], enable_checkpointing=False)
    assert Store(callback.folder).steps() == [2, 4, 6]
    with pytest.warns(UserWarning, match="saves no checkpoints; give every_n_epochs=1"):
        fit(tmp_path / "never", [analyze()], enable_checkpointing=False)


@pytest.mark.slow
def test_a_training_that_resumes_goes_on_with_its_page(tmp_path):
    first = analyze()
    fit(tmp_path, [first, ModelCheckpoint(tmp_path / "c", save_last=True)], max_epochs=1)
    second = analyze()
    fit(
        tmp_path,
        [second, ModelCheckpoint(tmp_path / "c", save_last=True)],
        ckpt_path=tmp_path / "c" / "last.ckpt",
    )
    assert second.folder == first.folder
    assert Store(first.folder).steps() == [3, 6]
    third = analyze()
    fit(tmp_path, [third])  # another training
    assert third.folder == tmp_path / "vitrine-2"


class Batches(IterableDataset):
    def __iter__(self):
        return (normalised(9, 1)[i] for i in range(9))


@pytest.mark.parametrize(
    "val",
    [
        Subset(normalised(30, 1), range(4, 13)),
        ConcatDataset([normalised(5, 1), normalised(4, 2)]),
        [dict(zip(("image", "label"), normalised(9, 1)[i])) for i in range(9)],
        Batches(),
    ],
    ids=["Subset", "ConcatDataset", "mappings", "IterableDataset"],
)
def test_data_are_read_as_lightning_has_them(tmp_path, val):
    class OfMappings(Module):
        def validation_step(self, batch, batch_idx):
            pass

    callback = analyze(mean=MEAN, std=STD)
    fit(tmp_path, [callback], OfMappings(), (loaders()[0], DataLoader(val, 4)), max_epochs=1)
    assert not callback.reports[-1].errors
    assert len(callback.examiner.data.split) == 9


def test_a_data_module_names_the_classes(tmp_path):
    class Data(lightning.LightningDataModule):
        classes = ("rot", "gruen", "blau")

        def train_dataloader(self):
            return DataLoader([normalised()[i] for i in range(24)], 8)

        def val_dataloader(self):
            return [DataLoader([normalised(9, 1)[i] for i in range(9)], 4)]

    callback = analyze(mean=MEAN, std=STD)
    fit(tmp_path, [callback], data=Data(), max_epochs=1)
    assert callback.examiner.data.classes == list(Data.classes)


class OutOfInk(Analysis):
    def __call__(self, subject):
        raise RuntimeError("out of ink")
        yield


def test_analyses_that_fail_cost_no_training(tmp_path):
    callback = analyze(analyses={"weights": OutOfInk(), **choose_analyses(["cam"])})
    _, trainer = fit(tmp_path, [callback])
    assert trainer.global_step == 6
    assert "out of ink" in callback.reports[0].errors["weights"]
    assert callback.reports[0].results["cam"].figures


@pytest.mark.slow
def test_fast_dev_run_and_validation_afterwards_are_left_alone(tmp_path):
    callback = analyze()
    module, trainer = fit(tmp_path, [callback])
    trainer.validate(module, loaders()[1], verbose=False)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, *loaders())
    assert Store(callback.folder).steps() == [3, 6, 9]
    callback = analyze()
    fit(tmp_path / "fast", [callback], fast_dev_run=True)
    assert not (tmp_path / "fast" / "vitrine").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 2},
        {"overfit_batches": 2},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
        {"val_check_interval": 2},
        {"limit_val_batches": 0},
        {"num_sanity_val_steps": 2, "reload_dataloaders_every_n_epochs": 1},
    ],
    ids=str,
)
def test_whatever_the_trainer_does_training_is_the_same_and_is_examined(tmp_path, options):
    callback = analyze(every_n_epochs=1)
    module, _ = fit(tmp_path / "with", [callback], **options)
    plain, _ = fit(tmp_path / "without", [], **options)
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), plain.state_dict().values()))
    assert callback.reports and not callback.reports[-1].errors


@pytest.mark.slow
def test_a_compiled_network_is_examined_as_the_one_inside(tmp_path):
    module = Module()
    module.model = torch.compile(module.model, backend="eager")
    callback = analyze()
    fit(tmp_path, [callback], module)
    assert callback.reports and not callback.reports[-1].errors


def fold(number):
    return loaders(normalised(24, number), normalised(9, number + 10))


def test_each_fold_of_a_cross_validation_is_examined_on_its_own_images_in_its_own_folder(tmp_path):
    callback, folders = analyze(folder=tmp_path / "pictures", analyses=["weights"]), []
    for number in range(2):
        fit(tmp_path / str(number), [callback], data=fold(number), max_epochs=1)
        folders.append(callback.folder)
        data = callback.examiner.data
        assert torch.allclose(data.split[0][0], Colours(9, number + 10)[0][0], atol=1e-6)
        assert torch.allclose(data.training[0][0], Colours(24, number)[0][0], atol=1e-6)
    assert [folder.name for folder in folders] == ["pictures", "pictures-2"]
    assert [Store(folder).steps() for folder in folders] == [[3], [3]]


def test_the_same_data_on_the_same_trainer_go_on_and_others_have_a_folder_of_their_own(tmp_path):
    callback = analyze(analyses=["weights"])
    module, trainer = fit(tmp_path, [callback], data=fold(0), max_epochs=1)
    found = []
    for epochs, (train, val) in enumerate([(0, 0), (0, 1), (1, 1)], 2):
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(module, fold(train)[0], fold(val)[1])
        found.append((callback.folder.name, Store(callback.folder).steps()))
    assert found == [("vitrine", [3, 6]), ("vitrine-2", [9]), ("vitrine-3", [12])]
    assert [report.step for report in callback.reports] == [12]


def test_a_fit_that_cannot_start_leaves_the_record_of_the_one_before(tmp_path):
    callback = analyze(analyses=["weights"])
    module, trainer = fit(tmp_path, [callback], max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    with pytest.raises(ValueError, match="images run from"):
        trainer.fit(module, *loaders(val=Colours(9, 1, v2.Compose([lambda x: x * 255]))))
    assert read(callback.folder)["state"] == "finished"


class TwoNetworks(Module):
    def __init__(self):
        super().__init__()
        self.other = network()

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.loss(self.other(batch[0]), batch[1])


class CountsSaves(lightning.Callback):
    """Wraps the strategy's saving, as anybody's callback may."""

    def setup(self, trainer, pl_module, stage):
        self.files, save = [], trainer.strategy.save_checkpoint

        def counted(checkpoint, filepath, storage_options=None):
            self.files.append(filepath)
            save(checkpoint, filepath, storage_options)

        trainer.strategy.save_checkpoint = self.wrapper = counted


def test_two_callbacks_examine_two_networks_of_one_training_and_leave_a_wrapper_of_others(tmp_path):
    counts = CountsSaves()
    both = {name: analyze(analyses=["weights"], network=name) for name in ("model", "other")}
    module, trainer = fit(tmp_path, [counts, *both.values()], TwoNetworks(), max_epochs=1)
    assert [callback.folder.name for callback in both.values()] == ["vitrine", "vitrine-2"]
    for name, callback in both.items():
        expected = weights_hash(examinable_copy(getattr(module, name), None))
        assert Store(callback.folder).weights(3) == expected
    assert len(counts.files) == 1 and trainer.strategy.save_checkpoint is counts.wrapper


def test_what_the_trainer_does_after_the_fit_leaves_the_record_of_the_fit(tmp_path, caplog):
    callback = analyze(analyses=["weights"])
    module, trainer = fit(tmp_path, [callback], max_epochs=1)
    kept = {file: file.read_bytes() for file in callback.folder.rglob("*") if file.is_file()}
    assert {"run.json", "metrics.csv", "index.html"} <= {file.name for file in kept}
    caplog.clear()
    trainer.validate(module, DataLoader(normalised(6, 7), 8), verbose=False)
    with pytest.raises(Exception, match="test_step"):
        trainer.test(module, loaders()[1])
    assert {file: file.read_bytes() for file in callback.folder.rglob("*") if file.is_file()} == kept
    assert "analyses of" not in caplog.text and "pictures" not in caplog.text
