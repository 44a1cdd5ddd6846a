"""The commands of analyze.py: pictures of a file, pages of several runs; and what a run records of itself."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from vitrine import config
from vitrine.analyses import ANALYSES
from vitrine.analyses.dream import dream
from vitrine.cli import analyze, command_line, train
from vitrine.core.settings import SettingError
from vitrine.distributed.interruption import Interrupted
from vitrine.modules import load_checkpoint
from vitrine.runs import run_record

RUN = [
    "data.train_size=64",
    "data.val_size=32",
    "data.image_size=32",
    "data.batch_size=32",
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=1",
    "logging.wandb.mode=disabled",
    "analysis.units=2",
    *[f"analysis.{name}.enabled=false" for name in ANALYSES if name != "weights"],
]
FEW = ["steps=1", "size=32"]
HERE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    train.main([*RUN, f"run.root={root}", "run.name=signs"])
    return root / "signs"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    """Pictures that go into the working directory go into an empty one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def named(capsys, what: str = "the picture") -> Path:
    """The file that the last line names."""
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{what}: ")
    return Path(last.removeprefix(f"{what}: "))


@pytest.mark.slow
def test_a_run_dreams_of_a_photograph_into_its_own_folder(run, photo, capsys):
    analyze.main(["dream", str(run), f"image={photo}", *FEW, "octaves=2", "seed=3", "layer=features.2"])
    file = named(capsys)
    assert file == run / "dream" / "photo.png"
    seen = np.asarray(Image.open(file))
    assert seen.shape == (24, 32, 3)  # the longer side is `size`
    # the same as the function gives by hand, for the last checkpoint
    with Image.open(photo) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((32, 24), Image.Resampling.LANCZOS))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    network = load_checkpoint(run / "checkpoints" / "last.ckpt")
    by_hand = dream(network, image, "features.2", octaves=2, steps=1, step_size=0.006, jitter=16, seed=3)[0]
    assert np.abs(seen - (by_hand.permute(1, 2, 0) * 255).round().numpy()).max() <= 1


def test_a_checkpoint_dreams_of_noise_in_one_unit(run, tmp_path, capsys):
    loose = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "loose.ckpt")
    analyze.main(["dream", str(loose), "from_noise=true", "layer=features.3", "unit=1", *FEW, "octaves=1"])
    assert Image.open(named(capsys)).size == (32, 32)
    assert (tmp_path / "noise-dream.png").is_file()
    assert not list(tmp_path.glob(".*.png*"))  # nothing is left beside it


def test_a_run_paints_one_image_in_the_style_of_another(run, photo, tmp_path, capsys):
    Image.new("L", (40, 40), 90).save(tmp_path / "grey.png")
    words = [f"content={photo}", f"style={tmp_path}/grey.png", "optimizer=adam"]
    analyze.main(["style", str(run), *words, *FEW, "out=deep/painted.png"])
    assert named(capsys) == Path("deep/painted.png")
    assert Image.open("deep/painted.png").size == (32, 24)


def test_weights_from_elsewhere_need_no_data_set(photo, tmp_path, capsys):
    """A grayscale network of 7 classes, known by its state_dict alone."""
    from vitrine.modules import load_network

    network = load_network("convnet", classes=7, channels=1, mean=[0.5], std=[0.25], widths=[8, 8])
    torch.save(network.state_dict(), "weights.pt")
    model = ["model.name=convnet", "model.weights=weights.pt", "model.options.widths=[8, 8]"]
    analyze.main(["dream", *model, f"image={photo}", *FEW, "octaves=1"])
    assert named(capsys) == Path("photo-dream.png")
    pixels = np.asarray(Image.open("photo-dream.png"))
    assert (pixels == pixels[..., :1]).all()  # of a grayscale network all is grey
    analyze.main(["style", *model, f"content={photo}", f"style={photo}", *FEW, "optimizer=adam"])
    assert named(capsys) == Path("photo-as-photo.png")
    with pytest.raises(SettingError, match="has 'channels', which the weights tell"):
        analyze.main(["dream", *model, "model.options.channels=3", f"image={photo}", *FEW])


