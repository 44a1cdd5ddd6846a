"""The page of a run that grows: built from what is new, and the same as one that is built from nothing."""

import contextlib
import json
import os
import shutil
import sys

import pytest
import torch

from vitrine.analyses.base import Figure, Table
from vitrine.analyses.result import AnalysisResult
from vitrine.core import atomic
from vitrine.reporting import page, page_cache, page_split
from vitrine.reporting.ranking import ranking
from vitrine.runs.store import Store

opened: list[str] = []
sys.addaudithook(lambda event, of: opened.append(str(of[0])) if event == "open" else None)


@pytest.fixture(params=[page_cache.ONE_FILE, 0], ids=["in one file", "in many"])
def many(request, monkeypatch):
    """Whether what figures show lies in files of its own."""
    monkeypatch.setattr(page_cache, "ONE_FILE", request.param)
    return request.param == 0


def write(run, report, weights="w"):
    image = report.results["weights"].figures[0].image
    table = Table({"class": ["<a>", "b"], "recall": [report.step / 7, None]})
    table = Figure("confusion", image, "how <many>", values={"accuracy": 0.5}, table=table)
    with Store(run).writing(report.step, weights) as writer:
        for name, result in {**report.results, "confusion": AnalysisResult([table])}.items():
            writer.write(name, result)


