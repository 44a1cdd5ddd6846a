import json
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitrine.reporting.wandb_run as wandb_run
from vitrine.analyses.base import Figure, Table
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.callbacks.robust_validation import METRICS
from vitrine.core.settings import SettingError
from vitrine.reporting.sheet import sheet
from vitrine.reporting.sinks import metric_key, scalar_key, section
from vitrine.reporting.wandb_run import WandbSettings, check_login, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.store import Store

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_home")


def pixels(file: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(file).convert("RGB")))


def offline_folders(run_dir: Path):
    return sorted((run_dir / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_pictures_tables_and_curves_arrive_at_their_steps(tmp_path, report, records, history):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    logger, line = wandb_logger(run_dir, WandbSettings(), config={"seed": 7})
    sink = WandbSink(logger.experiment, classes=["a", "b"])
    store = Store(run_dir)
    logger.log_metrics({"train/loss": 0.5}, step=100)
    for step in (500, 1000):
        with store.writing(step, weights="") as writer:
            for name, result in report(step).results.items():
                writer.write(name, result)
        sink.log(report(step), store.step_folder(step))
    sink.close()

    (folder,) = offline_folders(run_dir)
    items = history(run_dir)
    assert [item["trainer/global_step"] for item in items] == [100, 500, 1000]  # one `log` call a checkpoint
    assert items[0]["Training/train/loss"] == 0.5
    first, second = items[1:]
    assert {k for k in first if not k.startswith("_")} == {k for k in second if not k.startswith("_")}
    assert first["Examples/dead_units/layer1"] == 0.5 and second["Examples/dead_units/layer1"] == 1.0

    for item, step in ((first, 500), (second, 1000)):
        seen = pixels(folder / "files" / item["Examples/examples/layer2.path"]).float()
        made = sheet(
            [f.image for f in report(step).results["examples"].figures if f.layer == "layer2"]
        ).float()
        assert (seen - made).abs().mean() < 45  # a JPEG, of noise
        caption = item["Examples/examples/layer2.caption"]
        assert caption == f"step {step}: examples, layer2, units 0, 5, 9, row by row"
        assert item["Class maps/cam.count"] == 3
        assert item["Class maps/cam.captions"][1] == f"step {step}: probe 1: <b>"
        probe = pixels(folder / "files" / item["Class maps/cam.filenames"][1])
        assert probe.equal(report(step).results["cam"].figures[1].image)
        table = json.loads((folder / "files" / item["Features/units.path"]).read_text())
        assert table["columns"] == [
            "layer",
            "unit",
            "examples",
            "activation of the best example",
            "top class",
            "class entropy",
        ]
        assert [row[:2] for row in table["data"]][:2] == [["layer1", 0], ["layer1", 5]]
        assert len(table["data"]) == 6
        assert table["data"][1][3:] == [10 + step, "b", 0.5]
    tables = records(folder, "artifact")
    assert len(tables) == 2
    for table, step in zip(tables, (500, 1000)):  # the pictures of the table, staged inside the run
        staged = {e["path"]: run_dir.resolve() / e["local_path"] for e in table["manifest"]["contents"]}
        assert sum(path.endswith(".png") for path in staged) == 6
        assert all(path.is_relative_to(run_dir.resolve()) for path in staged.values())
        cell = json.loads(staged["Features/units.table.json"].read_text())["data"][1][2]
        assert pixels(staged[cell["path"]]).equal(
            next(f.image for f in report(step).results["examples"].figures if f.key == "layer1/unit-005")
        )
    assert line.endswith(f"cd ../run && wandb sync wandb/offline-run-*-{logger.experiment.id}")


@pytest.mark.slow
def test_steps_are_the_x_axis_and_the_best_is_kept(tmp_path, records):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    logger, _ = wandb_logger(run_dir, WandbSettings())
    for step, accuracy in ((9, 0.25), (19, 0.75), (29, 0.5)):
        logger.log_metrics({"val/accuracy": accuracy, "val/loss": 1 - accuracy}, step=step)
    logger.experiment.finish()
    (folder,) = offline_folders(run_dir)
    axes = {m.get("name", m.get("glob_name")): m.get("step_metric") for m in records(folder, "metric")}
    assert axes["*"] == axes["Training/val/accuracy"] == "trainer/global_step"
    told = {}
    for summary in records(folder, "summary"):
        told |= summary["update"]
    assert told["Training/val/accuracy"] == {"max": 0.75, "last": 0.5}
    assert told["Training/val/loss"] == {"min": 0.25, "last": 0.5}


@pytest.mark.slow
def test_a_run_without_analyses_is_ranked_too(tmp_path, records):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.csv").write_text("step,val/accuracy\n1,0.9\n2,0.8\n")
    logger, _ = wandb_logger(run_dir, WandbSettings(), config={})
    WandbSink(logger.experiment, run_dir=run_dir).close()
    told = {}
    for summary in records(offline_folders(run_dir)[0], "summary"):
        told |= summary["update"]
    assert told["best/accuracy"] == 0.9 and told["last/accuracy"] == 0.8


@pytest.mark.slow
def test_the_summary_ranks_a_run_by_its_whole_life(tmp_path, report, records):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.csv").write_text(  # the best came before a resume
        "step,epoch,val/accuracy,val/loss,val/robust_accuracy\n9,0,0.9,0.2,0.3\n19,1,0.8,0.4,\n29,2,nan,nan,0.1\n"
    )
    logger, _ = wandb_logger(run_dir, WandbSettings())
    sink, store = WandbSink(logger.experiment), Store(run_dir)
    for step in (500, 1000):
        with store.writing(step, weights="") as writer:
            for name, result in report(step).results.items():
                writer.write(name, result)
        sink.log(report(step), store.step_folder(step))
    sink.close()
    told = {}
    for summary in records(offline_folders(run_dir)[0], "summary"):
        told |= summary["update"]
    assert {key: told[key] for key in told if key.split("/")[0] in ("best", "last", "seconds")} == {
        "best/accuracy": 0.9,
        "last/accuracy": 0.8,
        "best/loss": 0.2,
        "last/loss": 0.4,
        "best/robust_accuracy": 0.3,
        "last/robust_accuracy": 0.1,
        "last/dead_units": 1.0,
        "last/step": 1000,
        "seconds/analyses": 9.0,
    }


@pytest.mark.slow
def test_a_table_is_shown_as_one_and_is_missed_where_it_lacks(tmp_path, history):
    table = Table({"class": ["a", "<b>"], "recall": [0.5, None]}, sort_by="recall")
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    results = {"confusion": AnalysisResult([Figure("matrix", image, "a matrix", table=table)])}
    run_dir = tmp_path / "run"
    store = Store(run_dir)
    with store.writing(5, weights="") as writer:
        writer.write("confusion", results["confusion"])
    logger, _ = wandb_logger(run_dir, WandbSettings(), config={})
    sink = WandbSink(logger.experiment, run_dir=run_dir)
    sink.log_missing({5: {"Classes/confusion", "Time/confusion"}})  # all but the table
    sink.log_missing({5: {"Classes/confusion", "Time/confusion", "Classes/matrix table"}})
    sink.close()
    (folder,) = offline_folders(run_dir)
    (item,) = history(run_dir)
    shown = json.loads((folder / "files" / item["Classes/matrix table.path"]).read_text())
    assert shown["columns"] == ["class", "recall", "change of recall"]
    assert shown["data"] == [["a", 0.5, None], ["<b>", None, None]]


def test_what_robust_validation_measures_has_a_section_of_its_own():
    assert {metric_key(f"val/{name}").split("/")[0] for name in METRICS} == {"Robustness"}
    assert metric_key("val/accuracy") == "Training/val/accuracy"
    assert metric_key("val/accuracy_class/no entry") == "Classes/accuracy/no entry"
    assert metric_key("val/class_accuracy/median") == "Classes/all/median"
    assert metric_key("lr-AdamW/pg1") == "Training/lr-AdamW/pg1"


def test_no_two_scalars_of_a_section_share_a_key():
    assert scalar_key("examples", "dead_units/layer1") == "Examples/dead_units/layer1"
    assert scalar_key("cam", "insertion/x") != scalar_key("localization", "insertion/x")
    assert scalar_key("cam", "seconds/cam") == "Time/cam"
    assert scalar_key("cam", "alarm/odd") == "alarm/odd"
    assert section("new_technique") == "New technique"


@pytest.mark.slow
def test_a_list_too_long_for_wandb_is_a_sheet(tmp_path, report, history):
    (tmp_path / "run").mkdir()
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
    picture = report(1).results["cam"].figures[0]
    many = [picture] * 109
    listed = CheckpointReport(1, {"cam": AnalysisResult(many), "saliency": AnalysisResult(many[:32])})
    WandbSink(logger.experiment).log(listed, tmp_path)
    logger.experiment.finish()
    (row,) = history(tmp_path / "run")
    assert row["Class maps/cam._type"] == "image-file"
    assert row["Class maps/saliency.count"] == 32


@pytest.mark.slow
def test_the_page_is_an_artifact_of_the_files_that_it_is_made_of(tmp_path, report, records):
    run_dir = tmp_path / "run"
    for wanted in (True, False):
        logger, _ = wandb_logger(run_dir, WandbSettings(page=wanted))
        sink, store = WandbSink(logger.experiment, page=wanted), Store(run_dir)
        with store.writing(1, weights="") as writer:
            for name, result in report(1).results.items():
                result.files, result.state = {"list.csv": "a"}, {"sums": torch.zeros(2)}
                writer.write(name, result)
        (run_dir / "index.html").write_text("page")
        (run_dir / "gallery.js").write_text("script")
        sink.log(report(1), store.step_folder(1))
        sink.close()
        kinds = {artifact["type"]: artifact for artifact in records(offline_folders(run_dir)[-1], "artifact")}
        if not wanted:
            assert "page" not in kinds
            continue
        entries = {e["path"]: run_dir / e["local_path"] for e in kinds["page"]["manifest"]["contents"]}
        files = [run_dir / "index.html", run_dir / "gallery.js", *run_dir.glob("analysis/**/*.*")]
        shown = {file for file in files if file.is_file() and file.name != "state.safetensors"}
        assert {run_dir / path for path in entries} == shown
        assert len(shown) < len(files) and "list.csv" in {file.name for file in shown}
        assert all(
            path.resolve() == (run_dir / name).resolve() for name, path in entries.items()
        )  # no copies


@pytest.mark.slow
def test_nothing_is_written_outside_the_run(tmp_path, offline_home, report, history):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    logger, _ = wandb_logger(run_dir, WandbSettings())
    sink = WandbSink(logger.experiment)
    sink.log(report(1), run_dir / "analysis" / "step=00000001")
    sink.close()
    assert history(run_dir)[0]["Features/units._type"] == "table-file"  # without a folder, too
    assert list(offline_home.iterdir()) == [] and list(Path.cwd().iterdir()) == []


def test_a_run_says_whose_it_is(tmp_path, records):
    told = {"group": "plain", "job_type": "train", "tags": ["a", "b"], "notes": "why"}
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings(project="p", **told), config={"seed": 7})
    logger.experiment.finish()
    (folder,) = offline_folders(tmp_path / "run")
    (run,) = records(folder, "run")
    assert (run["run_group"], run["job_type"], run["tags"], run["notes"]) == tuple(told.values())
    assert run["display_name"] == "run" and run["project"] == "p" and run["config"]["update"]["seed"] == 7
    assert run["run_id"] == (tmp_path / "run" / "wandb-id").read_text().strip()


