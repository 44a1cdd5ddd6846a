"""The command `vitrine`: which program it runs, with which recipe, and what it says of itself."""

import runpy
import sys

import pytest

import vitrine
from vitrine import cli, config


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_alone_it_lists_the_programs(capsys, words):
    cli.main(words)
    shown = capsys.readouterr().out
    assert all(f"    vitrine {program} " in shown for program in cli.PROGRAMS)


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["train", "--version"]])
def test_it_says_its_version(capsys, words):
    cli.main(words)
    assert capsys.readouterr().out == f"vitrine {vitrine.__version__}\n"


def test_python_m_vitrine_is_the_same_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python -m vitrine", "--version"])
    runpy.run_module("vitrine", run_name="__main__")
    assert capsys.readouterr().out == f"vitrine {vitrine.__version__}\n"


@pytest.mark.parametrize(
    "program",
    ["train", "analyze", "follow", "dream", "style", "object", "compare", "report", "sync", "convert"],
)
def test_every_program_has_its_help(capsys, program):
    cli.main([program, "--help"])
    assert "=" in capsys.readouterr().out


def test_an_unknown_program_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["trian"])
    assert caught.value.code == 2
    assert "'trian'" in (said := capsys.readouterr().err) and "train" in said and "Traceback" not in said


@pytest.mark.parametrize("word", ["cifar10", "cifar10.yaml", "configs/cifar10.yaml"])
def test_a_recipe_is_found_by_its_name_where_there_is_no_such_file(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10").mkdir()  # the data, maybe
    settings = config.load([word, "optimizer.lr=0.5"])
    assert (settings.data.name, settings.optimizer.lr) == ("cifar10", 0.5)


def test_a_file_comes_before_a_shipped_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10.yaml").write_text("data: {name: signs}")
    assert config.load(["cifar10.yaml"]).data.name == "signs"
    assert config.load(["cifar10"]).data.name == "cifar10"


@pytest.mark.parametrize("word", ["cifar1", "cifar1.yaml", "configs/cifar1.yaml"])
def test_an_unknown_recipe_is_answered_with_the_nearest(tmp_path, monkeypatch, capsys, word):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", word])
    assert caught.value.code == 2 and not list(tmp_path.iterdir())
    assert f"error: {word}: " in (said := capsys.readouterr().err) and "did you mean cifar10" in said