def page_files(run):
    """Every file of the page by its path, with the pieces of what is complete."""
    store = Store(run)
    parts = [store.step_folder(step) / name for step in store.steps() for name in store.results(step)]
    pieces = [piece for part in parts for piece in part.glob(f"{page_split.FOLDER}/*")]
    files = [run / "index.html", run / "gallery.js", *pieces]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def from_nothing(run):
    """`page_files` of a page that knows of no earlier one."""
    for left in (run / page_cache.NAME, *run.glob(f"analysis/*/*/{page_split.FOLDER}")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    page.build(run)
    return page_files(run)


def add(run, report):
    write(run, report(4))


def redo_an_old_step(run, report):
    """As when `analyze.py` is run again for the same weights."""
    write(run, report(9).__class__(2, report(9).results))


def replace_an_old_step(run, report):
    write(run, report(9).__class__(2, report(9).results), weights="others")


def add_an_analysis_to_an_old_step(run, report):
    with Store(run).writing(1, "w") as writer:
        writer.write("features", report(1).results["examples"])


def delete_a_step(run, report):
    shutil.rmtree(Store(run).step_folder(1))


def delete_an_analysis(run, report):
    shutil.rmtree(Store(run).step_folder(3) / "cam")


def copy_a_step(run, report):
    shutil.copytree(Store(run).step_folder(1), Store(run).step_folder(7))


def copy_a_step_over_another(run, report):
    shutil.rmtree(Store(run).step_folder(3))
    shutil.copytree(Store(run).step_folder(1), Store(run).step_folder(3))


def swap_two_steps(run, report):
    one, other = Store(run).step_folder(1), Store(run).step_folder(2)
    one.rename(run / "kept")
    other.rename(one)
    (run / "kept").rename(other)


def edit_a_listing(run, report):
    listing = Store(run).step_folder(1) / "cam" / "figures.json"
    listing.write_text(listing.read_text().replace("probe 1", "probe X"))


def half_a_step(run, report):
    (Store(run).step_folder(2) / "complete.json").unlink()


def spoil_the_cache(run, report):
    (run / page_cache.NAME).write_text('{"version": ')


def a_cache_of_other_code(run, report):
    head, *lines = (run / page_cache.NAME).read_text().splitlines()
    head = json.dumps(json.loads(head) | {"version": "0.0", "texts": {}})
    (run / page_cache.NAME).write_text("\n".join([head, *lines]))


def half_a_cache(run, report):
    text = (run / page_cache.NAME).read_text()
    (run / page_cache.NAME).write_text(text[: -len(text) // 4])


def a_step_of_others(run, report):
    """The first to have such figures: the numbers of those that come after it are others."""
    result = AnalysisResult([Figure("new", report(1).results["weights"].figures[0].image, "new", label=3)])
    with Store(run).writing(0, "w") as writer:
        writer.write("cam", result)


def delete_the_pieces(run, report):
    for folder in run.glob(f"analysis/step=00000001/*/{page_split.FOLDER}"):
        shutil.rmtree(folder)


def delete_a_piece(run, report):
    for piece in run.glob(f"analysis/step=00000001/cam/{page_split.FOLDER}/*"):
        piece.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        add,
        redo_an_old_step,
        replace_an_old_step,
        add_an_analysis_to_an_old_step,
        delete_a_step,
        delete_an_analysis,
        copy_a_step,
        copy_a_step_over_another,
        swap_two_steps,
        edit_a_listing,
        half_a_step,
        spoil_the_cache,
        a_cache_of_other_code,
        half_a_cache,
        a_step_of_others,
        delete_the_pieces,
        delete_a_piece,
    ],
)
def test_whatever_changed_the_page_is_as_one_built_from_nothing(tmp_path, report, many, change):
    for step in (1, 2, 3):
        write(tmp_path, report(step))
        page.build(tmp_path)
    change(tmp_path, report)
    page.build(tmp_path)
    grown = page_files(tmp_path)
    assert grown == from_nothing(tmp_path)
    assert any(page_split.FOLDER in name for name in grown) == many
    page.build(tmp_path)
    assert page_files(tmp_path) == grown


@pytest.mark.slow
@pytest.mark.parametrize("instant", (1, 2, 4, 7, 11))
def test_a_build_that_is_killed_is_made_up_for_by_the_next(tmp_path, report, many, monkeypatch, instant):
    write(tmp_path, report(1))
    page.build(tmp_path)
    write(tmp_path, report(2))
    calls = []

    def killed(original):
        def call(*arguments, **more):
            calls.append(1)
            if len(calls) == instant:
                raise KeyboardInterrupt
            return original(*arguments, **more)

        return call

    with monkeypatch.context() as patch:
        for place, name in ((os, "rename"), (os, "replace"), (atomic, "sync_tree"), (shutil, "rmtree")):
            patch.setattr(place, name, killed(getattr(place, name)))
        with contextlib.suppress(KeyboardInterrupt):
            page.build(tmp_path)
    page.build(tmp_path)
    assert page_files(tmp_path) == from_nothing(tmp_path)
    assert not list(tmp_path.rglob(".*"))


def test_no_file_of_an_older_step_is_read_again(tmp_path, report, many):
    for step in (1, 2, 3):
        write(tmp_path, report(step))
        page.build(tmp_path)
    write(tmp_path, report(4))
    opened.clear()
    page.build(tmp_path)
    read = [path for path in opened if f"{tmp_path}/analysis" in path and not os.path.isdir(path)]
    assert read and all("step=00000004/" in path for path in read)


def test_a_run_that_shrinks_is_in_one_file_again(tmp_path, report, monkeypatch):
    for step in (1, 2):
        write(tmp_path, report(step))
    page.build(tmp_path)
    monkeypatch.setattr(page_cache, "ONE_FILE", (tmp_path / "gallery.js").stat().st_size / 2)
    page.build(tmp_path)
    assert any(page_split.FOLDER in name for name in page_files(tmp_path))
    delete_a_step(tmp_path, report)
    page.build(tmp_path)
    grown = page_files(tmp_path)
    assert not any(page_split.FOLDER in name for name in grown) and grown == from_nothing(tmp_path)


def test_a_large_runs_files_are_inert_scripts_and_hold_all(tmp_path, report, monkeypatch):
    monkeypatch.setattr(page_cache, "ONE_FILE", 0)
    write(tmp_path, report(1))
    page.build(tmp_path)
    scripts = [file.read_text() for file in tmp_path.glob(f"analysis/*/*/{page_split.FOLDER}/*.js")]
    assert all(text.isascii() and not set("<>&") & set(text) for text in scripts)
    shown = [of for text in scripts for of in json.loads(f"[{text[len('vitrine.part(') : -3]}]")[1]]
    captions = {figure.caption for result in report(1).results.values() for figure in result.figures}
    assert {of[0] for of in shown} == captions | {"how <many>"}
    assert "filters of conv1" not in (tmp_path / "gallery.js").read_text()


def test_a_large_run_has_the_file_of_a_key_that_is_no_file_name(tmp_path, monkeypatch):
    monkeypatch.setattr(page_cache, "ONE_FILE", 0)
    keys = ["dog", "Dog", "con", "a b", "x" * 300, "dog.png", "..", "-a.b"]
    with Store(tmp_path).writing(1, "w") as writer:
        image = torch.zeros(1, 1, 3, dtype=torch.uint8)
        writer.write("cam", AnalysisResult([Figure(f"probe-000/{key}", image, key) for key in keys]))
    page.build(tmp_path)
    (piece,) = tmp_path.glob(f"analysis/*/cam/{page_split.FOLDER}/*.js")
    text = piece.read_text()
    shown = json.loads(f"[{text[len('vitrine.part(') : -3]}]")[1]
    # parts.js sets the key before what begins with a full stop
    files = [
        f"probe-000/{key}{file}" if file.startswith(".") else file for key, (_, _, file) in zip(keys, shown)
    ]
    assert files == [entry["file"] for entry in Store(tmp_path).entries(1, "cam")]
    assert shown[0][2] == ".png"  # short where it can be


def test_the_units_of_a_layer_are_in_one_piece():
    rows = [["key", f"layer{i // 64}"] for i in range(10 * 64)]
    assert page_split.chunk_sizes(rows) == [64] * 10
    few = [["key", f"layer{i // 5}"] for i in range(40 * 5)]
    assert page_split.chunk_sizes(few) == [65, 65, 65, 5]
    assert page_split.chunk_sizes([]) == [] and sum(page_split.chunk_sizes([["", None]] * 1000)) == 1000


def test_ranking_reads_no_file_of_an_older_step_again(tmp_path, report):
    for step in (1, 2, 3):
        write(tmp_path, report(step))
        ranking(tmp_path)
    opened.clear()
    write(tmp_path, report(4))
    opened.clear()
    assert ranking(tmp_path)["last/step"] == 4
    read = [path for path in opened if f"{tmp_path}/analysis" in path and not os.path.isdir(path)]
    assert read and all("step=00000004/" in path for path in read)


@pytest.mark.slow
def test_two_processes_that_add_and_redo_steps_leave_the_page_of_all(tmp_path, report, many):
    def process(steps):
        for step in steps:
            write(tmp_path, report(step))
            page.PageSink(tmp_path).close()
        os._exit(0)

    children = []
    for steps in ((1, 2, 3, 4, 1), (5, 6, 2, 7, 8)):
        children.append(os.fork())
        if not children[-1]:
            process(steps)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    grown = page_files(tmp_path)
    assert Store(tmp_path).steps() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert grown == from_nothing(tmp_path)
