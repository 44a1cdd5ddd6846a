import os
import socket
import subprocess
import sys

import pytest

from vitrine.core import atomic

HERE = socket.gethostname()


def gone() -> int:
    """The number of a process that is no more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_what_a_killed_writer_left_goes_with_the_next_write_and_a_living_ones_stays(tmp_path):
    left = [tmp_path / f".a[1].csv.{HERE}.{gone()}", tmp_path / f".a[1].csv.{HERE}.{os.getpid()}"]
    others = [
        tmp_path / f".a[1].csv.{HERE}.1",  # of a process that lives
        tmp_path / ".a[1].csv.elsewhere.77",  # of another machine
        tmp_path / f".a1.csv.{HERE}.{gone()}",  # of another file
        tmp_path / ".a[1].csv.mine",
    ]
    for file in [*left, *others]:
        file.write_text("half")
    atomic.write_text(tmp_path / "a[1].csv", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "a[1].csv"])
    os.utime(others[1], (0, 0))  # older than a day
    atomic.write_text(tmp_path / "a[1].csv", "again")
    assert sorted(tmp_path.iterdir()) == sorted([others[0], *others[2:], tmp_path / "a[1].csv"])


def test_on_windows_a_file_is_flushed_that_may_be_written(tmp_path, monkeypatch):
    file, opened, sync = tmp_path / "a", [], os.open
    file.write_text("whole")
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append(flags) or sync(path, flags))
    atomic.sync(file)
    assert opened == [os.O_RDWR]
    atomic.sync(tmp_path)  # no directory can be opened there
    assert len(opened) == 1


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "a"
    atomic.write_text(file, "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(file, "after")
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]
