"""`vitrine lidar`: a run from its settings to what it measures, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from vitrine import config
from vitrine.callbacks.street_pictures import HELD_OUT, STREETS
from vitrine.cli import lidar, main
from vitrine.core.settings import SettingError
from vitrine.lidar.detector import Detector, DetectorSettings, load_detector
from vitrine.lidar.grid import Grid
from vitrine.runs.store import Store

TINY = [
    "data.train_size=6",
    "data.val_size=2",
    "data.held_out_size=3",
    "data.batch_size=2",
    "scanner.step=3",
    "scanner.beams=24",
    "grid.cell=1",
    "grid.slices=4",
    "detector.width=4",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
]


def refusal(capsys, *words) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["lidar", *map(str, words)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_wrong_settings_are_answered_in_a_line_before_anything_is_made(tmp_path, capsys):
    root = f"run.root={tmp_path / 'runs'}"
    for words, answer in (
        (
            ["data.train_sizes=3"],
            "data.train_sizes: there is no such setting here; did you mean data.train",
        ),
        (["data.cars=0"], "data.cars: is 0, expected at least 1"),
        (["scanner.lowest=0", "scanner.highest=-3"], "scanner.lowest: is 0.0, expected less than"),
        (["grid.ahead=41"], "grid: ahead is 41.0 with cells of 0.25"),
        (["data.nearest=30", "data.farthest=20"], "data.nearest: is 30.0, expected less than"),
        (["trainer.max_epoch=3"], "trainer.max_epoch: lightning.Trainer has no such argument; did you mean"),
        (["checkpoint.monitor=val/recal"], "checkpoint.monitor: is val/recal, expected one of val/loss, "),
        (["checkpoint.monitor=val/precision"], "checkpoint.monitor: is val/precision, expected one of val/l"),
        (["configs/signs.yaml"], "data.name: there is no such setting here"),
        (["run.resume=true"], "run.resume: needs run.name=NAME"),
        (["detector.lr=fast"], "detector.lr: is 'fast', expected float"),
        (["trainer.accelerator=gpus"], "trainer: "),
        (["trainer.accelerator=cpu", "trainer.devices=2"], "trainer.devices: makes 2 processes, expected 1"),
    ):
        assert answer in refusal(capsys, root, *words)
    assert not (tmp_path / "runs").exists()


def test_help_names_every_setting_with_its_meaning(capsys):
    main(["lidar", "--help"])
    text = capsys.readouterr().out
    for key in (
        "run.name=",
        "data.roof_loads=0.3",
        "scanner.beams=64",
        "grid.cell=0.25",
        "detector.threshold=",
    ):
        assert key in text
    assert "python -m vitrine lidar" in text


def test_a_run_that_was_moved_goes_on_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    saved = "run:\n  name: b\n  root: elsewhere\n  seed: 3\n"
    (tmp_path / "runs" / "a" / "config.yaml").write_text(saved)
    settings, _ = lidar.load(["run.name=a", "run.resume=true"])
    assert (settings.folder, settings.run.seed) == (Path("runs", "a"), 3)


def test_a_run_does_not_go_on_with_another_detector_nor_lose_its_settings(tmp_path, capsys):
    detector = Detector(DetectorSettings(width=4), Grid(cell=1.0, slices=4))
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "a" / "checkpoints" / "step=00000003.ckpt"
    torch.save({"state_dict": detector.state_dict(), "global_step": 3}, file)
    (tmp_path / "a" / "config.yaml").write_text("run: {name: a}\n")
    words = [f"run.root={tmp_path}", "run.name=a", "run.resume=true", *TINY, "detector.width=8"]
    assert "detector: makes another network than" in refusal(capsys, *words)
    assert (tmp_path / "a" / "config.yaml").read_text() == "run: {name: a}\n"


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_in_the_weights_of_one_that_was_not(tmp_path, capsys):
    words = [f"run.root={tmp_path}", *TINY, "checkpoint.every_steps=1", "run.seed=3", "trainer.max_epochs=2"]
    main(["lidar", *words, "run.name=whole", "run.pictures=1"])
    whole = load_detector(tmp_path / "whole" / "checkpoints" / "step=00000006.ckpt").state_dict()
    for step in (2, 3):  # within an epoch of 3 steps, and at its end
        parts = tmp_path / f"from-{step}"
        (parts / "checkpoints").mkdir(parents=True)
        for file in ("config.yaml", f"checkpoints/step=0000000{step}.ckpt"):
            shutil.copy(tmp_path / "whole" / file, parts / file)
        main(["lidar", f"run.root={tmp_path}", f"run.name=from-{step}", "run.resume=true"])
        assert f"going on from {parts / 'checkpoints'}" in capsys.readouterr().out
        assert Store(parts).steps() == list(range(step, 7))  # what was not looked at before is made up for
        resumed = load_detector(parts / "checkpoints" / "step=00000006.ckpt").state_dict()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_a_run_leaves_curves_checkpoints_and_a_measurement(tmp_path, capsys):
    words = [f"run.root={tmp_path}", "run.name=a", *TINY, "trainer.max_epochs=2"]
    main(["lidar", *words])
    printed = capsys.readouterr().out
    run = tmp_path / "a"
    measured = json.loads((run / "held_out.json").read_text())
    assert measured["scenes"] == 3 and measured["iou"] == 0.5 and measured["cars"] > 0
    assert sum(part["cars"] for part in measured["recall_by_range"].values()) == measured["cars"]
    assert f"{measured['cars']} cars of 3 streets held out, IoU 0.5, score 0.5: recall" in printed
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["val/recall"]] == ["2", "5"]
    assert json.loads((run / "run.json").read_text())["state"] == "finished"

    assert f"the page: {run / 'index.html'}" in printed
    store = Store(run)
    assert store.steps() == [3, 6]
    for step in store.steps():
        figures = store.figures(step, STREETS)
        assert [figure.key for figure in figures] == ["street-1", "street-2"]
        assert all("of those to validate on" in figure.caption for figure in figures)
    assert not store.figures(3, HELD_OUT)
    (recall,) = store.figures(6, HELD_OUT)  # of the same weights as the last checkpoint: beside its streets
    assert recall.table.columns["recall"][-1] == measured["recall"]
    page = (run / "gallery.js").read_text()
    assert '"val/recall"' in page

    detector = load_detector(run / "checkpoints" / "step=00000006.ckpt")
    assert detector.grid.cell == 1 and detector.scanner.beams == 24 and not detector.training
    scores, boxes = detector.proposals(torch.zeros(2, *detector.grid.shape))
    assert scores.shape == (2, 400) and boxes.shape == (2, 400, 5)

    assert "run.name: " in refusal(capsys, *words)
    settings, _ = lidar.load([f"run.root={tmp_path}", "run.name=a", "run.resume=true"])
    assert settings.detector.width == 4 and settings.trainer["max_epochs"] == 2
    with pytest.raises(ValueError, match="holds no detector"):
        torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
        load_detector(tmp_path / "other.ckpt")


def test_its_recipe_is_refused_by_the_program_for_classifiers():
    with pytest.raises(SettingError, match="there is no such setting"):
        config.load(["configs/lidar.yaml"])
