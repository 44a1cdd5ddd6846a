import json
import sys

import pytest

from vitrine.cli import analyze
from vitrine.core.settings import SettingError
from vitrine.reporting.sinks import STORY
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.store import Store

pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_home")

METRICS = {
    "train/loss": 1.0,
    "val/loss": 1.1,
    "val/accuracy": 0.5,
    "val/robust_accuracy": 0.25,
    "val/accuracy_class/a/b": 0.5,
    "lr-AdamW/pg1": 0.1,
}


@pytest.fixture
def make_run(tmp_path, report):
    """Makes a run with what training and analyses leave behind, and logs it offline."""

    def make(name, objective):
        run_dir = tmp_path / "runs" / name
        run_dir.mkdir(parents=True)
        (run_dir / "config.yaml").write_text(f"run: {{name: {name}}}\nobjective: {{name: {objective}}}\n")
        (run_dir / "metrics.csv").write_text(
            ",".join(["step", "epoch", *METRICS])
            + "\n"
            + ",".join(["9", "0", *map(str, METRICS.values())])
            + "\n"
        )
        logger, _ = wandb_logger(run_dir, WandbSettings())
        logger.log_metrics({**METRICS, "epoch": 0}, step=9)
        sink, store = WandbSink(logger.experiment), Store(run_dir)
        with store.writing(10, weights="") as writer:
            for analysis, result in report(10).results.items():
                writer.write(analysis, result)
        sink.log(report(10), store.step_folder(10))
        sink.close()
        return run_dir

    return make


def spec_of(tmp_path, *arguments):
    analyze.main(["report", *map(str, arguments), f"spec={tmp_path / 'spec.json'}"])
    return json.loads((tmp_path / "spec.json").read_text())


def panels(section):
    return [(p["viewType"], p["config"]) for p in section["panels"]]


def keys_of(panels):
    curves = [key for _, config in panels for key in config.get("metrics", [])]
    return curves, [key for _, config in panels for key in config.get("mediaKeys", [])]


@pytest.mark.slow
def test_a_workspace_tells_the_story_with_keys_that_the_run_has_logged(tmp_path, make_run, history):
    pytest.importorskip("wandb_workspaces")
    run_dir = make_run("plain", "standard")
    spec = spec_of(tmp_path, run_dir, "kind=workspace")["workspace"]["section"]
    sections = {s["name"]: panels(s) for s in spec["panelBankConfig"]["sections"]}
    wanted = ["Training", "Robustness", "Examples", "Class maps", "Features", "Classes", "Time"]
    assert list(sections) == wanted == [name for name in STORY if name in wanted]
    there = {key for row in history(run_dir) for key in row}
    shown = {name: keys_of(of) for name, of in sections.items()}
    for curves, media in shown.values():
        assert all(key in there for key in curves if not key.startswith("Time/"))
        assert all(f"{key}._type" in there for key in media)
    assert ["Training/train/loss", "Training/val/loss"] in [
        config["metrics"] for kind, config in sections["Training"] if kind == "Run History Line Plot"
    ]
    assert shown["Robustness"] == (["Robustness/val/robust_accuracy"], [])
    assert shown["Examples"][1] == ["Examples/examples/layer1", "Examples/examples/layer2"]
    assert all(
        c["xAxis"] == "trainer/global_step" for of in sections.values() for _, c in of if "metrics" in c
    )
    logged_media = {key.removesuffix("._type") for key in there if key.endswith("._type")} - {
        "Features/units"
    }
    assert {key for _, media in shown.values() for key in media} == logged_media
    assert "Features/units" in json.dumps(spec)


@pytest.mark.slow
def test_a_report_sets_plain_runs_beside_robust_ones(tmp_path, make_run):
    pytest.importorskip("wandb_workspaces")
    folders = [make_run("plain", "standard"), make_run("robust", "pgd")]
    spec = spec_of(tmp_path, *folders, "kind=report", "entity=team", "project=p")["report"]
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    chapters = [
        b["children"][0]["text"] for b in spec["blocks"] if b["type"] == "heading" and b["level"] == 2
    ]
    assert chapters[:3] == ["Training", "Robustness", "Examples"] and len(grids) == len(chapters)
    for grid in grids:
        sets = {s["name"]: json.dumps(s["filters"]) for s in grid["metadata"]["runSets"]}
        assert list(sets) == ["plain", "robust"]
        for folder in folders:
            identity = (folder / "wandb-id").read_text().strip()
            assert identity in sets[folder.name]
            assert all(identity not in told for name, told in sets.items() if name != folder.name)


@pytest.mark.slow
def test_all_runs_of_the_project_are_shown_where_asked_for(tmp_path, make_run):
    pytest.importorskip("wandb_workspaces")
    run_dir = make_run("plain", "standard")
    spec = spec_of(tmp_path, run_dir, "everything=true")
    assert (run_dir / "wandb-id").read_text().strip() not in json.dumps(spec)


@pytest.mark.slow
def test_a_curve_of_several_layers_is_one_panel(tmp_path, make_run):
    pytest.importorskip("wandb_workspaces")
    spec = spec_of(tmp_path, make_run("plain", "standard"), "kind=workspace")["workspace"]["section"]
    sections = {
        s["name"]: {
            config.get("chartTitle"): config["metrics"] for _, config in panels(s) if "metrics" in config
        }
        for s in spec["panelBankConfig"]["sections"]
    }
    assert sections["Examples"] == {
        "dead_units": ["Examples/dead_units/layer1"],
        "entropy": ["Examples/entropy"],
    }
    assert sections["Classes"] == {"accuracy": ["Classes/accuracy/a/b"]}
    assert set(sections["Time"]["seconds"]) == {"Time/weights", "Time/examples", "Time/cam"}
    assert "last/dead_units" in (columns := json.dumps(spec)) and "seconds/analyses" in columns


def test_without_a_login_it_says_what_to_do(make_run):
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(SettingError, match="wandb login"):
        analyze.main(["report", str(make_run("plain", "standard"))])


def test_without_the_package_it_says_what_to_install(make_run, monkeypatch):
    run_dir = make_run("plain", "standard")
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(SettingError, match=r"\[report\]"):
        analyze.main(["report", str(run_dir)])


def test_a_run_that_was_never_on_wandb_is_refused(make_run):
    pytest.importorskip("wandb_workspaces")
    run_dir = make_run("plain", "standard")
    (run_dir / "wandb-id").unlink()
    with pytest.raises(SettingError, match="never logged"):
        analyze.main(["report", str(run_dir), "spec=spec.json"])
    with pytest.raises(SettingError, match="0 runs came, expected at least 1"):
        analyze.main(["report"])


def test_its_help_says_that_no_server_was_tried(capsys):
    analyze.main(["report", "--help"])
    assert "never yet against W&B's own" in " ".join(capsys.readouterr().out.split())