@pytest.mark.slow
def test_the_environment_names_the_project_where_no_setting_does(tmp_path, monkeypatch, records):
    for said, project in ((None, "vitrine"), ("elsewhere", "elsewhere")):
        if said:
            monkeypatch.setenv("WANDB_PROJECT", said)
        logger, _ = wandb_logger(tmp_path / project, WandbSettings())
        logger.experiment.finish()
        (run,) = records(offline_folders(tmp_path / project)[0], "run")
        assert run["project"] == project


def test_a_run_that_fails_says_so(tmp_path, records):
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
    sink = WandbSink(logger.experiment)
    with pytest.raises(ArithmeticError):
        try:
            raise ArithmeticError
        finally:
            sink.close()
    assert records(offline_folders(tmp_path / "run")[0], "exit")[0]["exit_code"] == 1


@pytest.mark.parametrize("mode, said", [("disabled", None), ("auto", "disabled")])
def test_disabled_is_no_logger(tmp_path, monkeypatch, mode, said):
    if said:
        monkeypatch.setenv("WANDB_MODE", said)
    assert wandb_logger(tmp_path / "run", WandbSettings(mode=mode)) == (None, "W&B is disabled.")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("mode", "hint"), [("ofline", "; did you mean offline?"), ("", "or none")])
def test_a_mode_that_there_is_not_is_refused_before_a_run_starts(tmp_path, monkeypatch, mode, hint):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(SettingError, match=rf"WANDB_MODE: is '{mode}' in the environment.*{re.escape(hint)}"):
        check_login(tmp_path, WandbSettings())
    check_login(tmp_path, WandbSettings(mode="disabled"))


