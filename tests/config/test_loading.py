import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vitrine import config
from vitrine.cli import lidar
from vitrine.core.settings import SettingError


def refusal(*arguments: str) -> str:
    with pytest.raises(SettingError) as caught:
        config.load(arguments)
    return str(caught.value)


def test_defaults_are_the_embedded_data_and_the_small_network():
    settings = config.load([])
    assert (settings.data.name, settings.model.name, settings.objective.name) == (
        "signs",
        "convnet",
        "standard",
    )
    assert settings.run.name.startswith("signs-convnet-")


def test_recipes_are_merged_left_to_right_and_then_the_command_line(tmp_path):
    (tmp_path / "one.yaml").write_text("data: {batch_size: 10}\noptimizer: {lr: 0.5}\n")
    (tmp_path / "two.yaml").write_text("data: {batch_size: 20}\n")
    settings = config.load(
        ["run.seed=3", f"{tmp_path}/one.yaml", f"{tmp_path}/two.yaml", "optimizer.lr=0.25"]
    )
    assert (settings.data.batch_size, settings.optimizer.lr, settings.run.seed) == (20, 0.25, 3)


def test_a_name_chooses_the_settings_of_its_section(tmp_path):
    settings = config.load(["data.name=folder", f"data.root={tmp_path}"])
    assert settings.data.root == str(tmp_path)
    message = refusal("data.root=somewhere")
    assert "data.root: is a setting of data.name=mnist, " in message
    assert "folder, " in message and message.endswith("not of data.name=signs")


def test_numbers_may_be_fractions_and_exponents():
    assert config.load(["optimizer.lr=8/255"]).optimizer.lr == 8 / 255
    assert config.load(["optimizer.lr=1e-3"]).optimizer.lr == 1e-3
    assert "division by zero" in refusal("optimizer.lr=1/0")


@pytest.mark.parametrize("data", ["signs", "folder", "streaming", "cifar10"])
@pytest.mark.parametrize("below", ["nothing", "hue.nothing", "crop_size"])
def test_an_unknown_setting_below_a_known_one_is_not_said_to_be_anothers(data, below):
    message = refusal(f"data.name={data}", f"data.augment.{below}=1")
    assert "data.augment." in message and "is a setting of" not in message
    assert "there is no such setting; " in message


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("data.batch_sise=3", "data.batch_sise: there is no such setting; did you mean data.batch_size"),
        ("lr=0.1", "lr: there is no such setting; did you mean optimizer.lr"),
        ("data.batch_size=many", "data.batch_size: is 'many', expected int"),
        ("data.batch_size=1.5", "data.batch_size: is 1.5, expected int"),
        ("data.batch_size=0", "data.batch_size: is 0, expected at least 1"),
        ("optimizer.lr=-1", "optimizer.lr: is -1"),
        ("optimizer.lr=nan", "optimizer.lr: is nan"),
        ("data.name=sings", "data.name: unknown data set 'sings': did you mean signs?"),
        ("model.name=resnet-18", "model.name: unknown network 'resnet-18': did you mean resnet18"),
        ("objective.name=standart", "objective.name: unknown objective 'standart': did you mean standard?"),
        ("analysis.examples.k=[1]", "analysis.examples.k: is [1], expected int"),
        ("analysis.exampels.k=1", "did you mean analysis.examples"),
        ("analysis.enabled=false", "there is no such setting; did you mean analysis.mode=off?"),
        ("analysis.seed=9223372036854775808", "analysis.seed: is 9223372036854775808, expected at most"),
        ("analysis.mode=none", "analysis.mode: is 'none', expected one of train, follow, off"),
        (
            "data.augment.crop_=1",
            "data.augment.crop_: there is no such setting; did you mean data.augment.crop",
        ),
        ("data.augment.hue=1", "data.augment.hue: there is no such setting; data.augment has crop, flip, "),
        ("data.augment.crop.x=1", "data.augment.crop: is {'x': 1}, expected int (random crop"),
        ("logging.wandb.colour=1", "logging.wandb.colour: there is no such setting; logging.wandb has "),
        ("analysis.cam.zzz=1", "analysis.cam.zzz: there is no such setting; analysis.cam has "),
        (
            "objective.eps.x=1",
            "objective.eps: is a setting of objective.name=pgd, fast, free, trades, mart",
        ),
        ("analysis.adversarial.eps=8", "analysis.adversarial.eps: is 8.0, expected at most 1; pixels are in"),
        (
            "validation.eps=4",
            "validation.eps: is 4.0, expected at most 1; pixels are in [0, 1]: did you mean",
        ),
        (
            "objective.name=multilabel",
            "objective.name: objective 'multilabel' is not supported: an image has",
        ),
        ("data=3", "data: is 3, expected settings below it"),
        ("analysis.cam=3", "analysis.cam: is 3, expected settings below it"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs?"),
        ("trainer.max_epochs=many", "trainer.max_epochs: is 'many', expected int or null"),
        ("trainer.max_epochs=-2", "trainer.max_epochs: is -2, expected at least -1"),
        ("trainer.precision=15", "trainer.precision: is 15, expected"),
        ("trainer.logger=false", "trainer.logger: is Vitrine's own to fill in"),
        ("--data.batch_size=3", "without dashes"),
        ("data.batch_size", "is neither a recipe (.yaml) nor key=value"),
        ("run.name=../out", "run.name: is '../out', expected a folder inside"),
        ("run.name=/tmp", "run.name: is '/tmp', expected a folder inside"),
        ("run.name=.", "run.name: is '.'"),
        ("run.seed=${nothing}", "nothing"),
        ("data.batch_size={a: [", "cannot be read"),
    ],
)
def test_wrong_input_is_named_with_what_was_expected_and_likely_meant(argument, expected):
    assert expected in refusal(argument)


