"""A disk that is full while a checkpoint, analyses, the page or metrics are written: nothing is half-made,
and the run goes on once there is room.

The disk is a real one of a few MiB (tmpfs), where the system lets us mount one.
"""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import small

from vitrine.cli import train
from vitrine.cli.command_line import run_cli
from vitrine.reporting.page import PageSink
from vitrine.runs.checkpoint_io import AtomicCheckpointIO
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here ({getattr(error, 'stderr', error)})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train.main(small.words(folder))
    return folder


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with open(disk / "filler", "ab", 0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def make_room(disk: Path) -> None:
    (disk / "filler").unlink(missing_ok=True)


class Filling:
    """Fills the disk when a method is called for the so-many-th time, and may make room when that is over."""

    def __init__(self, patch, disk, owner, method, time, again=False):
        real, calls = getattr(owner, method), []

        def within(call):
            calls.append(1)
            if len(calls) == time:
                fill(disk)
            try:
                return call()
            finally:
                if again and len(calls) == time:
                    make_room(disk)

        if method == "writing":

            @contextlib.contextmanager
            def wrapped(*args, **kwargs):
                calls.append(1)
                if len(calls) == time:
                    fill(disk)
                try:
                    with real(*args, **kwargs) as writer:
                        yield writer
                finally:
                    if again and len(calls) == time:
                        make_room(disk)
        else:

            def wrapped(*args, **kwargs):
                return within(lambda: real(*args, **kwargs))

        patch.setattr(owner, method, wrapped)


def ends(capsys, words):
    """Exit status and stderr of the program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *words])
        try:
            run_cli(train.main)
        except SystemExit as ended:
            return ended.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.mark.parametrize("time", [1, 2, 4])
def test_a_checkpoint_that_has_no_room_ends_the_run_in_one_message(disk, whole, monkeypatch, capsys, time):
    folder = disk / "run"
    with monkeypatch.context() as patch:
        Filling(patch, disk, AtomicCheckpointIO, "save_checkpoint", time)
        status, said = ends(capsys, small.words(folder))
    assert status == 1
    assert "stopped: No space left on device" in said and "run.resume=true" in said
    names = sorted(file.name for file in folder.glob("checkpoints/*.ckpt") if not file.is_symlink())
    assert names == [f"step={step:08d}.ckpt" for step in small.STEPS[: time - 1]]
    small.nothing_half_made(folder)
    make_room(disk)
    assert ends(capsys, small.words(folder))[0] == 0
    small.as_unbroken(folder, whole)


def test_analyses_that_have_no_room_do_not_stop_training_and_are_made_up_for(
    disk, whole, monkeypatch, capsys, caplog
):
    folder = disk / "run"
    with monkeypatch.context() as patch:
        Filling(patch, disk, Store, "writing", 2, again=True)
        assert ends(capsys, small.words(folder))[0] == 0
    assert "No space left on device" in caplog.text
    small.nothing_half_made(folder)
    assert Store(folder).steps() == [3, 9, 12]
    assert ends(capsys, small.words(folder))[0] == 0  # the next start catches up
    assert Store(folder).steps() == small.STEPS
    mine, theirs = small.pictures(folder), small.pictures(whole)
    assert mine.keys() == theirs.keys() and small.files(folder) == small.files(whole)
    other = {name.rpartition("/")[0] for name in theirs if mine[name] != theirs[name]}
    assert other <= {"analysis/step=00000009/examples"}  # compared with the step before, which was 3 then


def test_a_page_that_has_no_room_stays_the_one_before(disk, whole, monkeypatch, capsys, caplog):
    folder = disk / "run"
    seen = []
    with monkeypatch.context() as patch:
        Filling(patch, disk, PageSink, "close", 2, again=True)
        real = PageSink.log

        def log(self, report, place):
            real(self, report, place)
            seen.append([at["step"] for at in small.page(folder)["steps"]])

        patch.setattr(PageSink, "log", log)
        assert ends(capsys, small.words(folder))[0] == 0
    assert seen == [[3], [3], [3, 6, 9], [3, 6, 9, 12]]
    assert "the page could not be written" in caplog.text
    small.as_unbroken(folder, whole)


@pytest.mark.parametrize("time", [1, 2])
def test_metrics_that_have_no_room_end_the_run_in_one_message(disk, whole, monkeypatch, capsys, time):
    folder = disk / "run"
    with monkeypatch.context() as patch:
        Filling(patch, disk, MetricsCSV, "log_metrics", time)
        status, said = ends(capsys, small.words(folder))
    assert status == 1 and "stopped: No space left on device" in said
    small.nothing_half_made(folder)
    make_room(disk)
    assert ends(capsys, small.words(folder))[0] == 0
    small.as_unbroken(folder, whole)


def test_a_disk_that_is_full_from_the_start_makes_nothing(disk, capsys):
    fill(disk)
    status, said = ends(capsys, small.words(disk / "run"))
    assert status in (1, 2) and "No space left on device" in said and "Traceback" not in said
    make_room(disk)
    assert not any(Path(disk).rglob("*.ckpt")) and os.listdir(disk) in ([], ["run"])
