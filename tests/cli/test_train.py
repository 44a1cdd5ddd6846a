"""The road from the command line to the page, on a few small signs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError
from vitrine.runs.metrics_csv import read_rows

SMALL = [
    "data.train_size=96",
    "data.val_size=32",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_steps=4",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_steps=2",
    "logging.wandb.mode=disabled",
    "analysis.probes=2",
    "analysis.units=2",
    "analysis.samples.probes=1",
    "analysis.samples.shown=2",
]
QUICK = [
    "saliency.enabled=false",
    "unit_saliency.enabled=false",
    "features.enabled=false",
    "localization.enabled=false",
    "truth.enabled=false",
]
SHORT = [*SMALL, *[f"analysis.{word}" for word in QUICK]]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    train.main([*SHORT, f"run.root={root}", "run.name=signs"])
    return root / "signs"


def pictures(run: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(run)): f.read_bytes()
        for f in sorted(run.glob("analysis/**/*.*"))
        if f.suffix in (".png", ".webp")
    }


@pytest.mark.slow
def test_a_run_without_analyses_is_analyzed_later(tmp_path, capsys):
    folder = tmp_path / "off"
    train.main([*SHORT, f"run.root={tmp_path}", "run.name=off", "analysis.mode=off"])
    assert "no checkpoint was analyzed" in capsys.readouterr().out
    assert (folder / "index.html").is_file() and not list(folder.glob("analysis/*"))
    train.main([*SHORT, f"run.root={tmp_path}", "run.name=off", "run.resume=true", "trainer.max_steps=6"])
    assert not list(folder.glob("analysis/*"))  # it stays off, also for what was saved before
    analyze.main([str(folder), *QUICK])
    assert [path.name for path in sorted(folder.glob("analysis/*"))] == [f"step={s:08d}" for s in (2, 4, 6)]


def test_a_run_leaves_checkpoints_pictures_curves_and_a_page(run):
    assert sorted(f.name for f in run.glob("checkpoints/*")) == [
        "last.ckpt",
        "step=00000002.ckpt",
        "step=00000004.ckpt",
    ]
    for step in ("step=00000002", "step=00000004"):
        complete = json.loads((run / "analysis" / step / "complete.json").read_text())
        assert {"weights", "examples", "cam"} <= set(complete["analyses"])
        assert not any(outcome["error"] for outcome in complete["analyses"].values())
        for figure in json.loads((run / "analysis" / step / "cam" / "figures.json").read_text()):
            assert (run / "analysis" / step / "cam" / figure["file"]).is_file()
    rows = read_rows(run)
    assert rows[-1]["step"] and any(row["train/loss"] for row in rows)
    assert (run / "index.html").is_file()
    assert (run / "config.yaml").is_file()


@pytest.mark.slow
def test_the_closing_lines_name_the_page_and_the_time_of_each_technique(tmp_path, capsys):
    train.main([*SHORT, f"run.root={tmp_path}", "run.name=a", "trainer.max_steps=2"])
    said = capsys.readouterr().out
    assert f"the page: {tmp_path}/a/index.html" in said
    assert "seconds a technique:" in said
    assert "none failed" in said


@pytest.mark.slow
def test_analyze_makes_what_is_missing_and_the_same_pictures_bit_for_bit(run, capsys):
    import shutil

    before = pictures(run)
    assert before
    shutil.rmtree(run / "analysis" / "step=00000002")
    assert pictures(run) != before
    analyze.main([str(run)])
    assert pictures(run) == before
    analyze.main([str(run / "checkpoints" / "last.ckpt")])
    assert "nothing was missing" in capsys.readouterr().out.splitlines()[-2]


@pytest.mark.slow
def test_analyze_adds_a_technique_that_was_off(run):
    from vitrine.runs.store import Store

    assert "saliency" not in Store(run).results(4)
    analyze.main([str(run / "checkpoints" / "step=00000004.ckpt"), "saliency.enabled=true"])
    assert Store(run).results(4)["saliency"].error is None
    assert "saliency" not in Store(run).results(2)


@pytest.mark.slow
def test_analyze_looks_at_weights_that_were_not_trained_here(run, tmp_path):
    from vitrine.modules import load_checkpoint

    network = load_checkpoint(run / "checkpoints" / "last.ckpt")
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    words = [w for w in SHORT if w.startswith(("data.", "analysis.", "logging."))]
    analyze.main([*words, f"run.root={tmp_path}", "run.name=b", f"model.weights={tmp_path}/weights.pt"])
    theirs = {
        Path(name).relative_to("analysis/step=00000000"): data
        for name, data in pictures(tmp_path / "b").items()
    }
    ours = {
        Path(name).relative_to("analysis/step=00000004"): data
        for name, data in pictures(run).items()
        # weights alone do not say the learning rate that TracIn multiplies by
        if "step=00000004" in name and "/saliency/" not in name and "/tracin." not in name
    }
    assert theirs.keys() == ours.keys()
    # examples are compared with those of the checkpoint before, which b has not
    assert {k: v for k, v in theirs.items() if "examples" not in k.parts} == {
        k: v for k, v in ours.items() if "examples" not in k.parts
    }


@pytest.mark.parametrize("left", ["checkpoints", "run.json"])
def test_weights_from_elsewhere_are_not_analyzed_into_a_run_that_was_trained(tmp_path, left):
    trained = tmp_path / "a"
    (trained / left).mkdir(parents=True)
    (trained / "config.yaml").write_text("run:\n  name: a\n")
    torch.save({}, tmp_path / "weights.pt")
    words = [f"run.root={tmp_path}", "run.name=a", f"model.weights={tmp_path}/weights.pt"]
    with pytest.raises(SettingError, match=r"run.name: .*/a is a run that was trained.*another name") as said:
        analyze.main([*SHORT, *words])
    assert "\n" not in str(said.value)
    assert (trained / "config.yaml").read_text() == "run:\n  name: a\n"


def test_training_with_analyses_on_is_bit_identical_to_training_without(run, tmp_path):
    off = [f"analysis.{name}.enabled=false" for name in ANALYSES]
    train.main([*SMALL, *off, f"run.root={tmp_path}", "run.name=without"])
    with_pictures = torch.load(run / "checkpoints" / "step=00000004.ckpt", weights_only=True)["state_dict"]
    without = torch.load(tmp_path / "without" / "checkpoints" / "step=00000004.ckpt", weights_only=True)[
        "state_dict"
    ]
    assert with_pictures.keys() == without.keys()
    assert all(torch.equal(with_pictures[name], without[name]) for name in without)


@pytest.mark.slow
def test_training_a_transformer_is_bit_identical_with_its_attention_shown(tmp_path):
    words = [*SHORT, "model.name=vit_tiny_4", f"run.root={tmp_path}"]
    train.main([*words, "run.name=with"])
    shown = {name.split("/")[2] for name in pictures(tmp_path / "with")}
    assert {"attention", "outlier_tokens"} <= shown
    train.main([*words, "run.name=without", "analysis.mode=off"])
    with_pictures, without = (
        torch.load(tmp_path / name / "checkpoints" / "step=00000004.ckpt", weights_only=True)["state_dict"]
        for name in ("with", "without")
    )
    assert with_pictures.keys() == without.keys()
    assert all(torch.equal(with_pictures[name], without[name]) for name in without)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["analysis.layers=[blok1]"], r"analysis\.layers: unknown layer 'blok1'"),
        (
            ["analysis.units=[100000]"],
            r"analysis\.units: unit 100000 is asked for, but layer .* has channels 0 to",
        ),
        (
            ["analysis.concepts.enabled=true", "analysis.concepts.layer=blok1"],
            r"analysis\.concepts\.layer: unknown layer 'blok1'",
        ),
        (["analysis.cam.layer=blok1"], r"analysis\.cam\.layer: unknown layer 'blok1'"),
        (
            ["analysis.dream.enabled=true", "analysis.dream.layers=[blok1]"],
            r"analysis\.dream\.layers: unknown layer 'blok1'",
        ),
        (
            ["analysis.style.enabled=true", "analysis.style.style_layers=[blok1]"],
            r"analysis\.style\.style_layers: unknown layer 'blok1'",
        ),
        (["analysis.device=gpu"], r"analysis\.device: gpu cannot be used"),
        (["model.weights=nothing.pt"], r"nothing\.pt"),
        (["model.options={widht: 3}"], r"widht: convnet has no such option; did you mean width"),
        (["optimizer.name=sdg"], r"did you mean sgd"),
        (["optimizer.schedule=piecewise", "optimizer.milestones=[2]"], r"optimizer\.milestones"),
        (["trainer.precision=bf16-mixd"], r"trainer\.precision"),
        (
            ["objective.name=mart", "data.augment.cutmix=1"],
            r"data\.augment\.cutmix: is 1\.0, but objective\.name=mart needs images of one class each",
        ),
        (["data.augment.augmix=true", "data.augment.randaugment=2"], "expected one policy of the two"),
        (["objective.class_weights=[1,2]"], r"objective\.class_weights: has 2 numbers, expected 8"),
        (["objective.class_weights=even"], r"objective\.class_weights: is 'even', expected balanced"),
        (["model.name=inception_v3"], r"does not take images of 3 x 32 x 32"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(tmp_path, words, message):
    with pytest.raises(SettingError, match=message):
        train.main([*SHORT, f"run.root={tmp_path}/runs", "run.name=a", *words])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["standard", "fast", "trades"])
def test_a_run_with_every_augmentation_resumes_to_the_same_weights(tmp_path, objective):
    everything = "flip: true, trivialaugment: true, erasing: 0.3, mixup: 0.2, cutmix: 1.0, repeats: 2"
    words = [
        *SMALL,
        "analysis.mode=off",
        "optimizer.ema=0.9",
        "optimizer.schedule=constant",
        f"run.root={tmp_path}",
        f"data.augment={{{everything}}}",
        "data.sampler=balanced",
        f"objective.name={objective}",
        "objective.class_weights=balanced",
        "objective.label_smoothing=0.1",
        "checkpoint.monitor=val/macro_f1",
    ]
    train.main([*words, "run.name=whole", "trainer.max_steps=8"])
    train.main([*words, "run.name=halves", "trainer.max_steps=2"])
    train.main([*words, "run.name=halves", "run.resume=true", "trainer.max_steps=8"])
    whole, halves = (
        torch.load(tmp_path / name / "checkpoints/step=00000008.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "halves")
    )
    assert all(torch.equal(value, whole[name]) for name, value in halves.items())


def test_a_folder_of_images_that_is_missing_is_named(tmp_path):
    with pytest.raises(SettingError, match=r"data\.root: /nowhere is missing"):
        train.main([f"run.root={tmp_path}/runs", "data.name=folder", "data.root=/nowhere"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["model.options.widths=[4, 8]"],
            r"features\.0\.0\.weight is \[4, 3, 7, 7\], and was \[16, 3, 7, 7\]",
        ),
        (["model.name=squeezenet1_0"], r"features\.0\.weight is \[96, 3, 7, 7\], and was absent"),
    ],
)
def test_a_run_does_not_go_on_with_another_network_nor_lose_its_settings(run, tmp_path, words, problem):
    shutil.copytree(run, tmp_path / "a")
    before = (tmp_path / "a" / "config.yaml").read_text()
    with pytest.raises(SettingError, match=rf"model: makes another network than .*ckpt holds .*{problem}"):
        train.main(["run.name=a", f"run.root={tmp_path}", "run.resume=true", "trainer.max_steps=6", *words])
    assert (tmp_path / "a" / "config.yaml").read_text() == before


def test_a_run_of_the_same_name_is_not_written_over(run):
    with pytest.raises(SettingError, match=r"is there already; run\.resume=true goes on with it"):
        train.main([*SHORT, f"run.root={run.parent}", "run.name=signs"])


@pytest.mark.slow
def test_wrong_input_ends_with_status_2_and_one_line():
    for file in ("train.py", "analyze.py"):
        program = forked.Program([file, "data.batch_sise=3"])
        _, said = program.communicate(timeout=100)
        assert program.returncode == 2
        assert said.count("\n") == 1 and "did you mean data.batch_size" in said


@pytest.mark.slow
def test_help_that_is_read_only_in_part_is_no_error():
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "train.py", "--help"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        program.stdout.close()
        assert program.stderr.read() == b""


def test_help_lists_every_setting_with_its_default_and_meaning(capsys):
    train.main(["--help"])
    said = capsys.readouterr().out
    for words in (
        "data.batch_size=",
        "optimizer.lr=0",
        "analysis.examples.k=9",
        "with data.name=folder:",
        "trainer.max_epochs=",
    ):
        assert words in said
    train.main(["--help", "checkpoint"])
    assert "data.batch_size" not in capsys.readouterr().out
