"""`analyze.py samples`: the training images that speak for what a network says of somebody's own image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, samples, train
from vitrine.core.settings import SettingError
from vitrine.modules.checkpoint import load_checkpoint
from vitrine.modules.network_record import record_of
from vitrine.runs import pictures
from vitrine.runs.store import Store

SMALL = [
    "data.train_size=64", "data.val_size=16", "data.image_size=32", "data.batch_size=32", "run.name=run",
    "trainer.max_steps=3", "trainer.val_check_interval=1", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "checkpoint.every_steps=1", "logging.wandb.mode=disabled",
    "analysis.probes=3", "analysis.units=1", "analysis.samples.shown=4", "optimizer.lr=0.01",
    *(f"analysis.{name}.enabled=false" for name in ANALYSES if name != samples.NAME),
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three checkpoints, and one of its own images as a file."""
    root = tmp_path_factory.mktemp("samples")
    train.main([*SMALL, f"run.root={root}"])
    return root / "run"


@pytest.fixture
def photo(run, tmp_path):
    """The run's first probe as a file, and its class."""
    from vitrine import assembly, config

    data = assembly.build_data(config.load_saved(run, []))
    Image.fromarray(data.val[0][0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png", data.classes[data.val[0][1]]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "step"), [([], 3), (["checkpoint=2"], 2)])
def test_an_image_of_the_runs_own_gives_the_pictures_of_its_page(
    run, photo, tmp_path, capsys, monkeypatch, words, step
):
    file, name = photo
    monkeypatch.delattr("vitrine.analyses.samples.SuspectFigures")  # which nobody would see
    analyze.main(["samples", str(run), f"image={file}", f"label={name}", *words])
    out = capsys.readouterr().out
    on_page = {f.key: f for f in Store(run).figures(step, samples.NAME) if f.probe == 0}
    assert len(on_page) == 4
    for key, figure in on_page.items():
        kind = key.split("/")[1]
        written = run / samples.NAME / f"photo-{kind}.png"
        assert str(written) in out.splitlines()[-1]
        drawn = torch.from_numpy(np.array(Image.open(written)))
        again = pictures.read(tmp_path / pictures.write(tmp_path, kind, drawn))  # as the store keeps it
        assert (again.float() - figure.image).abs().mean() < 0.5, kind  # a last digit may round otherwise
        assert f"{kind}: {figure.caption}" in out or kind == "duals"
    assert f"over the {step} checkpoints from step 1 to {step}" in out
    assert f"went through step {', '.join(map(str, range(1, step + 1)))} in" in out
    assert not list((run / "analysis").glob(".unfinished"))
    assert set(Store(run).steps()) == {1, 2, 3}


@pytest.mark.slow
def test_a_photograph_of_any_size_is_made_as_the_runs_images_are_and_nothing_else_is_written(
    run, tmp_path, capsys
):
    pixels = np.zeros((40, 90, 3), np.uint8)
    pixels[:, 30:60] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.jpg")
    before = sorted(run.rglob("*"))
    out = tmp_path / "pictures"
    command = ["samples", str(run / "checkpoints" / "step=00000002.ckpt"), f"image={tmp_path / 'wide.jpg'}"]
    shown = []
    for fit in ("crop", "stretch"):
        analyze.main(
            [*command, f"out={out / fit}", f"fit={fit}", "samples.shown=2", "samples.product=cosine"]
        )
        shown.append(np.array(Image.open(out / fit / "wide-tracin.png")))
    assert sorted(file.name for file in (out / "crop").iterdir()) == [
        f"wide-{kind}.png" for kind in ("duals", "influence", "nearest", "tracin")
    ]
    assert shown[0].shape == shown[1].shape and (shown[0] != shown[1]).any()
    assert sorted(run.rglob("*")) == before and "cosines" in capsys.readouterr().out


@pytest.mark.slow
def test_the_learning_rate_of_a_checkpoint_is_that_of_its_optimizer(run):
    for file in (run / "checkpoints").glob("step=*.ckpt"):
        (optimizer,) = torch.load(file, weights_only=True)["optimizer_states"]
        assert record_of(load_checkpoint(file)).learning_rate == optimizer["param_groups"][0]["lr"]
    rates = [Store(run).results(step)[samples.NAME].state["rates"].tolist() for step in (1, 3)]
    assert rates[1][0] == rates[0][0] and len(rates[1]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["label=stopp"], "label: unknown class 'stopp': did you mean stop?"),
        (["checkpoint=7"], "checkpoint: is 7, expected one of best, last, 1, 2, 3"),
        (["model.name=resnet18"], "model.name: is the run's"),
        (["samples.shown=0"], "analysis.samples.shown: is 0, expected at least 1"),
        (["samples.show=0"], "analysis.samples.show: "),
        (["data.train_size=1", "samples.penalty=1"], "samples: failed at step 1: "),
    ],
)
def test_what_cannot_be_is_answered_by_one_line(run, photo, words, problem):
    with pytest.raises(SettingError) as caught:
        analyze.main(["samples", str(run), f"image={photo[0]}", *words])
    assert str(caught.value).startswith(problem), caught.value


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["runs/none"], "image: expected image=FILE"),
        (["runs/none", "image=gone.png"], "image: there is no file gone.png"),
        (["runs/none", "image={file}"], "runs/none: is not there; "),
        (["{file}", "image={file}"], "{file}: "),
        (["image={file}"], "model.weights: nothing to analyze"),
        (["a", "b", "image={file}"], "b: is one too many"),
        (["a", "image={file}", "out={file}"], "out: is {file}, expected a folder"),
        (["a", "image={file}", "fit=squeeze"], "fit: is 'squeeze', expected one of crop, letterbox, stretch"),
        (["a", "imag={file}"], "imag: "),
    ],
)
def test_a_mistake_is_answered_before_anything_is_read(tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    file = Path("a.png")
    Image.new("RGB", (4, 4)).save(file)
    with pytest.raises(SettingError) as caught:
        analyze.main(["samples", *(word.format(file=file) for word in words)])
    assert str(caught.value).startswith(problem.format(file=file)), caught.value
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_its_help_teaches(capsys):
    analyze.main(["samples", "--help"])
    out = capsys.readouterr().out
    assert "image=null" in out and "checkpoint=last" in out and "TracIn is a sum over the training" in out