def test_published_weights_dream(shared, photo, capsys):
    weights = shared / "weights" / "squeezenet1_0-imagenet.pt"
    model = ["model.name=squeezenet1_0", f"model.weights={weights}"]
    analyze.main(["dream", *model, f"image={photo}", "layer=features.4", "steps=1", "octaves=1"])
    assert Image.open(named(capsys)).size == (64, 48)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}"], r"image: expected image=FILE, or from_noise=true"),
        (["{run}", "image=none.jpg"], r"image: there is no file none\.jpg"),
        (["{run}", "image=text.jpg"], r"image: text\.jpg cannot be read as an image"),
        (
            ["{run}", "image=photo.jpg", "layer=feature.3"],
            r"layer: unknown layer 'feature\.3': did you mean features",
        ),
        (["{run}", "image=photo.jpg", "layer=head"], r"layer: .*'head' has no spatial extent .* features\.2"),
        (["{run}", "image=photo.jpg", "unit=4000"], r"dream: .*4000"),
        (["{run}", "image=photo.jpg", "step=3"], r"step: there is no such setting here; did you mean steps"),
        (["{run}", "image=photo.jpg", "steps=few"], r"steps: is 'few', expected int"),
        (["{run}", "image=photo.jpg", "steps=0"], r"steps: is 0, expected at least 1"),
        (["{run}", "image=photo.jpg", "size=8"], r"size: is 8, expected at least 16"),
        (["{run}", "from_noise=true", "show=[0]"], r"show: is \[0\], but images of 3 channels are shown"),
        (["{run}", "image=photo.jpg", "device=gpu"], r"device: gpu cannot be used"),
        (["{run}", "image=photo.jpg", "out=photo.jpg"], r"out: .*ends in \.png"),
        (["{run}", "{run}", "image=photo.jpg"], r"is one too many"),
        (["{run}", "model.name=alexnet", "image=photo.jpg"], r"model\.name: .* says itself which network"),
        (["nowhere", "image=photo.jpg"], r"nowhere: is not there; there are no runs"),
        (["text.jpg", "image=photo.jpg"], r"text\.jpg: .*PyTorch file|truncated"),
        (["image=photo.jpg"], r"model\.weights: nothing to analyze; expected the folder of a run"),
        (["model.weights=text.pt", "image=photo.jpg"], r"model: text\.pt: is no file"),
        (
            ["model.name=alexnet", "model.weights=other.pt", "image=photo.jpg"],
            r"model: other\.pt: has no classifier\.6\.weight, which would tell the number of classes",
        ),
        (["model.nam=alexnet", "image=photo.jpg"], r"model\.nam: .*did you mean model\.name"),
    ],
)
def test_what_cannot_be_dreamt_is_answered_by_one_sentence(run, photo, words, message):
    Path("text.jpg").write_text("not a picture")
    torch.save({"fc.weight": torch.zeros(3, 4)}, "other.pt")
    with pytest.raises(SettingError, match=message) as caught:
        analyze.main(["dream", *[word.format(run=run) for word in words]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["content=photo.jpg"], r"style: expected style=FILE"),
        (
            ["content=photo.jpg", "style=photo.jpg", "style_layers=[head]"],
            r"style_layers: .*no spatial extent",
        ),
        (["content=photo.jpg", "style=photo.jpg", "content_layers=[stem]"], r"content_layers: unknown layer"),
        (["content=photo.jpg", "style=photo.jpg", "start=middle"], r"start: is 'middle', expected one of"),
        (["content=photo.jpg", "styl=photo.jpg"], r"styl: .*did you mean style"),
    ],
)
def test_what_cannot_be_painted_is_answered_by_one_sentence(run, photo, words, message):
    with pytest.raises(SettingError, match=message):
        analyze.main(["style", str(run), *words])


