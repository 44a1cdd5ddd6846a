"""Checkpoints are looked at as they appear, each once, by however many follow, whoever of them dies."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import pytest

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train
from vitrine.core.process_identity import this_process
from vitrine.core.settings import SettingError
from vitrine.reporting.page_data import run_data
from vitrine.runs import checkpoint_files
from vitrine.runs.store import Store

ROOT = Path(__file__).resolve().parents[2]
STEPS = [1, 2, 3, 4, 5, 6]
RUN = [
    "data.train_size=96",
    "data.val_size=32",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=1",
    "logging.wandb.mode=disabled",
    "analysis.probes=2",
    "analysis.units=2",
    "analysis.mode=follow",
    *[f"analysis.{name}.enabled=false" for name in ANALYSES if name not in ("weights", "cam")],
]
FOLLOW = ["follow=true", "follow.poll=0.05"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    train.main([*RUN, f"run.root={root}", "run.name=signs"])
    return root / "signs"


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """The run, as it was before its first checkpoint; they lie in `run.parent/made`."""
    shutil.copytree(trained, tmp_path / "signs", symlinks=True)
    (tmp_path / "signs" / "checkpoints").rename(tmp_path / "made")
    (tmp_path / "signs" / "checkpoints").mkdir()
    record(tmp_path / "signs", "running", process=this_process())
    return tmp_path / "signs"


def record(run: Path, state: str, **more: object) -> None:
    content = json.loads((run / "run.json").read_text()) | {"state": state, **more}
    (run / "run.json").write_text(json.dumps(content))


def put(run: Path, step: int) -> None:
    """A checkpoint appears, as the training's do: by a rename."""
    aside = shutil.copy(run.parent / "made" / f"step={step:08d}.ckpt", run / "checkpoints" / ".aside")
    os.rename(aside, run / "checkpoints" / f"step={step:08d}.ckpt")


@contextlib.contextmanager
def training(run: Path, steps: list[int], pause: float = 0.3) -> Iterator[None]:
    """Meanwhile checkpoints appear, and then the training is finished."""

    def go() -> None:
        for step in steps:
            put(run, step)
            time.sleep(pause)
        record(run, "finished")

    thread = threading.Thread(target=go)
    thread.start()
    yield
    thread.join()


def another(run: Path, *words: str) -> forked.Program:
    """A follower in a process of its own."""
    return forked.Program(["analyze.py", run, *FOLLOW, *words], ROOT, stderr=subprocess.STDOUT)


def looked_at(said: str) -> list[int]:
    return [int(step) for step in re.findall(r"^step (\d+): ", said, re.MULTILINE)]


def pictures(run: Path) -> dict[str, bytes]:
    found = [f for f in run.glob("analysis/**/*") if f.suffix in (".png", ".webp")]
    return {str(f.relative_to(run)): f.read_bytes() for f in found}


