import json
import math
import os
import signal
import socket
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrine.analyses.base import Figure, Scalar, alarm
from vitrine.analyses.result import AnalysisResult
from vitrine.runs import filenames
from vitrine.runs.store import Store


def picture(seed=0, height=5, width=7):
    drawn = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return drawn.to(torch.uint8)


def figure(key, seed=0, **of):
    return Figure(key, picture(seed), f"caption of {key}", **of)


def write(run, step=500, weights="a" * 64, **analyses):
    with Store(run).writing(step, weights=weights) as writer:
        for name, figures in analyses.items():
            writer.write(name, AnalysisResult(figures, [], 0.1))


def test_what_is_written_is_read_bit_for_bit(tmp_path):
    figures = [
        figure("layer3/unit-017", 1, layer="layer3", unit=17),
        figure("probe-004/cat", 2, probe=4, label=3),
        Figure("odd", picture(3), "", values={"activation": 1.25, "nothing": math.nan, "much": math.inf}),
    ]
    scalars = [
        Scalar("dead_units/layer3", 0.5, "layer3"),
        Scalar("unknown", math.nan),
        alarm("odd", "It is."),
    ]
    store = Store(tmp_path)
    with store.writing(500, weights="f" * 64) as writer:
        writer.write("examples", AnalysisResult(figures, scalars, 1.5, settings={"k": 9}))
        writer.write("cam", AnalysisResult([], [], 0.25, error="ValueError: no head"))
    assert store.steps() == [500]
    examples, cam = store.results(500).values()
    assert (examples.seconds, examples.error, examples.settings, examples.reduced) == (
        1.5,
        None,
        {"k": 9},
        {},
    )
    assert (cam.seconds, cam.error, len(cam.figures), cam.settings) == (0.25, "ValueError: no head", 0, None)
    read = store.figures(500, "examples")
    assert len(read) == 3
    for was, now in zip(figures, read):
        assert torch.equal(was.image, now.image)
        for name in ("key", "caption", "layer", "unit", "probe", "label"):
            assert getattr(was, name) == getattr(now, name)
    assert read[2].values["activation"] == 1.25 and math.isnan(read[2].values["nothing"])
    assert [f.key for f in read[1:]] == ["probe-004/cat", "odd"]
    first, second, third = store.scalars(500, "examples")
    assert third == scalars[2] and (third.key, third.value, third.text) == ("alarm/odd", 1, "It is.")
    assert first == scalars[0] and second.key == "unknown" and math.isnan(second.value)


def test_the_layout_is_the_published_one(tmp_path):
    write(tmp_path, examples=[figure(f"layer3/unit-{i:03d}", i, layer="layer3", unit=i) for i in range(3)])
    step = tmp_path / "analysis" / "step=00000500"
    entries = json.loads((step / "examples" / "figures.json").read_text())
    assert list(entries[0]) == ["key", "file", "caption", "layer", "unit", "probe", "label", "values"]
    assert (step / "examples" / entries[0]["file"]).name == "unit-000.png"
    complete = json.loads((step / "complete.json").read_text())
    assert complete["step"] == 500 and complete["weights"] == "a" * 64
    assert set(complete["analyses"]["examples"]) >= {"seconds", "error", "figures"}
    assert os.listdir(tmp_path / "analysis") == ["step=00000500"]