def test_a_device_that_is_not_here_is_refused(run):
    with pytest.raises(SettingError, match=r"analysis\.device: cuda:99 cannot be used"):
        analyze.main([str(run), "analysis.device=cuda:99"])


def test_an_image_that_is_too_small_for_the_network_is_refused(shared, tmp_path):
    Image.new("RGB", (20, 20)).save("tiny.png")
    weights = shared / "weights" / "squeezenet1_0-imagenet.pt"
    model = ["model.name=squeezenet1_0", f"model.weights={weights}"]
    with pytest.raises(SettingError, match="size: the network does not take an image of 16 x 16 pixels"):
        analyze.main(["dream", *model, "image=tiny.png", "size=16"])
    with pytest.raises(SettingError, match=r"dream: octaves: one is .* in fewer octaves"):
        analyze.main(["dream", *model, "image=tiny.png", "octaves=5", "layer=features.10", "size=32"])


@pytest.mark.slow
def test_runs_stand_side_by_side_on_one_page(run, tmp_path, capsys):
    other = shutil.copytree(run, run.parent / "robust")
    analyze.main(["compare", str(run), str(other)])
    assert named(capsys, "the page") == run.parent / "compare-signs-robust" / "index.html"
    text = (run.parent / "compare-signs-robust" / "gallery.js").read_text()
    told = json.loads(re.fullmatch(r"vitrine\((.*)\);\n", text, re.DOTALL)[1])
    assert [(r["name"], r["base"]) for r in told["runs"]] == [
        ("signs", "../signs/"),
        ("robust", "../robust/"),
    ]
    analyze.main(["compare", str(run), str(other), f"out={tmp_path}/both"])
    assert named(capsys, "the page") == tmp_path / "both" / "index.html"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"compare: 0 runs came, expected at least 2"),
        (["{run}", "{run}/"], r"compare: 1 run came, expected at least 2; runs in .*signs"),
        (["{run}", "{run}-2"], r"signs-2: is not there; runs in .*signs"),
        (["{run}", "{run}/analysis"], r"analysis: is not a run"),
        (["{run}", "{copy}", "out={run}"], r"out: .* is a run with a page of its own"),
        (["{run}", "{copy}", "to=there"], r"to: there is no such setting here"),
    ],
)
def test_what_cannot_be_compared_is_answered_by_one_sentence(run, tmp_path, words, message):
    shutil.copytree(run, tmp_path / "copy")
    with pytest.raises(SettingError, match=message):
        analyze.main(["compare", *[word.format(run=run, copy=tmp_path / "copy") for word in words]])


def test_help_teaches_the_commands(capsys):
    analyze.main(["--help", "run"])
    said = capsys.readouterr().out
    assert all(f"analyze.py {name} RUN" in said for name in ("dream", "style", "compare"))
    for words in (["dream", "--help"], ["--help", "dream"]):
        analyze.main(words)
        said = capsys.readouterr().out
        assert "octaves=3" in said and "layer=null" in said and "enabled" not in said


@pytest.mark.slow
def test_a_wrong_word_ends_a_command_with_status_2_and_one_line():
    program = forked.Program(["analyze.py", "dream", "imag=a.jpg"])
    _, said = program.communicate(timeout=100)
    assert program.returncode == 2
    assert said == "error: imag: there is no such setting here; did you mean image?\n"


def test_a_run_records_when_how_long_and_by_which_code(run):
    record = json.loads((run / "run.json").read_text())
    assert record["ended"] >= record["started"] and record["resumed"] is None
    assert 0 < record["seconds"] < 600
    assert record["command"].startswith("python train.py data.train_size=64 ")
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["commit"] == run_record.commit()
    from vitrine.reporting.page_data import run_data

    facts = dict(run_data(run)["facts"])
    assert facts["took"] == run_record.format_duration(record["seconds"])
    assert facts.get("commit", facts.get("version")) in (record["commit"], record["versions"]["vitrine"])


