"""An offline run whose folder was moved: all that its log refers to is found, and `sync` says what is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vitrine.cli import analyze
from vitrine.core.settings import SettingError
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.store import Store

pytest.importorskip("wandb")
pytestmark = [pytest.mark.usefixtures("offline_home"), pytest.mark.slow]


@pytest.fixture
def moved(tmp_path, report):
    """A run with tables and a page that was logged offline in one folder, and lies in another now."""
    was = tmp_path / "here" / "run"
    logger, _ = wandb_logger(was, WandbSettings())
    sink, store = WandbSink(logger.experiment), Store(was)
    for step in (500, 1000):
        with store.writing(step, weights="") as writer:
            for name, result in report(step).results.items():
                writer.write(name, result)
        sink.log(report(step), store.step_folder(step))
    (was / "index.html").write_text("page")
    (was / "config.yaml").write_text("run: {name: run}\n")
    sink.close()
    now = tmp_path / "there" / "renamed"
    now.parent.mkdir()
    shutil.move(was, now)
    return now


def artifact_files(run_dir: Path, records):
    (folder,) = run_dir.glob("wandb/offline-run-*")
    artifacts = records(folder, "artifact")
    return [entry["local_path"] for a in artifacts for entry in a["manifest"]["contents"]]


def test_all_files_that_the_log_of_a_moved_run_refers_to_are_found(moved, records, history):
    files = artifact_files(moved, records)
    assert any("staging" in file for file in files) and "index.html" in files
    assert all((moved / file).is_file() and not Path(file).is_absolute() for file in files)
    (folder,) = moved.glob("wandb/offline-run-*")
    media = [
        value for row in history(moved) for key, value in row.items() if key.endswith((".path", ".filenames"))
    ]
    names = [name for value in media for name in ([value] if isinstance(value, str) else value)]
    assert names and all((folder / "files" / name).is_file() for name in names)


def test_sync_asks_for_a_login_and_says_what_is_missing(moved, capsys, records):
    with pytest.raises(SettingError, match="wandb login"):
        analyze.main(["sync", str(moved)])
    analyze.main(["sync", str(moved), "upload=false"])
    assert capsys.readouterr().err == ""
    (moved / "index.html").unlink()
    analyze.main(["sync", str(moved), "upload=false"])
    assert "1 files" in (said := capsys.readouterr().err) and "index.html" in said
    shutil.rmtree(moved / "wandb")
    with pytest.raises(SettingError, match="no offline run"):
        analyze.main(["sync", str(moved)])


def check_all_of_it(server, steps):
    """That rows, pictures, tables and the page of an offline run have arrived."""
    (run,) = server.runs.values()
    assert [row["trainer/global_step"] for row in run.rows] == steps and run.state == "finished"
    (page,), tables = server.of_type("page"), server.of_type("run_table")
    assert page.files["index.html"] == b"page" and len(tables) == len(steps)
    for row, table in zip(run.rows, sorted(tables, key=lambda table: table.id)):
        assert row["Features/units"]["path"] in run.files
        cells = json.loads(table.files["Features/units.table.json"])["data"]
        assert all(cell["path"] in table.files for cells in cells for cell in cells if isinstance(cell, dict))
        assert all(name in run.files for name in row["Class maps/cam"]["filenames"])
        assert row["Examples/examples/layer1"]["path"] in run.files
    return page, tables


def test_sync_uploads_all_of_a_moved_run(moved, records, request):
    files = artifact_files(moved, records)
    server = request.getfixturevalue("server")
    analyze.main(["sync", str(moved)])
    page, tables = check_all_of_it(server, [500, 1000])
    assert len(files) == sum(len(artifact.files) for artifact in (page, *tables))


@pytest.mark.slow
def test_the_command_that_an_offline_run_prints_uploads_it(tmp_path, report, request):
    run_dir = tmp_path / "a run"
    logger, line = wandb_logger(run_dir, WandbSettings())
    sink, store = WandbSink(logger.experiment), Store(run_dir)
    with store.writing(5, weights="") as writer:
        for name, result in report(5).results.items():
            writer.write(name, result)
    sink.log(report(5), store.step_folder(5))
    (run_dir / "index.html").write_text("page")
    sink.close()
    server = request.getfixturevalue("server")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as from a shell
    command = line.removeprefix("W&B is offline (there is no API key); to upload the run: ")
    subprocess.run(command, shell=True, check=True, env=environment)
    check_all_of_it(server, [5])
