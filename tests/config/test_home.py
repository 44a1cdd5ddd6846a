"""`~/` in a setting or a word is the home folder, as a shell only expands it at a word's beginning."""

import pytest
import torch
from PIL import Image

from vitrine import config, load_network
from vitrine.cli import analyze, arguments, dream
from vitrine.core.settings import SettingError
from vitrine.runs import run_folders


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a recipe, a run and weights; the current directory is another."""
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (here, home / "runs/old"):
        folder.mkdir(parents=True)
    (home / "recipe.yaml").write_text("run: {root: ~/runs}\nmodel: {weights: ~/net.pt}\ndata: {name: folder}")
    (home / "runs/old/config.yaml").write_text("")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def test_settings_of_recipes_and_arguments_begin_at_home(home):
    settings = config.load(["~/recipe.yaml", "data.root=~/pictures"])
    assert settings.folder.parent == home / "runs" and settings.model.weights == f"{home}/net.pt"
    assert settings.data.root == f"{home}/pictures"
    settings = config.load(["data.name=streaming", "data.download_dir=~/chunks", "run.root=a~/b"])
    assert settings.data.download_dir == f"{home}/chunks" and settings.run.root == "a~/b"
    settings = config.parse_settings(dream.Settings, ["image=~/cat.png", "out=~/dream.png"])
    assert (settings.image, settings.out) == (f"{home}/cat.png", f"{home}/dream.png")


def test_words_that_name_runs_begin_at_home(home):
    assert run_folders.find_run("~/runs/old") == home / "runs/old"
    with pytest.raises(SettingError, match=f"{home}/runs/old: has no checkpoint"):
        analyze.main(["~/runs/old"])
    with pytest.raises(SettingError, match=f"{home}/runs/old: has no checkpoint"):
        arguments.run_command("export", ["~/runs/old"])
    with pytest.raises(SettingError, match=r"~nobody\.here/old: is not there"):
        run_folders.find_run("~nobody.here/old")


def test_weights_are_read_from_home(home):
    network = load_network("convnet", classes=2, widths=[4])
    torch.save(network.state_dict(), home / "net.pt")
    again = load_network("convnet", classes=2, widths=[4], weights="~/net.pt")
    assert torch.equal(again.state_dict()["normalize.mean"], network.state_dict()["normalize.mean"])


@pytest.mark.slow
def test_a_folder_is_converted_into_home(home):
    pytest.importorskip("litdata", reason="litdata is not installed")
    from vitrine.cli.convert import convert

    for name in ("train/a", "train/b", "val/a", "val/b"):
        (home / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(home / "pictures" / name / "0.png")
    convert("~/pictures", "~/chunks")
    assert (home / "chunks/images.json").is_file()