def test_a_resumed_run_keeps_its_beginning_and_adds_its_seconds(tmp_path):
    before = {"started": "2020-01-01T00:00:00+00:00", "seconds": 100.0}
    (tmp_path / "run.json").write_text(json.dumps(before))
    record = run_record.RunRecord(tmp_path, ["train.py", "run.name=a b"])
    half = run_record.read(tmp_path)
    assert half["started"] == before["started"] and half["resumed"] and half["ended"] is None
    assert ["so far", "1 min 40 s"] in run_record.read_facts(tmp_path)
    record.close()
    assert 100 <= run_record.read(tmp_path)["seconds"] < 160
    assert run_record.read(tmp_path)["command"] == "python train.py 'run.name=a b'"


@pytest.mark.parametrize(
    ("error", "state"), [(None, "finished"), (Interrupted(signal.SIGTERM), "preempted"), (OSError, "failed")]
)
def test_a_record_is_closed_by_how_its_run_ends(tmp_path, error, state):
    with contextlib.suppress(Interrupted, OSError), run_record.RunRecord(tmp_path, ["train.py"]):
        assert run_record.read(tmp_path)["state"] == "running"
        if error:
            raise error
    assert run_record.read(tmp_path)["state"] == state


def test_the_commit_is_that_of_the_codes_own_checkout(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    assert run_record.commit(tmp_path) is None
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    subprocess.run([*git, "tag", "-a", "v1", "-m", "v1"], check=True)
    assert run_record.commit(tmp_path) == "v1"
    (tmp_path / "installed").mkdir()
    assert run_record.commit(tmp_path / "installed") is None  # inside a repository of others


def test_seconds_in_words():
    words = [run_record.format_duration(s) for s in (0.2, 59.6, 192, 3599.7, 18420)]
    assert words == ["0 s", "1 min 00 s", "3 min 12 s", "1 h 00 min", "5 h 07 min"]


@pytest.mark.slow
def test_the_sweeps_command_line_loads(monkeypatch):
    """The command line is made by W&B's own code, from the values it would draw."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((HERE / "configs" / "sweep.yaml").read_text())
    assert sweep["program"] == "train.py" and sweep["metric"]["name"] == "best/accuracy"
    for pick in ("min", "max"):
        drawn = {
            key: {"value": said.get(pick, said.get("values", [None])[0 if pick == "min" else -1])}
            for key, said in sweep["parameters"].items()
        }
        macros = create_sweep_command_args({"args": drawn}) | {
            "env": ["/usr/bin/env"],
            "interpreter": ["python"],
            "program": ["train.py"],
        }
        line = []
        for chunk in create_sweep_command(sweep["command"]):
            macro = re.fullmatch(r"\$\{(\w+)\}", chunk)
            line += macros[macro[1]] if macro else [chunk]
        assert line[:3] == ["/usr/bin/env", "python", "train.py"]
        monkeypatch.chdir(HERE)
        settings = config.load(line[3:])
        assert settings.optimizer.lr == drawn["optimizer.lr"]["value"]
        assert settings.data.batch_size == drawn["data.batch_size"]["value"]
        assert settings.run.seed == drawn["run.seed"]["value"]


def test_agents_that_begin_in_the_same_second_name_their_runs_apart(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    names = []
    for agent in ("abc", "def"):
        monkeypatch.setenv("WANDB_RUN_ID", agent)
        names.append(config.load([]).run.name)
    assert names[0].endswith("-abc") and names[1].endswith("-def")


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_that_would_all_do_the_same_are_refused_and_the_first_says_so(
    rank, tmp_path, monkeypatch, capsys
):
    asked = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**asked, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr("sys.argv", ["analyze.py", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        command_line.run_cli(analyze.main)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert ("was started as 2 processes" in said and "follow=true" in said) if rank == 0 else said == ""
