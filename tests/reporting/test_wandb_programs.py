"""Programs on line, against a stand-in for W&B's server: killed and resumed, in a sweep, reported."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train
from vitrine.reporting.sinks import metric_key

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "data.train_size=64",
    "data.val_size=32",
    "data.image_size=32",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "analysis.probes=2",
    "analysis.units=2",
    *[f"analysis.{name}.enabled=false" for name in ANALYSES if name not in ("weights", "examples")],
]


def environment():
    """As from another shell: without the service and the folders of this process."""
    own = ("WANDB_SERVICE", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ARTIFACT_DIR")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {name: value for name, value in os.environ.items() if name not in own} | {"PATH": path}


def logged(run):
    """(step, key, value) of what a run has on W&B of its metrics, each as often as it is there."""
    return Counter(
        (row["trainer/global_step"], key, value if isinstance(value, int | float) else math.inf)
        for row in run.rows
        for key, value in row.items()
        if key.startswith(("Training/", "Classes/")) and key != "Training/epoch"
    )


def recorded(run_dir):
    """The same of metrics.csv."""
    rows = list(csv.DictReader((run_dir / "metrics.csv").read_text().splitlines()))
    return Counter(
        (int(row["step"]), metric_key(key), float(value) if math.isfinite(float(value)) else math.inf)
        for row in rows
        for key, value in row.items()
        if key not in ("step", "epoch") and value
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_under_its_id_and_nothing_is_lost_or_doubled(tmp_path, server, how):
    words = [*SMALL, "data.batch_size=8", "trainer.max_epochs=2", "checkpoint.every_steps=3"]
    words += [f"run.root={tmp_path}", "run.name=run"]
    ran = subprocess.Popen(
        [sys.executable, "train.py", *words], cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("run/analysis/step=*/complete.json")) and ran.poll() is None:
        time.sleep(0.02)
    ran.send_signal(how)
    said = ran.communicate(timeout=300)[1]
    assert ran.returncode == (75 if how == signal.SIGTERM else -how) and "Traceback" not in said, said
    train.main([*words, "run.resume=true"])
    (run,) = server.runs.values()
    assert run.id == (tmp_path / "run" / "wandb-id").read_text().strip() and run.state == "finished"
    assert logged(run) == recorded(tmp_path / "run")
    steps = Counter(row["trainer/global_step"] for row in run.rows if "Features/units" in row)
    on_disk = {int(path.name[5:]) for path in tmp_path.glob("run/analysis/step=*")}
    assert steps == dict.fromkeys(on_disk, 1) and len(on_disk) >= 5


def test_a_sweeps_agent_starts_a_run_with_the_settings_that_it_is_given(tmp_path, server):
    recipe = yaml.safe_load((ROOT / "configs" / "sweep.yaml").read_text())
    more = [*SMALL, f"run.root={tmp_path / 'runs'}", "trainer.max_steps=2"]
    sweep_id = wandb.sweep({**recipe, "command": [*recipe["command"], *more]})
    sweep = server.sweeps[sweep_id]
    asked = {"optimizer.lr": 1.2345e-05, "optimizer.weight_decay": 0, "data.batch_size": 32, "run.seed": 2}
    assert set(sweep.config["parameters"]) == set(asked)
    sweep.asked["given123"] = asked
    ran = subprocess.run(
        [sys.executable, "-m", "wandb", "agent", f"me/vitrine/{sweep_id}"],
        cwd=ROOT,
        env=environment() | {"WANDB_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr
    assert {"given123": True} in sweep.heartbeats and sweep.heartbeats[-1] == {}
    (run,) = server.runs.values()
    assert (run.id, run.fields["sweep"], run.state) == ("given123", sweep_id, "finished"), ran.stderr
    config = {section: value["value"] for section, value in run.config.items() if section != "_wandb"}
    assert config["optimizer"]["lr"] == 1.2345e-05 and config["data"]["batch_size"] == 32
    assert config["run"]["seed"] == 2 and 0 <= run.summary[recipe["metric"]["name"]] <= 1


def test_a_report_and_a_workspace_are_saved_as_specified(tmp_path, server, capsys):
    pytest.importorskip("wandb_workspaces")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("run: {name: plain}\nlogging: {wandb: {project: p}}\n")
    (run_dir / "metrics.csv").write_text("step,train/loss,val/accuracy\n9,1.0,0.5\n")
    (run_dir / "wandb-id").write_text("abc\n")
    analyze.main(["report", str(run_dir), f"spec={tmp_path / 'spec.json'}"])
    analyze.main(["report", str(run_dir)])
    workspace, report = server.views
    expected = json.loads((tmp_path / "spec.json").read_text())
    assert {view["entityName"] for view in server.views} == {"me"}
    assert {view["projectName"] for view in server.views} == {"p"}
    assert (workspace["type"], report["type"]) == ("project-view", "runs")
    assert workspace["displayName"] == report["displayName"] == "plain"
    assert without_ids(json.loads(workspace["spec"])) == without_ids(expected["workspace"])
    assert "Training/train/loss" in report["spec"] and "abc" in report["spec"]
    said = capsys.readouterr().out
    assert f"the workspace: {server.url}/me/p" in said and f"the report: {server.url}/me/p/reports/" in said


def without_ids(spec):
    """A specification without what is drawn anew for each, and without the entity, which is the login's."""
    if isinstance(spec, dict):
        return {key: without_ids(v) for key, v in spec.items() if key not in ("__id__", "id", "entity")}
    return [without_ids(item) for item in spec] if isinstance(spec, list) else spec


@pytest.mark.parametrize("status, said", [(401, "401"), (500, "W&B did not answer")])
def test_a_report_that_the_server_does_not_take_is_one_line(tmp_path, server, status, said, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    from vitrine.core.settings import SettingError

    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("run: {name: plain}\n")
    (run_dir / "wandb-id").write_text("abc\n")
    server.status = lambda request: status
    monkeypatch.setattr("vitrine.cli.report.SECONDS", 3)
    with pytest.raises(SettingError, match=said):
        analyze.main(["report", str(run_dir)])
