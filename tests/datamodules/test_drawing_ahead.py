"""Training images that another process draws while this one imports: the same, whatever becomes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from vitrine import assembly, config
from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError
from vitrine.datamodules import DATA, DRAWN, drawing_ahead
from vitrine.datamodules.drawing_ahead import DrawingAhead
from vitrine.datamodules.drawn import DrawnData
from vitrine.datamodules.sign_images import SignImages

ROOT = Path(__file__).parents[2]
SMALL = ["data.image_size=16", "data.train_size=70", "data.val_size=8"]
PARENT = os.getpid()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="drawing ahead is for Linux")


@pytest.fixture(autouse=True)
def as_large(monkeypatch):
    """Small data count as large, on a machine of two cores."""
    monkeypatch.setattr(drawing_ahead, "LEAST_PIXELS", 0)
    monkeypatch.setattr(drawing_ahead, "CHUNK", 16 * 16**2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")


@pytest.fixture
def ahead():
    drawing = DrawingAhead()
    yield drawing
    drawing.end()


@functools.cache
def small(name: str) -> config.Settings:
    return config.load([*SMALL, f"data.name={name}"])


def settings_of(name: str = "signs", seed: int = 0, **changes: Any) -> config.Settings:
    """Those of SMALL, with some of `data` changed."""
    settings = small(name)
    run = dataclasses.replace(settings.run, seed=seed)
    return dataclasses.replace(settings, run=run, data=dataclasses.replace(settings.data, **changes))


def begin(ahead: DrawingAhead, settings: config.Settings) -> multiprocessing.Process | None:
    """The other process, which may have ended before anybody else could ask for it."""
    ahead.begin(settings.data, settings.run.seed)
    return ahead._process


def training_images(settings: config.Settings, ahead: DrawingAhead | None = None) -> torch.Tensor:
    return assembly.build_data(settings, ahead=ahead).train.images


def in_the_other_process(monkeypatch, do):
    """Have drawing do something there, after a first chunk."""
    original, drawn = SignImages.draw_images, []

    def draw(split: SignImages, indices: torch.Tensor) -> torch.Tensor:
        if os.getpid() != PARENT and drawn:
            do()
        drawn.append(indices)
        return original(split, indices)

    monkeypatch.setattr(SignImages, "draw_images", draw)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("signs", {"shortcut": 0.5, "contrast": 0.7}), ("objects", {})],
    ids=["signs", "objects"],
)
def test_images_drawn_ahead_are_those_drawn_at_once(ahead, name, changes):
    settings = settings_of(name, seed=3, mislabeled=0.1, **changes)
    child = begin(ahead, settings)
    child.join(30)
    assert child.exitcode == 0
    data = assembly.build_data(settings, ahead=ahead)
    expected = assembly.build_data(settings)
    assert torch.equal(data.train.images, expected.train.images)
    assert torch.equal(data.train.labels, expected.train.labels)
    assert torch.equal(data.val.images, expected.val.images)


def test_what_is_not_drawn_yet_is_drawn_here(ahead, monkeypatch):
    in_the_other_process(monkeypatch, lambda: time.sleep(0.2))
    settings = settings_of()
    begin(ahead, settings)
    assert torch.equal(training_images(settings, ahead), training_images(settings))
    assert not multiprocessing.active_children()


def test_a_process_forked_since_draws_for_itself(ahead):
    """As in Lightning's strategies that fork; what is drawn ahead is left to the process that began it."""
    settings = settings_of()
    begin(ahead, settings)
    split, reader, writer = assembly.build_data(settings, ahead=ahead).train, *multiprocessing.Pipe(False)
    forked = multiprocessing.get_context("fork").Process(target=lambda: writer.send(split.images.tolist()))
    forked.start()
    assert reader.poll(30)
    expected = training_images(settings)
    assert torch.equal(torch.tensor(reader.recv(), dtype=torch.uint8), expected)
    forked.join()
    assert torch.equal(split.images, expected) and not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("become", "problem"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended with status -9"),
        (lambda: 1 / 0, "ended with status 1"),
        (lambda: time.sleep(60), "hangs"),
    ],
)
def test_a_process_that_fails_is_said_and_made_up_for(ahead, monkeypatch, caplog, capfd, become, problem):
    monkeypatch.setattr(drawing_ahead, "PATIENCE", 0.3)
    has_begun = multiprocessing.get_context("fork").Event()
    in_the_other_process(monkeypatch, lambda: (has_begun.set(), become()))
    settings = settings_of()
    child = begin(ahead, settings)
    assert has_begun.wait(30)
    if problem != "hangs":
        child.join(30)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(training_images(settings, ahead), training_images(settings))
    assert [record.getMessage() for record in caplog.records] == [
        f"the process that draws training images {problem}; they are drawn again"
    ]
    assert not multiprocessing.active_children()