def test_online_without_a_key_asks_nobody(tmp_path):
    logger, line = wandb_logger(tmp_path / "run", WandbSettings(mode="online"))
    assert logger.experiment.offline and "no API key" in line and "wandb sync" in line
    logger.experiment.finish()


@pytest.fixture
def silent_server():
    """A server that takes connections and never answers."""
    listening = socket.create_server(("127.0.0.1", 0))
    held = []

    def hold():
        while True:
            try:
                held.append(listening.accept()[0])
            except OSError:
                return

    threading.Thread(target=hold, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    for connection in held:
        connection.close()


@pytest.mark.slow
def test_a_server_that_never_answers_is_done_without(tmp_path, monkeypatch, silent_server):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setattr(wandb_run, "INIT_SECONDS", 2)
    wandb.teardown()  # or the server it knows is another
    logger, line = wandb_logger(tmp_path / "run", WandbSettings())
    assert logger.experiment.offline and "not reached" in line and "wandb sync" in line
    logger.experiment.finish()


def test_a_start_that_fails_costs_the_run_nothing(tmp_path, monkeypatch):
    def fail(**_):
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", fail)
    logger, line = wandb_logger(tmp_path / "run", WandbSettings())
    assert logger is None and "no service" in line


def test_a_log_that_fails_costs_the_run_nothing(tmp_path, report, caplog):
    class Broken:
        offline = True
        id = "x"

        def log(self, payload):
            raise OSError("gone")

        def finish(self, exit_code):
            raise OSError("gone")

    sink = WandbSink(Broken())
    sink.log(report(500), tmp_path)
    sink.close()
    assert "W&B: log failed" in caplog.text and "W&B: finish failed" in caplog.text
