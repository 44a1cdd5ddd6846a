"""A setting that is text takes the text, and a number the number that a person reads in it."""

from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from vitrine import config
from vitrine.core.settings import SettingError, setting

# what YAML makes something else of: booleans, numbers, times, dates, comments, mappings, lists, anchors, tags
PLAIN = ["on", "off", "no", "yes", "true", "007", "010", "1e3", "1_000", "0x10", "1.10", ".5", "+1"]
PLAIN += ["12:30:45", "2024-01-01", "2024-13-45", ".nan", "=", "a", "it's"]
NO_YAML_WORD = [
    "#1",
    "a #b",
    "a: b",
    "a: b: c",
    "[x]",
    "[x",
    "{x}",
    "*x",
    "&x",
    "@x",
    "%x",
    "!x",
    "`x",
    "'",
    "-",
]


@dataclass
class Texts:
    needed: str = setting("default", "text")
    optional: str | None = setting(None, "text or nothing")
    several: list[str] = setting([], "texts")
    flag: bool = setting(False, "true or false")
    count: int = setting(1, "whole")
    amount: float = setting(1.0, "a number")
    anything: dict[str, Any] = setting({}, "of any kind")


def parse(*arguments: str) -> Texts:
    return config.parse_settings(Texts, arguments)


@pytest.mark.parametrize("text", [*PLAIN, *NO_YAML_WORD, "null", "~", "", "None"])
def test_text_on_the_command_line_is_taken_as_written(text):
    assert parse(f"needed={text}").needed == text
    optional = None if text in ("null", "~", "") else text
    assert parse(f"optional={text}").optional == optional


@pytest.mark.parametrize("text", PLAIN)
def test_text_in_a_recipe_and_in_a_list_is_taken_as_written(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"needed: {text}\noptional: {text}\nseveral: [{text}, {text}]")
    read = parse(str(tmp_path / "a.yaml"))
    assert (read.needed, read.optional, read.several) == (text, text, [text, text])
    assert parse(f"several=[{text}, b]").several == [text, "b"]


@pytest.mark.parametrize("text", ["on", "null", "1e3", "a: b", "#1"])
@pytest.mark.parametrize("quote", "\"'")
def test_quotes_are_no_part_of_the_text(text, quote):
    assert parse(f"optional={quote}{text}{quote}").optional == text


@pytest.mark.slow
@pytest.mark.parametrize("text", [*PLAIN, *NO_YAML_WORD, "None"])
def test_a_saved_text_is_the_same_for_every_reader_of_yaml(tmp_path, text):
    settings = config.load(["run.name=a", f"logging.wandb.project={text}", f"run.root={tmp_path}"])
    assert settings.logging.wandb.project == text
    settings.folder.mkdir()
    settings.save()
    file = settings.folder / "config.yaml"
    assert config.load([str(file)]).logging.wandb.project == text
    assert yaml.safe_load(file.read_text())["logging"]["wandb"]["project"] == text
    assert OmegaConf.load(file).logging.wandb.project == text


@pytest.mark.parametrize(
    "name", ["on", "007", "1e3", "no", "2024-01-01", "12:30:45", pytest.param("1.10", marks=pytest.mark.slow)]
)
def test_a_run_is_called_what_was_typed(tmp_path, name):
    settings = config.load([f"run.name={name}", f"run.root={tmp_path}"])
    assert settings.folder == tmp_path / name
    settings.folder.mkdir()
    settings.save()
    again = config.load_run([f"run.name={name}", f"run.root={tmp_path}", "run.resume=true"])
    assert again.run.name == name and again.folder == settings.folder


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("flag=on", True),
        ("flag=No", False),
        ("flag=true", True),
        ("count=007", 7),
        ("count=010", 10),  # eight for YAML 1.1
        ("count=1_000", 1000),
        ("count=0x10", 16),
        ("amount=010", 10.0),
        ("amount=1e-3", 1e-3),
        ("amount=1e3", 1e3),
        ("amount=.5", 0.5),
        ("amount=8/255", 8 / 255),
        ("amount=.inf", float("inf")),
        ("anything={a: on, 007: 010, no: [1.10, x, null]}", {"a": True, "007": 10, "no": [1.1, "x", None]}),
    ],
)
def test_other_settings_read_what_a_person_reads(argument, value):
    assert getattr(parse(argument), argument.partition("=")[0]) == value


@pytest.mark.parametrize(
    "argument", ["count=1:30", "amount=1:30", "count=1e3", "count=[", "flag=maybe", "count=a #b"]
)
def test_what_is_no_such_thing_is_refused_by_name(argument):
    with pytest.raises(SettingError, match=f"^{argument.partition('=')[0]}: "):
        parse(argument)


@pytest.mark.parametrize("text", ["{a: 1}", "[a]"])
def test_a_recipe_whose_text_is_a_mapping_or_a_list_is_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(f"needed: {text}")
    with pytest.raises(SettingError, match=r"^needed: .*expected str"):
        parse(str(tmp_path / "a.yaml"))


def test_lightnings_arguments_take_text_where_they_may():
    trainer = config.load(
        ["trainer.max_time=1:00:00:00", "trainer.devices=2", "trainer.val_check_interval=0.5"]
    ).trainer
    assert (trainer["max_time"], trainer["devices"], trainer["val_check_interval"]) == ("1:00:00:00", 2, 0.5)
    with pytest.raises(SettingError, match=r"trainer\.max_epochs: .*cannot be read"):
        config.load(["trainer.max_epochs=["])


def test_layers_keep_their_names_and_units_their_numbers():
    analysis = config.load(["analysis.layers=[1.10, 0]", "analysis.units=[3, 010]"]).analysis
    assert (analysis.layers, analysis.units) == (["1.10", "0"], [3, 10])
    analysis = config.load(["analysis.layers=auto", "analysis.units=4"]).analysis
    assert (analysis.layers, analysis.units) == ("auto", 4)


@pytest.mark.parametrize("text", ["#1", "a: b", "010"])
def test_later_arguments_win_over_earlier_ones_also_inside_of_mappings(text):
    arguments = [
        "run={name: a, seed: 3}",
        "logging.wandb={project: x}",
        "run.seed=4",
        f"logging.wandb.project={text}",
    ]
    settings = config.load(arguments)
    assert (settings.run.name, settings.run.seed, settings.logging.wandb.project) == ("a", 4, text)