def test_what_is_drawn_for_other_settings_is_not_used(ahead):
    for other in ({"seed": 1}, {"contrast": 0.5}, {"name": "objects"}, {"train_size": 71}):
        begin(ahead, settings_of())
        data = assembly.build_data(settings_of(**other), ahead=ahead)
        assert data.train.ahead is None and not multiprocessing.active_children()


def test_nothing_is_drawn_ahead_where_it_cannot_pay(ahead, monkeypatch):
    assert begin(ahead, settings_of(cache="never")) is None
    assert begin(ahead, config.load(["data.name=folder"])) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert begin(ahead, settings_of()) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(drawing_ahead, "LEAST_PIXELS", 71 * 16**2)
    assert begin(ahead, settings_of()) is None
    monkeypatch.setattr(drawing_ahead, "LEAST_PIXELS", 0)
    assert begin(ahead, settings_of()) is not None


def test_where_no_process_can_be_started_images_are_drawn_when_needed(ahead, monkeypatch, caplog):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    settings = settings_of()
    assert begin(ahead, settings) is None
    assert "when they are needed" in caplog.text
    assert training_images(settings, ahead).shape == (70, 3, 16, 16)


def test_drawing_ends_with_the_process_that_began_it(monkeypatch):
    """However that ends: it is killed here."""
    in_the_other_process(monkeypatch, lambda: time.sleep(0.05))
    settings = settings_of(train_size=5000)
    reader, writer = multiprocessing.Pipe(duplex=False)

    def begin_and_die():
        writer.send(begin(DrawingAhead(), settings).pid)
        os.kill(os.getpid(), signal.SIGKILL)

    beginner = multiprocessing.get_context("fork").Process(target=begin_and_die)
    beginner.start()
    child = reader.recv()
    beginner.join()
    end = time.monotonic() + 10
    while is_running(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not is_running(child)


def is_running(process: int) -> bool:
    """Whether there is such a process, and not only its exit status that nobody has asked for."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def before_imports(monkeypatch):
    """Settings are loaded as in a process that has not imported Lightning yet."""
    monkeypatch.delitem(sys.modules, "lightning")
    monkeypatch.setattr("vitrine.config.loading.none_while_importing", contextlib.nullcontext)


def test_training_begins_before_its_imports_and_ends_it_with_the_run(monkeypatch, tmp_path):
    begun = []

    def note(settings, arguments, processes, cleanup, ahead):
        assert ahead.is_of(settings.data, settings.run.seed)
        begun.extend(multiprocessing.active_children())
        raise SettingError("model.name", "is refused")

    before_imports(monkeypatch)
    in_the_other_process(monkeypatch, lambda: time.sleep(60))  # else it may have ended by itself
    monkeypatch.setattr(train, "train", note)
    with pytest.raises(SettingError, match="is refused"):
        train.main([*SMALL, f"run.root={tmp_path}"])
    assert len(begun) == 1 and not multiprocessing.active_children()


def test_further_ranks_begin_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    before_imports(monkeypatch)
    monkeypatch.setattr(train, "train", lambda *_: None)
    monkeypatch.setattr(DrawingAhead, "begin", lambda *_: pytest.fail("has begun"))
    train.main([*SMALL, f"run.root={tmp_path}"])


def test_looking_at_a_run_begins_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(DrawingAhead, "begin", lambda *_: pytest.fail("has begun"))
    settings = settings_of()
    settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, root=str(tmp_path)))
    settings.folder.mkdir()
    settings.save()
    before_imports(monkeypatch)
    with pytest.raises(SettingError, match="has no checkpoint"):
        analyze.main([str(settings.folder)])


def test_every_drawn_data_set_can_be_drawn_ahead():
    for name in DATA:
        assert issubclass(DATA[name], DrawnData) == (name in DRAWN)


@pytest.mark.slow
def test_what_draws_does_not_import_lightning():
    program = "import sys; from vitrine.datamodules import DRAWN; [DRAWN[name] for name in DRAWN]; "
    program += "print([name for name in ('lightning', 'torchvision') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[]\n", ran.stderr


@pytest.mark.slow
def test_ctrl_c_while_importing_leaves_nothing_behind(tmp_path):
    """It comes to both processes, as a terminal sends it."""
    words = [sys.executable, "train.py", f"run.root={tmp_path}"]
    program = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    end = time.monotonic() + 30
    while not (drawing := children.read_text().split()) and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(program.pid, signal.SIGINT)
    said, _ = program.communicate(timeout=120)
    assert program.returncode == 130
    assert len(drawing) == 1 and not is_running(int(drawing[0]))
    assert "Traceback" not in said and not [*tmp_path.iterdir()]
