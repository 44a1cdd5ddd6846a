"""A checkpoint file is whole or absent."""

import errno
import os
import socket

import pytest
import torch

from vitrine.core import atomic
from vitrine.runs.checkpoint_io import AtomicCheckpointIO


def test_what_is_written_is_read_back(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"x": torch.arange(3)}, tmp_path / "new" / "a.ckpt")
    assert AtomicCheckpointIO().load_checkpoint(tmp_path / "new" / "a.ckpt")["x"].tolist() == [0, 1, 2]


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    io, path = AtomicCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"x": 1}, path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        io.save_checkpoint({"x": 2}, path)
    assert io.load_checkpoint(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_disk_that_is_really_full_is_an_oserror(tmp_path, monkeypatch):
    content = {"x": torch.zeros(1 << 16)}
    real = open
    monkeypatch.setattr("builtins.open", lambda _path, mode: real("/dev/full", mode))
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")


def test_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save(Bomb(), tmp_path / "a.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert not (tmp_path / "exploded").exists()


def test_leftovers_of_a_kill_are_swept_and_nothing_else(tmp_path):
    left = (".step=00000004.ckpt.another-machine.123", f".last.ckpt.{socket.gethostname()}.{os.getppid()}")
    for name in (*left, "step=00000002.ckpt", "last.ckpt"):
        (tmp_path / name).write_bytes(b"")
    atomic.sweep(tmp_path, "*.ckpt", even_live=True)  # no other process writes there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "step=00000002.ckpt"]