def test_a_missing_recipe_is_answered_with_the_likely_one(tmp_path):
    (tmp_path / "cifar10.yaml").write_text("{}")
    assert f"did you mean {tmp_path}/cifar10.yaml?" in refusal(f"{tmp_path}/cifar.yaml")


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "\x00", "a: 1\na: 2"])
def test_an_unreadable_recipe_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    assert "bad.yaml" in refusal(f"{tmp_path}/bad.yaml")


def test_a_recipe_that_is_a_folder_or_no_text_is_refused(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(128, 256)))
    assert "cannot be read" in refusal(f"{tmp_path}/folder.yaml")
    assert "bytes.yaml" in refusal(f"{tmp_path}/bytes.yaml")


def test_resolved_settings_reload_to_the_same_run(tmp_path):
    first = config.load(
        [f"run.root={tmp_path}", "optimizer.lr=8/255", "trainer.max_epochs=2", "analysis.units=[1, 2]"]
    )
    first.folder.mkdir(parents=True)
    first.save()
    again = config.load([str(first.folder / "config.yaml")])
    assert again.to_dict() == first.to_dict()
    for section in (
        "run",
        "data",
        "model",
        "objective",
        "optimizer",
        "trainer",
        "checkpoint",
        "validation",
        "analysis",
        "logging",
    ):
        assert getattr(again, section) == getattr(first, section), section


KEYS = [str(k) for k in config.dotted_keys(config.load(["run.name=fuzz"]).to_dict())]
VALUES = st.one_of(
    st.integers(-3, 10**12).map(str),
    st.floats().map(repr),
    st.text(max_size=12),
    st.sampled_from(
        [
            "null",
            "true",
            "[]",
            "{}",
            "[1, a]",
            "${run.name}",
            "${",
            "1/0",
            "8/255",
            "!!python/object:os.system x",
        ]
    ),
)
WORDS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), VALUES),
    st.builds("{}={}".format, st.text(max_size=15), VALUES),
    st.builds("{}.{}={}".format, st.sampled_from(KEYS), st.sampled_from(KEYS), VALUES),
    st.text(max_size=15),
    st.recursive(st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3)).map(json.dumps),
)


@pytest.mark.slow
@hypothesis_settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.lists(WORDS, min_size=1, max_size=3))
def test_whatever_is_typed_gives_settings_or_one_message(arguments):
    """RELIABILITY.md names the command that tries 10,000 of these."""
    try:
        assert isinstance(config.load(arguments), config.Settings)
    except SettingError as error:
        assert str(error)
        assert "Traceback" not in str(error)


