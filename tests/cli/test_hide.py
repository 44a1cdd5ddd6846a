"""`vitrine hide`: a detector of cars in, a mesh for roofs and pictures out."""

import json

import pytest
import torch
from PIL import Image

from vitrine.cli import hide
from vitrine.cli.arguments import run_command
from vitrine.core.settings import SettingError
from vitrine.lidar.detector import Detector, DetectorSettings
from vitrine.lidar.grid import Grid
from vitrine.runs.store import Store

FEW = ["cars=2", "generations=1", "steps=1", "pictures=1"]


def checkpoint(folder, sure: float):
    """Of an untrained network that says everywhere, equally surely, that a middling car is there."""
    detector = Detector(DetectorSettings(width=4, overlap=1.0), Grid(cell=1.0, slices=4))
    torch.nn.init.zeros_(detector.network.rectangle.weight)
    torch.nn.init.zeros_(detector.network.score.weight)
    torch.nn.init.zeros_(detector.network.rectangle.bias)
    torch.nn.init.constant_(detector.network.score.bias, sure)
    content = {"state_dict": detector.state_dict(), "global_step": 7}
    detector.on_save_checkpoint(content)
    torch.save(content, folder / "a.ckpt")
    return str(folder / "a.ckpt")


def test_what_is_wrong_is_said_before_anything_is_made(tmp_path):
    out = f"out={tmp_path / 'out'}"
    with pytest.raises(SettingError, match="hide: 0 runs came, expected one"):
        run_command("hide", [out])
    with pytest.raises(SettingError, match=r"is not there; .*runs"):
        run_command("hide", [str(tmp_path / "absent"), out])
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(SettingError, match=r"hide: .* holds no detector of cars"):
        run_command("hide", [str(tmp_path / "other.ckpt"), out])
    with pytest.raises(SettingError, match="method: is 'all', expected one of both, search, gradient"):
        run_command("hide", ["x", "method=all"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_or_is_a_run_is_refused_before_the_work(tmp_path):
    file, run = checkpoint(tmp_path, 3), tmp_path / "run"
    (tmp_path / "there").write_text("")
    run.mkdir()
    (run / "config.yaml").write_text("")
    for out, problem in (("there", "is a file"), ("there/out", "cannot be made"), ("run", "is a run")):
        with pytest.raises(SettingError, match=rf"out: .*/{out} {problem}"):
            run_command("hide", [file, "held_out=3", f"out={tmp_path / out}", *FEW])
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


@pytest.mark.slow
def test_a_detector_that_finds_nothing_is_refused(tmp_path):
    file = checkpoint(tmp_path, -5)
    with pytest.raises(SettingError, match=r"threshold: is 0.5, at which none of 2 held-out cars is found"):
        run_command("hide", [file, "held_out=2", f"out={tmp_path / 'out'}", *FEW])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_mesh_the_pictures_and_the_counts_are_written(tmp_path, capsys):
    out = tmp_path / "out"
    run_command("hide", [checkpoint(tmp_path, 3), "held_out=3", f"out={out}", *FEW])
    assert {file.name for file in out.iterdir()} >= {"mesh.obj", "counts.json", "car-1.png", "index.html"}
    (step,) = Store(out).steps()
    on_page = Store(out).figures(step, "roof_mesh")
    assert [figure.key for figure in on_page] == ["hidden", "car-1"]
    assert (
        "the optimised mesh hides" in on_page[0].caption
        and "m away, its score with nothing on the roof: 0.95" in on_page[1].caption
    )
    assert on_page[1].values["nothing on the roof"] >= 0.5  # cars that are found come first
    lines = (out / "mesh.obj").read_text().splitlines()
    assert [sum(line.startswith(kind) for line in lines) for kind in ("v ", "f ")] == [162, 320]
    counts = json.loads((out / "counts.json").read_text())
    assert set(counts["hidden"]) == {"box", "ellipsoid", "random mesh", "optimised mesh"}
    assert all(
        0 <= of["interval"][0] <= of["share"] <= of["interval"][1] <= 1 for of in counts["hidden"].values()
    )
    assert Image.open(out / "car-1.png").size[0] > 900
    assert f"{counts['found']} of 3 held-out cars" in capsys.readouterr().out


def test_a_detector_is_that_of_its_checkpoint(tmp_path):
    detector = hide.read_detector(hide.find_checkpoint(checkpoint(tmp_path, 1.5)))
    assert detector.grid == Grid(cell=1.0, slices=4)
    assert detector.network.score.bias.item() == 1.5
    assert not detector.training and not any(p.requires_grad for p in detector.parameters())
