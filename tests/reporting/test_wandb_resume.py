"""A run that was killed and resumed has each value on W&B exactly once, and W&B dies without a traceback."""

import os
import signal
import subprocess
import sys

import pytest
from wandb_training import Training, values

wandb = pytest.importorskip("wandb")
pytestmark = [pytest.mark.usefixtures("offline_home"), pytest.mark.slow]


@pytest.fixture(params=["offline", pytest.param("online", marks=pytest.mark.slow)])
def rows(request, history):
    """The rows of a run, read where its mode puts them; `rows.mode` is set up to be used."""
    server = request.getfixturevalue("server") if request.param == "online" else None

    def read(run_dir):
        if server is None:
            return history(run_dir)
        return server.runs[(run_dir / "wandb-id").read_text().strip()].rows

    return read


@pytest.mark.parametrize("by", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_what_wandb_lacks_is_logged_again_exactly_once(tmp_path, report, services, rows, whole, caplog, by):
    run_dir = tmp_path / "run"
    training = Training(run_dir, report)
    training.steps(0, 4)
    training.checkpoint(4)
    (service,) = services()
    os.kill(service, by)  # before it has written, or sent, the last rows
    training.steps(4, 7)
    training.checkpoint(6, log=False)  # no checkpoint of the whole run: it is there once all the same
    training.sink.close()
    (warning,) = [record for record in caplog.records if record.name.startswith("vitrine")]
    assert "W&B is disabled for the rest of the run: its process ended" in warning.message
    assert not warning.exc_info

    training = training.resume(4)
    training.steps(4, 8)
    training.checkpoint(8)
    training.sink.close()
    training = training.resume(8)  # of a run that ended in order
    training.steps(8, 12)
    training.checkpoint(12)
    training.sink.close()

    found = values(rows(run_dir))
    extra = [entry for entry in found if entry[0] == 6 and entry not in whole]
    assert [entry for entry in found if entry not in extra] == whole
    assert len({entry[1] for entry in extra}) == len(extra) > 0


def test_rows_of_offline_and_online_starts_are_not_doubled(tmp_path, report, server, history, whole):
    run_dir = tmp_path / "run"
    for number, mode in enumerate(("offline", "online", "offline")):
        if number == 0:
            training = Training(run_dir, report, mode)
        else:
            training = training.resume(4 * number, mode=mode)
        training.steps(4 * number, 4 * number + 4)
        training.checkpoint(4 * number + 4)
        training.sink.close()
    (run,) = server.runs.values()
    assert values([*history(run_dir), *run.rows]) == whole


@pytest.mark.slow
def test_where_the_server_does_not_tell_its_rows_nothing_is_doubled(tmp_path, report, server, whole, caplog):
    run_dir = tmp_path / "run"
    training = Training(run_dir, report)
    training.steps(0, 6)
    training.checkpoint(4)
    training.sink.close()
    server.status = lambda request: 404 if request == "HistoryPage" else None
    training = training.resume(4)
    training.steps(4, 8)
    training.checkpoint(8)
    training.steps(8, 12)
    training.checkpoint(12)
    training.sink.close()
    (run,) = server.runs.values()
    assert values(run.rows) == whole
    assert "W&B's rows of earlier starts cannot be read" in caplog.text


def test_in_shared_mode_a_resumed_leader_doubles_nothing(tmp_path, report, server):
    training = Training(tmp_path / "run", report, part="leader")
    training.steps(0, 8)
    training.sink.close()
    training = training.resume(4, part="leader")
    training.steps(4, 12)
    training.sink.close()
    (run,) = server.runs.values()
    losses = [row["trainer/global_step"] for row in run.rows if "Training/train/loss" in row]
    assert losses == list(range(12))


ENDING = """
import os, signal, sys, time
from vitrine.reporting import wandb_internals
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
logger, _ = wandb_logger(sys.argv[1], WandbSettings())
for step in range(20):
    logger.log_metrics({f"train/metric-{i}": i for i in range(500)}, step=step)
service = wandb_internals.service_process()
if sys.argv[2] == "finished":
    logger.experiment.finish()
service.send_signal(signal.SIGTERM)
if sys.argv[2] == "late":
    service.wait()
print("end")
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("when", ["at once", "late", "finished"])
def test_a_service_that_is_terminated_with_its_program_is_at_most_one_line(tmp_path, request, when, mode):
    if mode == "online":
        request.getfixturevalue("server")
    command = [sys.executable, "-c", ENDING, str(tmp_path / "run"), when]
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**environment, "PYTHONPATH": root}, timeout=300
    )
    lines = [line for line in ran.stderr.splitlines() if not line.startswith("wandb: ")]
    assert ran.returncode == 0 and ran.stdout == "end\n"
    assert len(lines) == (when != "finished") and all("W&B is disabled" in line for line in lines), ran.stderr
