"""Normalisations that no transform of the data shows: in a module's steps and hooks."""

import logging

import lightning
import pytest
import torch
from foreign import MEAN, STD, Colours, Module, fit, loaders
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import vitrine
from vitrine.reporting.page_data import run_data

NORMALIZE = v2.Normalize(MEAN, STD)


class InStep(Module):
    """Normalises in its steps, as many do on the device."""

    def training_step(self, batch, batch_idx):
        return super().training_step((NORMALIZE(batch[0]), batch[1]), batch_idx)

    def validation_step(self, batch, batch_idx):
        return super().validation_step((NORMALIZE(batch[0]), batch[1]), batch_idx)


class InHook(Module):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return NORMALIZE(batch[0]), batch[1]


class OfBytes(Module):
    """Takes bytes, divided and normalised on the device."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return NORMALIZE(batch[0].float() / 255), batch[1]


class InForward(Module):
    def forward(self, images):
        return self.model(NORMALIZE(images))


class Twice(InHook):
    """The data's transforms normalise as well."""


class Data(lightning.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Colours(24), 8)

    def val_dataloader(self):
        return DataLoader(Colours(9, 1), 8)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return NORMALIZE(batch[0]), batch[1]


def analyze(**options):
    return vitrine.AnalyzeCheckpoints(analyses=["cam"], layers=["2"], **options)


def plain():
    return loaders(Colours(24), Colours(9, 1))


def as_bytes():
    transform = v2.Compose([lambda image: (255 * image).round().byte()])
    return loaders(Colours(24, 0, transform), Colours(9, 1, transform))


def doubly(values):
    return tuple(m + s * v for m, s, v in zip(MEAN, STD, values))


@pytest.mark.parametrize(
    ("module", "data", "mean", "std"),
    [
        (InStep, plain, MEAN, STD),
        (InHook, plain, MEAN, STD),
        (OfBytes, as_bytes, MEAN, STD),
        (Module, Data, MEAN, STD),
        (Twice, loaders, doubly(MEAN), tuple(s * s for s in STD)),
    ],
    ids=["step", "hook", "bytes", "data module", "twice"],
)
def test_what_the_network_is_given_is_measured_in_the_sanity_check(tmp_path, module, data, mean, std):
    callback = analyze()
    fit(tmp_path, [callback], module(), data(), max_epochs=1)
    split = callback.examiner.data.split
    tolerance = 0.003 if module is OfBytes else 1e-5
    raw = torch.stack([Colours(9, 1)[i][0] for i in range(3)])
    torch.testing.assert_close(split.batch(torch.arange(3))[0], raw, rtol=0, atol=tolerance)
    measured = callback.examiner.data.statistics
    assert measured[0] == pytest.approx(mean, abs=1e-4) and measured[1] == pytest.approx(std, abs=1e-4)
    assert "normalised by mean" in dict(run_data(callback.folder)["facts"])["input"]


def test_a_forward_that_normalises_is_examined_with_its_normalisation(tmp_path):
    callback = vitrine.AnalyzeCheckpoints(analyses=["cam"], layers=["model.2"])
    fit(tmp_path, [callback], InForward(), plain(), max_epochs=1)
    assert callback.examiner.data.statistics is None and not callback.reports[-1].errors


def test_what_is_given_has_to_be_what_was_measured(tmp_path):
    with pytest.raises(ValueError, match=r"came mean .0.5, .*input is normalised by mean \[0.4, 0.5, 0.6\]"):
        fit(tmp_path, [analyze(mean=(0.5,) * 3, std=(0.5,) * 3)], InStep(), plain())
    callback = analyze(mean=MEAN, std=STD)
    fit(tmp_path, [callback], InStep(), plain(), max_epochs=1)
    assert callback.examiner.data.statistics == (MEAN, STD)


def test_images_that_are_changed_beyond_measuring_want_the_numbers(tmp_path):
    class Augmented(InHook):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
            return images.flip(0, 2, 3) + 0.5 * torch.rand_like(images), labels

    with pytest.raises(ValueError, match=r"the network is given images from -.*the loader yields 0 to 1"):
        fit(tmp_path, [analyze()], Augmented(), plain())


def test_without_a_sanity_check_the_first_validation_sets_it_right(tmp_path, caplog):
    callback = analyze(every_n_steps=1)
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, [callback], InStep(), plain(), max_epochs=1, num_sanity_val_steps=0)
    assert "normalised after the loader, by mean [0.4, 0.5, 0.6]" in caplog.text
    assert callback.examiner.data.statistics[0] == pytest.approx(MEAN, abs=1e-4)


def test_one_validation_image_tells_the_normalisation(tmp_path):
    callback = analyze()
    fit(tmp_path, [callback], InStep(), loaders(Colours(24), Colours(1, 1)), max_epochs=1)
    assert callback.examiner.data.statistics[0] == pytest.approx(MEAN, abs=1e-4)


def test_a_training_that_resumes_knows_the_normalisation_of_its_checkpoint(tmp_path):
    saving = ModelCheckpoint(tmp_path, "first", every_n_train_steps=2)
    fit(tmp_path, [analyze(), saving], InStep(), plain(), max_epochs=1)
    for options in ({}, {"mean": (0.5,) * 3, "std": (0.5,) * 3}):
        callback = analyze(every_n_steps=1, **options)
        how = {"ckpt_path": tmp_path / "first.ckpt", "limit_val_batches": 0, "max_epochs": 2}
        fit(tmp_path / "resumed", [callback], InStep(), plain(), **how)
        expected = options.get("mean", MEAN)
        assert callback.examiner.data.statistics[0] == pytest.approx(expected, abs=1e-4)


def test_measuring_changes_no_weight(tmp_path):
    trained = []
    for name, callbacks in (("with", [analyze()]), ("without", [])):
        torch.manual_seed(0)
        trained.append(fit(tmp_path / name, callbacks, InStep(), plain())[0].state_dict())
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())
