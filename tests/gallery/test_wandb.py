import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

import gallery.wandb_run as wandb_run
from gallery.store import Store
from gallery.wandb_run import WandbSettings, wandb_logger
from gallery.wandb_sink import WandbSink

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A home without a key, and nothing of W&B's in the environment."""
    for variable in [v for v in os.environ if v.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(wandb_run, "_placed", {})
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield home
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ.pop(variable, None)


@pytest.fixture(scope="module", autouse=True)
def service():
    yield
    wandb.teardown()


def records(folder: Path):
    """The transaction log of an offline run, as W&B's own reader sees it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def history(folder: Path):
    return [record["history"]["item"] for record in records(folder) if record["type"] == "history"]


def offline_folders(run_dir: Path):
    return sorted((run_dir / "wandb").glob("offline-run-*"))


def test_pictures_tables_and_curves_arrive_at_their_steps(tmp_path, results):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    logger, line = wandb_logger(run_dir, WandbSettings(), config={"seed": 7})
    sink = WandbSink(logger.experiment, classes=["a", "b"])
    store = Store(run_dir)
    logger.log_metrics({"train/loss": 0.5}, step=100)
    for step in (500, 1000):
        with store.writing(step, weights="") as writer:
            for name, (figures, scalars) in results(step).items():
                writer.write(name, figures, scalars, 0.0)
        sink.log(step, results(step), store.step_folder(step))
    sink.close()

    (folder,) = offline_folders(run_dir)
    items = history(folder)
    assert [item["trainer/global_step"] for item in items] == [100, 500, 1000]  # one `log` call a checkpoint
    assert items[0]["train/loss"] == 0.5
    first, second = items[1:]
    assert {k for k in first if not k.startswith("_")} == {k for k in second if not k.startswith("_")}
    assert first["Examples/dead_units/layer1"] == 0.5 and second["Examples/dead_units/layer1"] == 1.0

    for item, step in ((first, 500), (second, 1000)):
        sheet = item["Examples/examples/layer2.path"]
        seen = Image.open(folder / "files" / sheet)
        kept = Image.open(store.step_folder(step) / "examples" / "sheets" / "layer2.png")
        assert seen.tobytes() == kept.tobytes()
        assert item["Class maps/cam.count"] == 3
        assert item["Class maps/cam.captions"][1] == f"step {step}: probe 1: <b>"
        probe = Image.open(folder / "files" / item["Class maps/cam.filenames"][1]).convert("RGB")
        was = results(step)["cam"][0][1].image
        assert torch.equal(torch.tensor(list(probe.tobytes())).reshape(was.shape), was.long())
        table = json.loads((folder / "files" / item["Units/units.path"]).read_text())
        assert "examples.index-1" not in table["columns"]
        assert table["columns"][:3] == ["layer", "unit", "examples"]
        assert [row[:2] for row in table["data"]][:2] == [["layer1", 0], ["layer1", 5]]
        assert len(table["data"]) == 6
        assert table["data"][1][table["columns"].index("examples.activation")] == 10 + step
        assert table["data"][0][table["columns"].index("examples.top_class")] == "b"
    tables = [record["artifact"] for record in records(folder) if record["type"] == "artifact"]
    assert len(tables) == 2
    for table in tables:  # the pictures of the table, staged inside the run
        staged = [Path(entry["local_path"]) for entry in table["manifest"]["contents"]]
        assert sum(entry["path"].endswith(".png") for entry in table["manifest"]["contents"]) == 6
        assert all(path.exists() and path.is_relative_to(run_dir.resolve()) for path in staged)
    metrics = [record["metric"] for record in records(folder) if record["type"] == "metric"]
    assert {"val/accuracy", "trainer/global_step"} <= {metric.get("name") for metric in metrics}
    assert line.endswith(f"wandb sync ../run/wandb/offline-run-*-{logger.experiment.id}")


def test_nothing_is_written_outside_the_run(tmp_path, elsewhere, results):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    logger, _ = wandb_logger(run_dir, WandbSettings())
    sink = WandbSink(logger.experiment)
    sink.log(1, results(1), run_dir / "analysis" / "step=00000001")
    sink.close()
    assert (
        history(offline_folders(run_dir)[0])[0]["Units/units._type"] == "table-file"
    )  # without a folder, too
    assert list(elsewhere.iterdir()) == [] and list(Path.cwd().iterdir()) == []


def test_a_resumed_run_keeps_its_id(tmp_path):
    ids = []
    for _ in range(2):
        logger, _line = wandb_logger(tmp_path / "run", WandbSettings(group="plain", tags=["a", "b"]))
        ids.append(logger.experiment.id)
        logger.experiment.finish()
    assert ids[0] == ids[1] == (tmp_path / "run" / "wandb-id").read_text().strip()
    for folder in offline_folders(tmp_path / "run"):
        (run,) = [record["run"] for record in records(folder) if record["type"] == "run"]
        assert run["run_id"] == ids[0] and run["run_group"] == "plain" and run["tags"] == ["a", "b"]
        assert run["display_name"] == "run" and run["project"] == "vitrine"


def test_a_sweeps_agent_chooses_the_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "given123")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb-id").write_text("older\n")
    logger, _ = wandb_logger(tmp_path / "run", WandbSettings())
    assert logger.experiment.id == "given123" == (tmp_path / "run" / "wandb-id").read_text().strip()
    logger.experiment.finish()


@pytest.mark.parametrize("mode, said", [("disabled", None), ("auto", "disabled")])
def test_disabled_is_no_logger(tmp_path, monkeypatch, mode, said):
    if said:
        monkeypatch.setenv("WANDB_MODE", said)
    assert wandb_logger(tmp_path / "run", WandbSettings(mode=mode)) == (None, "W&B is disabled.")
    assert not (tmp_path / "run").exists()


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


def test_a_log_that_fails_costs_the_run_nothing(tmp_path, results, caplog):
    class Broken:
        offline = True
        id = "x"

        def log(self, payload):
            raise OSError("gone")

        def finish(self):
            raise OSError("gone")

    sink = WandbSink(Broken())
    sink.log(500, results(500), tmp_path)
    sink.close()
    assert "step 500 did not reach W&B" in caplog.text
