"""What is used of wandb beyond its public interface exists in the installed version, and does its part."""

import json
import os
import subprocess
import sys

import pytest

from vitrine.reporting import wandb_internals

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_home")

KEY = "0123456789" * 4


@pytest.mark.slow
def test_the_service_is_a_process_that_this_one_has_started(tmp_path):
    assert wandb_internals.service_process() is None  # and asking starts none
    run = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True))
    service = wandb_internals.service_process()
    assert service.poll() is None and service.pid != os.getpid()
    assert "wandb-core" in service.args[0]
    run.finish()
    wandb.teardown()
    assert service.poll() == 0


def test_a_login_is_found_where_wandb_looks_for_it(monkeypatch, offline_home, capfd):
    host = wandb.Settings().base_url.removeprefix("https://")
    assert wandb_internals.login_problem() == "there is no API key"
    (offline_home / ".netrc").write_text(f"machine elsewhere.org login user password {KEY}\n")
    assert wandb_internals.login_problem() == "there is no API key"
    (offline_home / ".netrc").write_text(f"machine {host} login user password {KEY}\n")
    assert wandb_internals.login_problem() is None
    (offline_home / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_internals.login_problem() is None
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "WANDB_API_KEY invalid" in wandb_internals.login_problem()
    assert wandb_internals.service_process() is None and capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_records_of_a_log_are_those_that_wandbs_command_prints(tmp_path):
    run = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True))
    run.log({"a/b.c": 1, "text": "line\u2028end"})
    run.finish()
    wandb.teardown()  # only now the log is whole
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found = list(wandb_internals.read_log(file))
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert found == [json.loads(line) for line in printed.splitlines()]
    assert next(r for r in found if r["type"] == "history")["history"]["item"]["a/b.c"] == 1


@pytest.mark.slow
def test_tables_and_artifacts_are_logged_without_an_answer_of_the_server(tmp_path, server):
    run = wandb.init(dir=tmp_path, settings=wandb.Settings(silent=True))
    wandb_internals.log_artifacts_without_waiting(run)
    before = len(server.requests)
    asked = []
    server.status = lambda request: asked.append(request) or (500 if request == "ArtifactType" else None)
    run.log({"table": wandb.Table(columns=["a"], data=[[1]])})
    run.log_artifact(wandb.Artifact("some", type="files"))
    run.finish()
    assert len(server.of_type("run_table")) == len(server.of_type("files")) == 1
    assert "ArtifactType" not in server.requests[before:] and "CommitArtifact" in asked