def test_a_picture_is_kept_bit_for_bit_or_where_that_is_large_in_less_room_and_always_the_same(tmp_path):
    noise = torch.randint(
        0, 256, (300, 300, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    photograph = torch.nn.functional.interpolate(
        noise[:40, :40].permute(2, 0, 1)[None].float(), (300, 300), mode="bilinear"
    )[0]
    photograph = photograph.permute(1, 2, 0).to(torch.uint8)
    shown = [figure("small"), Figure("photograph", photograph, "")]
    write(tmp_path, cam=shown)
    store = Store(tmp_path)
    small, large = store.figures(500, "cam")
    assert torch.equal(small.image, shown[0].image)
    assert large.image.shape == photograph.shape
    assert (large.image.float() - photograph.float()).abs().mean() < 6  # levels of 255
    file = store.step_folder(500) / "cam" / store.entries(500, "cam")[1]["file"]
    assert file.suffix == ".webp"
    write(tmp_path / "again", cam=shown)
    assert (Store(tmp_path / "again").step_folder(500) / "cam" / file.name).read_bytes() == file.read_bytes()


def test_plots_and_enlarged_pixels_are_kept_bit_for_bit_and_no_picture_is_too_long(tmp_path):
    plot = torch.full((400, 500, 3), 255, dtype=torch.uint8)
    for i in range(400):
        plot[i, i // 2 : i // 2 + 3] = torch.tensor([11, 106, 102])
    colours = torch.randint(0, 8, (12, 16, 3), generator=torch.Generator().manual_seed(0)) * 36
    enlarged = colours.repeat_interleave(32, 0).repeat_interleave(32, 1).to(torch.uint8)
    strip = colours.repeat(1, 1100, 1).roll(7, 0).to(torch.uint8)  # wider than WebP may be
    strip[0] = torch.randint(0, 256, strip[0].shape, generator=torch.Generator().manual_seed(1))
    shown = [Figure("plot", plot, ""), Figure("enlarged", enlarged, ""), Figure("strip", strip, "")]
    write(tmp_path, cam=shown)
    for was, found in zip(shown, Store(tmp_path).figures(500, "cam")):
        assert torch.equal(was.image, found.image)


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "../..",
    "../../../etc/passwd",
    "/absolute",
    "",
    ".",
    "猫" * 300,
    "x" * 5000,
    "/".join("deep" for _ in range(2000)),
    "a b",
    "a-b",
    "a_b",
    "a?b",
    "Cat",
    "cat",
    "CON",
    "a\0b",
    "line\nbreak",
    "figures.json/x",
    "a.png",
    "a",
    "a.png/b",
    "C:\\windows",
    "\udcff",
    "é",
    "e\u0301",
]


def test_any_key_becomes_a_file_inside_its_folder(tmp_path):
    keys = [where + key for key in HOSTILE for where in ("", "probe-0/")]
    figures = [figure(key, i, label=0) for i, key in enumerate(keys)]
    write(tmp_path, cam=figures)
    store = Store(tmp_path)
    read = store.figures(500, "cam")
    assert [f.key for f in read] == [f.key for f in figures]
    assert all(torch.equal(a.image, b.image) for a, b in zip(figures, read))
    files = [entry["file"] for entry in store.entries(500, "cam")]
    assert len({file.casefold() for file in files}) == len(files)
    folder = store.step_folder(500) / "cam"
    for file in files:
        assert (folder / file).resolve().is_relative_to(folder.resolve()) and file.isascii()


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12), unique=True, max_size=12))
def test_file_names_never_collide_or_climb(keys):
    files = [f"{path}.png".casefold() for path in filenames.unique_paths(keys)]
    assert len(set(files)) == len(keys)
    folders = {file[:i] for file in files for i, character in enumerate(file) if character == "/"}
    assert not folders & set(files)
    assert not any(p in ("", ".", "..") for file in files for p in file.split("/"))


@pytest.mark.parametrize(
    "figures, told",
    [
        ([figure("a"), figure("a", 1)], "key 'a' came twice"),
        ([Figure("a", torch.zeros(3, 4, 4), "")], "expected uint8 \\[H, W, 3\\]"),
        ([Figure("a", torch.zeros(0, 4, 3, dtype=torch.uint8), "")], "expected uint8"),
    ],
)
def test_what_is_no_figure_is_refused(tmp_path, figures, told):
    with pytest.raises(ValueError, match=told):
        write(tmp_path, cam=figures)
    assert Store(tmp_path).steps() == [] and os.listdir(tmp_path / "analysis") == []


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    with (
        Store(tmp_path).writing(1, weights="") as writer,
        pytest.raises(ValueError, match=r"name is '\.\./x'"),
    ):
        writer.write("../x", AnalysisResult([], [], 0))


def test_looking_creates_nothing(tmp_path):
    store = Store(tmp_path / "none")
    assert store.steps() == [] and store.results(3) == {} and list(store.figures(3, "cam")) == []
    assert store.scalars(3, "cam") == [] and dict(store.previous(3)) == {}
    assert not (tmp_path / "none").exists()


def test_a_step_is_not_there_before_it_is_whole(tmp_path):
    store = Store(tmp_path)
    with store.writing(500, weights="") as writer:
        writer.write("cam", AnalysisResult([figure("a")], [], 0))
        assert store.steps() == [] and store.results(500) == {} and not list(store.figures(500, "cam"))
    assert store.steps() == [500]


def test_an_exception_inside_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), Store(tmp_path).writing(500, weights="") as writer:
        writer.write("cam", AnalysisResult([figure("a")], [], 0))
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "analysis") == []


def test_previous_is_the_latest_whole_step_before(tmp_path):
    for step in (100, 200, 300):
        write(tmp_path, step, cam=[figure("a", step)])
    store = Store(tmp_path)
    (store.step_folder(200) / "complete.json").write_text('{"step": 2')  # half a file is no step
    assert store.steps() == [100, 300]
    assert torch.equal(store.previous(300)["cam"][0].image, picture(100))
    assert list(store.previous(301)) == ["cam"] and "examples" not in store.previous(301)
    assert dict(store.previous(100)) == {}


