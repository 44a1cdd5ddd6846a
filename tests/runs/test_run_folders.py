"""Run directories never collide."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vitrine import config
from vitrine.analyses import ANALYSES
from vitrine.cli import train
from vitrine.core.settings import SettingError
from vitrine.runs import run_folders

ROOT = Path(__file__).resolve().parents[2]


def test_a_hundred_runs_that_begin_in_the_same_second_have_a_hundred_folders(tmp_path):
    folder, start, got = tmp_path / "runs" / "signs-convnet-20260101-120000", threading.Barrier(100), []

    def begin():
        start.wait()
        got.append(run_folders.claim(folder, resume=False, unnamed=True))

    threads = [threading.Thread(target=begin) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == len(got) == 100
    assert all(made.is_dir() for made in got)
    assert folder in got and folder.with_name(folder.name + "-100") in got


@pytest.mark.slow
def test_processes_that_begin_in_the_same_instant_have_folders_of_their_own(tmp_path):
    program = f"""
import sys, time
from vitrine.runs import run_folders
from pathlib import Path
time.sleep(max(0, {time.time() + 2} - time.time()))
for _ in range(10):
    print(run_folders.claim(Path({str(tmp_path)!r}) / "name", False, unnamed=True).name)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    names = [name for process in started for name in process.communicate()[0].split()]
    assert sorted(names) == sorted(["name", *(f"name-{n}" for n in range(2, 61))])


def test_a_name_that_was_chosen_is_not_changed(tmp_path):
    run_folders.claim(tmp_path / "mine", resume=False)
    with pytest.raises(SettingError, match="was made by another run just now"):
        run_folders.claim(tmp_path / "mine", resume=False)
    assert run_folders.claim(tmp_path / "mine", resume=True) == tmp_path / "mine"


@pytest.mark.slow
def test_a_training_whose_name_was_taken_in_its_second_trains_under_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folders, "default_name", lambda *_: "signs-now")
    words = ["data.train_size=32", "data.val_size=16", "data.image_size=32", "trainer.max_steps=1"]
    words += ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "logging.wandb.mode=disabled"]
    off = [f"analysis.{name}.enabled=false" for name in ANALYSES]
    (tmp_path / "signs-now").mkdir()
    train.main([*words, *off, f"run.root={tmp_path}"])
    made = tmp_path / "signs-now-2"
    assert (made / "checkpoints" / "last.ckpt").exists() and (made / "index.html").exists()
    assert config.load([], base=[made / "config.yaml"]).run.name == "signs-now-2"
    assert not list((tmp_path / "signs-now").iterdir())
