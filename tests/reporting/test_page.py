import json
import os
import re
from html.parser import HTMLParser

import pytest
import torch

from vitrine.analyses.base import Figure, Scalar
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.reporting import page
from vitrine.reporting.page_data import POINTS, run_data
from vitrine.runs.store import Store

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028&amp;"


def told(run_dir):
    """What gallery.js says, read as the JSON it is."""
    text = (run_dir / "gallery.js").read_text(encoding="utf-8")
    return json.loads(re.fullmatch(r"vitrine\((.*)\);\n", text, re.DOTALL)[1])


def write(run_dir, report):
    with Store(run_dir).writing(report.step, weights="") as writer:
        for name, result in report.results.items():
            writer.write(name, result)


def test_every_figure_is_told_with_its_file(tmp_path, report):
    for step in (500, 1000):
        write(tmp_path, report(step))
    page.build(tmp_path)
    (run,) = told(tmp_path)["runs"]
    assert [at["step"] for at in run["steps"]] == [500, 1000]
    seen = set()
    for analysis in run["analyses"]:
        for step, versions in analysis["at"].items():
            for place, caption, _values, file, *_drawn in versions:
                key, layer, unit, _probe, _label, first, width, height = analysis["figures"][place]
                path = tmp_path / "analysis" / f"step={int(step):08d}" / analysis["name"] / (file or first)
                assert path.exists()
                (was,) = [f for f in report(int(step)).results[analysis["name"]].figures if f.key == key]
                assert (was.caption, was.layer, was.unit) == (caption, layer, unit)
                assert was.image.shape[:2] == (height, width)
                seen.add((analysis["name"], key, step))
    assert len(seen) == 2 * report(0).figures
    points = {curve["key"]: curve["points"] for curve in run["scalars"]}
    assert points["dead_units/layer1"] == [[500, 0.5], [1000, 1.0]]


def test_names_are_inert_in_both_files(tmp_path):
    image = torch.zeros(2, 2, 3, dtype=torch.uint8)
    run_dir = tmp_path / "<b>&"
    figure = Figure(f"probe-0/{HOSTILE}", image, HOSTILE, probe=0)
    write(run_dir, CheckpointReport(1, {"cam": AnalysisResult([figure], [Scalar(HOSTILE, 1)])}))
    (run_dir / "config.yaml").write_text(f"run: {{name: {json.dumps(HOSTILE)}}}\n")
    index = page.build(run_dir).read_text(encoding="utf-8")
    script = (run_dir / "gallery.js").read_text(encoding="utf-8")
    assert script.isascii() and not set("<>&") & set(script)
    assert told(run_dir)["runs"][0]["analyses"][0]["figures"][0][0] == f"probe-0/{HOSTILE}"
    assert "onerror=alert" not in index and "<title>&lt;b&gt;&amp;</title>" in index

    class Scripts(HTMLParser):
        found = 0

        def handle_starttag(self, tag, _attributes):
            self.found += tag == "script"

    parser = Scripts()
    parser.feed(index)
    assert parser.found == 1  # ours


def test_the_page_asks_nothing_of_the_network(tmp_path):
    index = page.build(tmp_path).read_text(encoding="utf-8")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", index)


def test_metrics_become_curves_in_optimizer_steps(tmp_path):
    rows = [f"{i},{i // 100},{i / 10},{'' if i % 100 != 99 else i}" for i in range(1000)]
    text = "\n".join(["step,epoch,train/loss,val/accuracy", *rows]) + "\n1000,10,nan,\n1001,10,5"  # cut off
    (tmp_path / "metrics.csv").write_text(text)
    metrics = run_data(tmp_path)["metrics"]
    assert metrics["val/accuracy"] == [[i + 1, i] for i in range(99, 1000, 100)]
    loss = metrics["train/loss"]
    assert len(loss) == POINTS and loss[-1][0] == 1000
    assert sum(value for _, value in loss) / POINTS == pytest.approx(49.95, rel=0.01)


def test_a_run_without_anything_has_a_page(tmp_path):
    assert page.build(tmp_path / "new").exists()
    (run,) = told(tmp_path / "new")["runs"]
    assert run["steps"] == [] and run["metrics"] == {} and run["facts"] == []


def test_a_size_that_was_to_be_found_is_told_as_it_was_found(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {name: folder, image_size: 0}\n")
    assert run_data(tmp_path)["facts"] == [["data", "folder"]]
    record = {"facts": {"image size": "32, as the files have it"}, "seconds": 1}
    (tmp_path / "run.json").write_text(json.dumps(record))
    facts = run_data(tmp_path)["facts"]
    assert facts[:2] == [["data", "folder"], ["image size", "32, as the files have it"]]
    assert [name for name, _ in facts].count("image size") == 1


def test_a_failed_analysis_is_told(tmp_path):
    with Store(tmp_path).writing(1, weights="") as writer:
        writer.write("cam", AnalysisResult([], [], 0.1, error="ValueError: no head"))
    page.build(tmp_path)
    assert told(tmp_path)["runs"][0]["steps"][0]["analyses"]["cam"]["error"] == "ValueError: no head"


def test_runs_side_by_side_keep_their_pictures_where_they_are(tmp_path, report):
    for name in ("plain", "robust"):
        write(tmp_path / "runs" / name, report(500))
    index = page.compare([tmp_path / "runs" / "plain", tmp_path / "runs" / "robust"], tmp_path / "both")
    runs = told(index.parent)["runs"]
    assert [run["name"] for run in runs] == ["plain", "robust"]
    for run in runs:
        assert os.path.isdir(index.parent / run["base"] / "analysis")


def test_a_disk_that_refuses_leaves_the_page_that_was(tmp_path, report, monkeypatch, caplog):
    write(tmp_path, report(500))
    was = page.build(tmp_path).read_text()
    write(tmp_path, report(1000))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        page.PageSink(tmp_path).log(CheckpointReport(1000), tmp_path)
    assert "could not be written" in caplog.text
    assert (tmp_path / "index.html").read_text() == was and len(told(tmp_path)["runs"][0]["steps"]) == 1
    assert not list(tmp_path.glob(".*"))
    page.PageSink(tmp_path).close()
    assert len(told(tmp_path)["runs"][0]["steps"]) == 2


@pytest.mark.slow
def test_sixty_checkpoints_are_all_told_of(tmp_path):
    image = torch.zeros(4, 4, 3, dtype=torch.uint8)
    figures = [
        Figure(f"layer{d}/unit-{u:03d}", image, f"layer{d}, unit {u}: a caption", layer=f"layer{d}", unit=u)
        for d in range(5)
        for u in range(16)
    ]
    both = {"examples": AnalysisResult(figures), "features": AnalysisResult(figures)}
    write(tmp_path, CheckpointReport(0, both))
    store = Store(tmp_path)
    for step in range(1, 60):  # as links: the page reads names and sizes, and draws nothing
        folder = store.step_folder(step)
        folder.mkdir()
        complete = json.loads((store.step_folder(0) / "complete.json").read_text())
        (folder / "complete.json").write_text(json.dumps({**complete, "step": step}))
        for name in ("examples", "features"):
            (folder / name).symlink_to(store.step_folder(0) / name, target_is_directory=True)
    page.build(tmp_path)
    assert len(told(tmp_path)["runs"][0]["steps"]) == 60