def test_analyses_are_added_to_a_step_that_is_there(tmp_path):
    write(tmp_path, cam=[figure("a", 1)])
    write(tmp_path, examples=[figure("b", 2)])
    store = Store(tmp_path)
    assert set(store.results(500)) == {"cam", "examples"}
    write(tmp_path, cam=[figure("c", 3)])
    assert [f.key for f in store.figures(500, "cam")] == ["c"]
    assert torch.equal(store.figures(500, "cam")[0].image, picture(3))
    assert os.listdir(tmp_path / "analysis") == ["step=00000500"]


def test_an_analysis_added_is_there_before_the_next_is_done(tmp_path):
    write(tmp_path, cam=[figure("a", 1)])
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.writing(500, weights="a" * 64) as writer:
        writer.write("examples", AnalysisResult([figure("b")], [], 0))
        assert "examples" in store.results(500)
        raise RuntimeError
    assert set(store.results(500)) == {"cam", "examples"}


def test_pictures_of_other_weights_do_not_stay(tmp_path):
    write(tmp_path, weights="old", cam=[figure("a")])
    write(tmp_path, weights="new", examples=[figure("b")])
    store = Store(tmp_path)
    assert store.weights(500) == "new" and set(store.results(500)) == {"examples"}
    assert os.listdir(tmp_path / "analysis") == ["step=00000500"]


def consistent(run):
    """Every step that is there is whole: each picture that is named can be read."""
    store = Store(run)
    for step in store.steps():
        for name, result in store.results(step).items():
            read = list(store.figures(step, name))
            assert len(read) == len(result.figures)
            store.scalars(step, name)
    return store


@pytest.mark.slow
@pytest.mark.parametrize("adding", [False, True], ids=["a new step", "added to a step"])
def test_a_disk_that_refuses_at_any_call_leaves_nothing_half_made(tmp_path, monkeypatch, adding):
    """Each call that changes the disk fails in turn; readers see the state before or the one after."""
    calls = ("rename", "replace", "fsync", "open", "mkdir")
    for refused in range(10_000):
        run = tmp_path / str(refused)
        write(run, 100, cam=[figure("a", 1)])
        if adding:
            write(run, 500, cam=[figure("a", 1)])
        count = 0

        def failing(real, refused=refused):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == refused + 1:
                    raise OSError(28, "No space left on device")
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(os, name, failing(getattr(os, name)))
            try:
                write(run, 500, cam=[figure("b", 2)], examples=[figure("c", 3)])
                done = True
            except OSError as error:
                assert error.errno == 28
                done = False
        store = consistent(run)
        assert 100 in store.steps()
        assert done or not list((run / "analysis").glob(".*"))
        if done and count <= refused:
            assert set(store.results(500)) == {"cam", "examples"}
            return
        write(run, 500, cam=[figure("b", 2)], examples=[figure("c", 3)])  # and the next attempt succeeds
        assert set(consistent(run).results(500)) == {"cam", "examples"}
        assert [f.key for f in store.figures(500, "cam")] == ["b"]
    raise AssertionError("never succeeded")


def test_a_real_full_disk_is_an_oserror(tmp_path):
    resource = pytest.importorskip("resource")
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, was[1]))
        with pytest.raises(OSError), Store(tmp_path).writing(500, weights="") as writer:
            writer.write("cam", AnalysisResult([Figure("a", picture(0, 100, 100), "")], [], 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path / "analysis") == []


def write_forever(run):
    image = torch.zeros(40, 40, 3, dtype=torch.uint8)
    figures = [Figure(f"l/{i}", image, "", layer="l", unit=i) for i in range(5)]
    for step in range(1, 100_000):
        for weights in ("a", "a", "b"):  # new, added to, and replaced
            write(run, step, weights, cam=figures, examples=figures)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("instant", range(12))
def test_a_writer_killed_at_any_instant_leaves_whole_steps(tmp_path, instant):
    child = os.fork()
    if child == 0:
        try:
            write_forever(tmp_path)
        finally:
            os._exit(1)
    try:
        end = time.monotonic() + 0.03 + 0.013 * instant
        while time.monotonic() < end:
            Store(tmp_path).steps()  # readers beside it never trip
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    store = consistent(tmp_path)
    for step in store.steps():
        assert set(os.listdir(store.step_folder(step))) >= set(store.results(step))
    write(tmp_path, 0, cam=[])
    assert not list((tmp_path / "analysis").glob(".*"))  # what the dead writer left is cleared away


def test_a_live_writers_directory_is_let_be(tmp_path):
    folder = tmp_path / "analysis"
    alive = folder / f".step=00000009.{socket.gethostname()}.{os.getppid()}"
    elsewhere = folder / ".step=00000009.another-machine.7"
    old = folder / ".step=00000010.another-machine.7"
    for path in (alive, elsewhere, old):
        path.mkdir(parents=True)
    os.utime(old, (0, 0))
    write(tmp_path, cam=[])
    assert alive.exists() and elsewhere.exists() and not old.exists()
