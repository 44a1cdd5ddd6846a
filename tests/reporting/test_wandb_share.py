"""A training and those that follow it log to one W&B run."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vitrine.reporting import wandb_internals
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger

ROOT = Path(__file__).resolve().parents[2]
wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_home")


@pytest.fixture
def opened(monkeypatch):
    """On line, as far as `wandb.init` can tell, which notes how it is called and talks to no server."""
    calls = []

    def init(**how):
        calls.append(how)

        def nothing(*_, **__):
            pass

        run = SimpleNamespace(id=how["id"], url="an address", offline=how["settings"].mode == "offline")
        run.define_metric = run.log = run.log_artifact = run.finish = nothing
        run.summary, run.resumed, run.config = {}, False, {}
        return run

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb_internals, "login_problem", lambda: None)
    return calls


def settings_of(call):
    return call["settings"]


def test_on_line_the_training_leads_and_followers_join_its_run(tmp_path, opened):
    wandb_logger(tmp_path, WandbSettings(mode="online"), part="leader")
    logger, said = wandb_logger(tmp_path, WandbSettings(mode="online"), part="follower")
    leader, follower = opened
    assert leader["id"] == follower["id"] == (tmp_path / "wandb-id").read_text().strip()
    assert settings_of(leader).mode == settings_of(follower).mode == "shared"
    assert settings_of(leader).x_primary and not settings_of(follower).x_primary
    assert settings_of(leader).x_update_finish_state and not settings_of(follower).x_update_finish_state
    assert settings_of(follower).x_label.startswith("follower-")
    assert logger is not None and said == "W&B shows the run at an address"


def test_a_training_that_is_not_in_shared_mode_is_not_joined(tmp_path, opened):
    """W&B would lose its first rows."""
    wandb_logger(tmp_path, WandbSettings(mode="online"), part="leader")
    wandb_logger(tmp_path, WandbSettings(mode="online"))  # resumed, and analyzes its checkpoints itself
    wandb_logger(tmp_path, WandbSettings(mode="online"), part="follower")
    assert [settings_of(call).mode for call in opened] == ["shared", "online", "offline"]


def test_who_follows_a_training_without_wandb_has_none(tmp_path, opened):
    logger, said = wandb_logger(tmp_path, WandbSettings(mode="online"), part="follower")
    assert logger is None and "does not log to W&B" in said
    assert opened == []


FOLLOW = """
import sys
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
logger, said = wandb_logger(sys.argv[1], WandbSettings(mode="offline"), part="follower")
logger.experiment.log({"trainer/global_step": 5, "seen": 1.0})
logger.experiment.finish()
print(said)
"""


@pytest.mark.slow
def test_off_line_each_has_a_folder_and_the_runs_id(tmp_path, records):
    leader, _ = wandb_logger(tmp_path, WandbSettings(mode="offline"), part="leader")
    command = [sys.executable, "-c", FOLLOW, str(tmp_path)]
    # as from another shell: not with the service of this process
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment = {**inherited, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    leader.log_metrics({"train/loss": 1.0}, step=7)
    leader.experiment.finish()
    name = (tmp_path / "wandb-id").read_text().strip()
    folders = sorted(tmp_path.glob(f"wandb/offline-run-*-{name}*"))
    assert len(folders) == 2
    assert {record["run_id"] for folder in folders for record in records(folder, "run")} == {name}
    assert ran.stdout.strip().endswith(f"wandb/offline-run-*-{name}*")