def test_training_only_saves(trained, capsys):
    assert not (trained / "analysis").exists()
    assert len(list(trained.glob("checkpoints/step=*.ckpt"))) == len(STEPS)
    assert json.loads((trained / "run.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_two_processes_look_at_each_checkpoint_once_and_the_page_has_all(run, trained, tmp_path, capsys):
    other = another(run)
    while not other.stdout.readline().startswith("waiting for checkpoints"):  # it has imported
        assert other.poll() is None
    with training(run, STEPS):
        analyze.main([str(run), *FOLLOW])
    said, _ = other.communicate(timeout=100)
    assert other.returncode == 0, said
    mine, theirs = looked_at(capsys.readouterr().out), looked_at(said)
    assert sorted(mine + theirs) == STEPS
    assert Store(run).steps() == STEPS
    assert not list((run / "analysis").glob(".*"))
    shown = (run / "gallery.js").read_text()
    assert shown.count('"step":') >= len(STEPS)
    assert [at["step"] for at in run_data(run)["steps"]] == STEPS
    assert all(f'"step":{step},' in shown for step in STEPS)

    # the same pictures as from one process
    alone = shutil.copytree(trained, tmp_path / "alone", symlinks=True)
    analyze.main([str(alone)])
    assert pictures(alone) == pictures(run) != {}


@pytest.mark.slow
def test_what_a_killed_follower_was_looking_at_is_taken_over(run, capsys):
    other = another(run, "features.enabled=true", "features.steps=1000000")
    put(run, 1)
    held = run / "analysis" / ".lock-step=00000001.0"
    deadline = time.monotonic() + 100
    while not held.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    with training(run, [2]):
        time.sleep(0.2)
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert Store(run).steps() == [] and held.exists()
        analyze.main([str(run), *FOLLOW])
    assert looked_at(capsys.readouterr().out) == [1, 2]
    assert Store(run).steps() == [1, 2]
    assert not list((run / "analysis").glob(".*"))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(run, caplog):
    for step in (1, 2, 3):
        put(run, step)
    damaged = run / "checkpoints" / "step=00000002.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    record(run, "finished")
    analyze.main([str(run), *FOLLOW])
    assert Store(run).steps() == [1, 3]
    assert "passed over" in caplog.text and "step=00000002.ckpt" in caplog.text


@pytest.mark.slow
def test_a_checkpoint_that_is_removed_before_its_turn_is_passed_over(run, caplog, monkeypatch):
    for step in (1, 2, 3):
        put(run, step)
    record(run, "finished")
    whole = checkpoint_files.find_damage

    def removed(file):
        damage = whole(file)
        if file.name == "step=00000002.ckpt":
            file.unlink()  # as checkpoint.keep does, at the worst moment
        return damage

    monkeypatch.setattr(checkpoint_files, "find_damage", removed)
    analyze.main([str(run), *FOLLOW])
    assert Store(run).steps() == [1, 3]
    assert "it was removed" in caplog.text


def test_a_training_that_ends_between_two_looks_is_no_surprise(run, monkeypatch):
    record(run, "running")
    put(run, 1)
    listed = checkpoint_files.checkpoint_files

    def end_after_the_last(*args, **options):
        files = list(listed(*args, **options))
        if Store(run).steps() == [1]:  # it has been analyzed: the training ends right after this look
            record(run, "finished")
        return files

    monkeypatch.setattr(checkpoint_files, "checkpoint_files", end_after_the_last)
    analyze.main([str(run), *FOLLOW])
    assert Store(run).steps() == [1]


@pytest.mark.slow
@pytest.mark.parametrize(("newest", "order"), [("false", [1, 2, 3]), ("true", [3, 2, 1])])
def test_the_order_is_that_of_training_or_the_newest_first(run, capsys, newest, order):
    for step in (1, 2, 3):
        put(run, step)
    record(run, "finished")
    analyze.main([str(run), *FOLLOW, f"follow.newest={newest}"])
    assert looked_at(capsys.readouterr().out) == order


@pytest.mark.slow
def test_what_depends_on_the_checkpoint_before_waits_for_it_and_is_made_up_for(run, capsys):
    for step in (1, 2, 3):
        put(run, step)
    record(run, "finished")
    analyze.main([str(run), *FOLLOW, "follow.newest=true", "samples.enabled=true", "samples.shown=2"])
    assert looked_at(capsys.readouterr().out) == [3, 2, 1, 2, 3]  # of 1 all, then what has waited
    found = Store(run).results(3)
    assert found["samples"].state["steps"].tolist() == [1, 2, 3] and not found["samples"].error
    assert not found["cam"].error and Store(run).steps() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "process", "words"),
    [
        ("running", {"pid": 2**22 + 1, "began": "1"}, "the training was killed; waiting for it to go on"),
        ("preempted", {}, "the training was preempted; waiting for it to go on"),
    ],
)
def test_a_training_that_was_cut_off_is_waited_for_until_patience_ends(run, capsys, state, process, words):
    record(run, state, process=this_process() | process)
    put(run, 1)
    with pytest.raises(SystemExit) as caught:
        analyze.main([str(run), *FOLLOW, "follow.patience=2"])
    assert caught.value.code == 1
    said = capsys.readouterr().out
    assert words in said and "giving up (follow.patience)" in said
    assert Store(run).steps() == [1]


def test_ctrl_c_ends_the_waiting(run, capsys):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(SystemExit) as caught:
        analyze.main([str(run), *FOLLOW])
    assert caught.value.code == 130
    assert f"to go on: python analyze.py {run} follow=true" in capsys.readouterr().out


@pytest.mark.slow
def test_a_follower_may_start_before_the_training(run, capsys):
    later = run.rename(run.with_name("elsewhere"))

    def begin() -> None:
        time.sleep(0.5)
        put(later, 1)
        record(later, "finished")
        later.rename(run)

    thread = threading.Thread(target=begin)
    thread.start()
    analyze.main([str(run), *FOLLOW])
    thread.join()
    assert f"waiting for {run} to begin" in capsys.readouterr().out
    assert Store(run).steps() == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["follow=yes please"], r"follow: is 'yes please', expected true or false"),
        (["follow.pol=3"], r"follow\.pol: there is no such setting"),
        (["follow.poll=0"], r"follow\.poll: is 0.*, expected more than 0"),
        (["follow=true", "analysis.mode=train"], r"follow: .* analyzes its checkpoints itself"),
        (["follow=true", "features.stebs=1"], r"analysis\.features\.stebs"),
    ],
)
def test_what_cannot_be_is_answered_by_one_sentence(run, words, message):
    with pytest.raises(SettingError, match=message):
        analyze.main([str(run), *words])


def test_one_run_is_followed():
    with pytest.raises(SettingError, match="follow: 0 runs came, expected one"):
        analyze.main(["follow=true"])
    with pytest.raises(SettingError, match=r"nowhere: is not there"):
        analyze.main(["runs/nowhere", "follow=true", "follow.patience=0.1"])
