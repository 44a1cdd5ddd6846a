"""Checkpoints that are cut off, flipped, or not what they say: passed over with a warning, and never run."""

import os
import random
import shutil

import pytest
import small
import torch

from vitrine.cli import analyze, train
from vitrine.cli.command_line import run_cli
from vitrine.modules import load_checkpoint, load_network
from vitrine.modules.weights import WeightsError
from vitrine.runs.checkpoint_files import last_good_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train.main(small.words(folder))
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def checkpoints(folder):
    return [folder / "checkpoints" / f"step={step:08d}.ckpt" for step in small.STEPS]


def truncated(file, dice):
    content = file.read_bytes()
    file.write_bytes(content[: dice.randrange(len(content))])


def flipped(file, dice):
    """One bit of what the network is made of."""
    content = bytearray(file.read_bytes())
    weights = torch.load(file, weights_only=True)["state_dict"]
    place = content.index(max(weights.values(), key=torch.Tensor.numel).numpy().tobytes())
    content[place + dice.randrange(64)] ^= 1 << dice.randrange(8)
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_the_one_before_is_taken_and_the_run_ends_the_same(folder, whole, damage, caplog):
    *_, before, last = checkpoints(folder)
    damage(last, random.Random(3))
    assert last_good_checkpoint(folder) == before
    assert f"passed over {last}" in caplog.text
    train.main(small.words(folder))
    small.as_unbroken(folder, whole)


def test_whatever_byte_is_flipped_and_wherever_it_is_cut_off(folder):
    """20 places each: the one before is taken, or the file is as good as it was (nobody reads that byte)."""
    dice = random.Random(0)
    *_, before, last = checkpoints(folder)
    content = last.read_bytes()
    intact = torch.load(last, weights_only=True)["state_dict"]
    for _ in range(20):
        last.write_bytes(content[: dice.randrange(len(content))])
        assert last_good_checkpoint(folder) == before
        flip = bytearray(content)
        flip[dice.randrange(len(flip))] ^= 1 << dice.randrange(8)
        last.write_bytes(flip)
        found = last_good_checkpoint(folder)
        assert found in (before, last)
        if found == last:
            state = torch.load(last, weights_only=True)["state_dict"]
            assert all(torch.equal(state[name], intact[name]) for name in intact)


def test_a_link_to_nothing_does_no_harm(folder, whole):
    last = checkpoints(folder)[-1]
    last.unlink()
    assert (folder / "checkpoints" / "last.ckpt").is_symlink()
    assert not (folder / "checkpoints" / "last.ckpt").exists()
    train.main(small.words(folder))
    small.as_unbroken(folder, whole)


def test_where_all_are_damaged_the_run_begins_anew(folder, whole, capsys, caplog):
    for file in checkpoints(folder):
        truncated(file, random.Random(1))
    train.main(small.words(folder))
    assert "going on from" not in capsys.readouterr().out
    assert caplog.text.count("passed over") >= len(small.STEPS)
    small.as_unbroken(folder, whole)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (os.mkdir, (str(self.place),))


@pytest.fixture
def bomb(tmp_path):
    file = tmp_path / "bomb.ckpt"
    torch.save({"global_step": 99, "state_dict": {}, "vitrine": Bomb(tmp_path / "exploded")}, file)
    torch.load(file, weights_only=False)  # where code is run it explodes: else nothing is tested
    (tmp_path / "exploded").rmdir()
    yield file
    assert not (tmp_path / "exploded").exists()


def test_a_bomb_is_passed_over_where_a_run_is_resumed(bomb, folder, whole, caplog):
    for name in ("step=00000099.ckpt", "other.ckpt"):
        shutil.copy(bomb, folder / "checkpoints" / name)
    assert last_good_checkpoint(folder) == checkpoints(folder)[-1]
    train.main(small.words(folder))
    assert "passed over" in caplog.text
    for name in ("step=00000099.ckpt", "other.ckpt"):
        (folder / "checkpoints" / name).unlink()
    small.as_unbroken(folder, whole)


def test_a_bomb_is_refused_as_weights(bomb, tmp_path, monkeypatch, capsys):
    with pytest.raises(WeightsError, match=r"mkdir to be run.*it was not loaded"):
        load_network("convnet", classes=3, weights=bomb)
    with pytest.raises(WeightsError, match="was not loaded"):
        load_checkpoint(bomb)
    for program, words in (
        (train, [*small.words(tmp_path / "runs" / "a"), f"model.weights={bomb}"]),
        (analyze, [f"model.weights={bomb}", *small.WORDS, f"run.root={tmp_path}/runs"]),
    ):
        monkeypatch.setattr("sys.argv", ["program", *words])
        with pytest.raises(SystemExit) as ended:
            run_cli(program.main)
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "was not loaded" in said and said.count("\n") == 1


def test_a_bomb_in_a_run_is_refused_by_analyze(bomb, folder, monkeypatch, capsys):
    shutil.copy(bomb, folder / "checkpoints" / "step=00000099.ckpt")
    monkeypatch.setattr("sys.argv", ["analyze.py", str(folder)])
    with pytest.raises(SystemExit) as ended:
        run_cli(analyze.main)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "step=00000099.ckpt" in said and "was not loaded" in said


def test_a_bomb_among_what_a_long_analysis_has_kept_is_not_run(bomb, tmp_path):
    from vitrine.runs.scratch import FileScratch

    scratch = FileScratch(tmp_path / "scratch")
    scratch.save("far", {"done": 1})
    (kept,) = (tmp_path / "scratch").iterdir()
    shutil.copy(bomb, kept)
    assert scratch.load("far") is None