def test_every_recipe_in_the_tree_loads():
    recipes = sorted(Path(__file__).parents[2].glob("configs/*.yaml"))
    assert recipes
    for recipe in recipes:
        if recipe.name == "sweep.yaml":  # W&B's own format
            continue
        head = recipe.read_text().splitlines()[0]
        if head.startswith("# python -m vitrine lidar"):
            lidar.load([str(recipe)])
            continue
        assert head.startswith("# python train.py"), f"{recipe}: the first line says the command"
        config.load([str(recipe), *(["data.root=."] if "data.root=" in head else [])])


@pytest.mark.parametrize("depth", [40, 153, pytest.param(3000, marks=pytest.mark.slow)])
def test_what_is_nested_deeper_than_any_setting_is_refused(tmp_path, depth):
    key = ".".join(["trainer"] * depth)
    with pytest.raises(SettingError, match=r"nested more than 32 deep|cannot be read"):
        config.load([f"{key}=0"])
    with pytest.raises(SettingError, match=r"nested more than 32 deep|cannot be read"):
        config.load([f"model.options={'[' * depth}{']' * depth}"])
    recipe = tmp_path / "deep.yaml"
    recipe.write_text("trainer: " + "{trainer: " * depth + "0" + "}" * depth)
    with pytest.raises(SettingError, match=r"nested more than 32 deep|is not YAML"):
        config.load([str(recipe)])


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn", "ddp_notebook_find_unused_parameters_true"])
def test_a_strategy_that_trains_in_processes_of_its_own_is_refused(strategy):
    with pytest.raises(SettingError, match=rf"trainer\.strategy: is {strategy}, .*; expected ddp$"):
        config.load([f"trainer.strategy={strategy}"])
    config.load(["trainer.strategy=ddp_find_unused_parameters_true"])


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2", "fsdp_cpu_offload"])
def test_a_strategy_that_leaves_no_rank_a_whole_network_is_refused(strategy):
    with pytest.raises(
        SettingError, match=r"trainer\.strategy: is .*analyses need it whole; expected auto, ddp"
    ):
        config.load([f"trainer.strategy={strategy}"])
    assert config.load(["trainer.strategy=ddp"]).trainer["strategy"] == "ddp"


@pytest.mark.parametrize("end", ["", "data: *a11", "model: {options: {x: *a11}}", "run: {name: *a11}"])
def test_a_recipe_that_repeats_itself_beyond_all_bounds_is_refused(tmp_path, end):
    laughs = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    (tmp_path / "laughs.yaml").write_text(laughs + end)
    assert "repeats itself too often" in refusal(f"{tmp_path}/laughs.yaml")


@pytest.mark.slow
def test_a_run_saved_before_a_setting_existed_goes_on_as_it_began(tmp_path):
    own = [f"run.root={tmp_path}", "run.name=old", "run.resume=true", "data.name=folder", "data.root=x"]
    new = config.load_run(own)
    assert new.data.stratify is True and new.data.val_from == "train"
    new.folder.mkdir()
    new.save()
    assert config.load_run(own).data.stratify is True
    saved = tmp_path / "old" / "config.yaml"
    lines = saved.read_text().splitlines(keepends=True)
    saved.write_text("".join(line for line in lines if "stratify" not in line and "val_from" not in line))
    for old in (config.load_run(own), config.load_saved(tmp_path / "old", [])):
        assert old.data.stratify is False and old.data.val_from == "test"
    assert config.load_run([*own, "data.stratify=true"]).data.stratify is True


@pytest.mark.parametrize("place", ["runs", "my runs #2: all, [new]", "007", "on"])
def test_a_run_that_was_moved_or_copied_goes_on_where_it_is(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    root = [] if place == "runs" else [f"run.root={place}"]  # "runs" is the default
    begun = config.load(["run.root=before", "run.name=x", "optimizer.lr=0.05"])
    begun.folder.mkdir(parents=True)
    begun.save()
    for carry in (shutil.copytree, shutil.move):
        shutil.rmtree(place, ignore_errors=True)
        carry("before", place)
        found = config.load_run([*root, "run.name=x", "run.resume=true"])
        assert (found.folder, found.optimizer.lr) == (Path(place, "x"), 0.05)
