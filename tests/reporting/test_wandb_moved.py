import shutil
from pathlib import Path

import pytest

from vitrine.cli import analyze
from vitrine.core.settings import SettingError
from vitrine.reporting.wandb_moved import mend
from vitrine.reporting.wandb_run import WandbSettings, wandb_logger
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.store import Store

pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_home")


@pytest.fixture
def moved(tmp_path, report):
    """A run with tables and a page that was logged offline in one folder, and lies in another now."""
    was = tmp_path / "here" / "run"
    logger, _ = wandb_logger(was, WandbSettings())
    logger.log_metrics({f"name-{i}": i / 3 for i in range(3000)}, step=1)  # more than a block of the log
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


def files(run_dir: Path, records):
    (folder,) = run_dir.glob("wandb/offline-run-*")
    artifacts = records(folder, "artifact")
    return [Path(entry["local_path"]) for a in artifacts for entry in a["manifest"]["contents"]]


def test_the_artifacts_of_a_run_that_was_moved_are_found_again(moved, records, history):
    rows, before = history(moved), files(moved, records)
    assert before and not any(file.exists() for file in before)
    assert mend(moved) == len(before)
    after = files(moved, records)
    assert all(file.is_file() and file.is_relative_to(moved) for file in after)
    assert [file.name for file in after] == [file.name for file in before]
    assert history(moved) == rows and len(rows) == 3  # all else is as it was
    assert mend(moved) == 0


def test_a_log_is_written_as_wandb_writes_it(moved, monkeypatch):
    """Records that are framed again without a change give the same file, checksums included."""
    from vitrine.reporting import wandb_moved

    (file,) = moved.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    again = b"".join(wandb_moved._framed(list(wandb_moved.wandb_log.records(content))))
    assert content[:7] + again == content


def test_sync_mends_and_then_asks_for_a_login(moved, capsys, records):
    with pytest.raises(SettingError, match="wandb login"):
        analyze.main(["sync", str(moved)])
    assert "found again" in capsys.readouterr().out
    assert all(file.is_file() for file in files(moved, records))
    analyze.main(["sync", str(moved), "upload=false"])
    shutil.rmtree(moved / "wandb")
    with pytest.raises(SettingError, match="no offline run"):
        analyze.main(["sync", str(moved)])
