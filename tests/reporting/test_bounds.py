"""How much of a deep network dashboards show: no more keys for more layers, units or classes."""

import pytest
import torch

from vitrine.analyses.base import Figure, Scalar, Table
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.reporting import bounds, wandb_sink
from vitrine.reporting.dashboard_table import dashboard_table
from vitrine.reporting.sinks import named_scalars
from vitrine.reporting.tensorboard_sink import TensorBoardSink
from vitrine.reporting.wandb_history import result_keys
from vitrine.runs.store import Store

IMAGE = torch.zeros(2, 2, 3, dtype=torch.uint8)


def deep(layers, units, classes):
    """What techniques yield for a network of so many."""
    names = [f"stage{depth:03d}" for depth in range(layers)]
    of_units = [
        Figure(f"{name}/unit-{unit:03d}", IMAGE, "", layer=name, unit=unit)
        for name in names
        for unit in range(units)
    ]
    curves = [Scalar(f"dead_units/{name}", i / layers, name) for i, name in enumerate(names)]
    of_classes = [Scalar(f"recall/class {i}", i / classes) for i in range(classes)]
    table = Table({"class": [f"class {i}" for i in range(classes)], "recall": [0.5] * classes})
    of_layers = [Figure(name, IMAGE, "", layer=name, table=table) for name in names]
    return {
        "examples": AnalysisResult(of_units, curves, 1.0),
        "confusion": AnalysisResult([Figure("confusion", IMAGE, "", table=table)], of_classes, 1.0),
        "concepts": AnalysisResult(of_layers, [], 1.0),
    }


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """What reaches W&B of a checkpoint with these results: rows by key, and the summary."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "Image", lambda *_, **__: "picture")

    class Run:
        offline, id, disabled = True, "run", False

        def __init__(self):
            self.rows, self.summary = {}, {}

        def log(self, row):
            self.rows |= row

        def update_summary(self, values):
            self.summary |= values

    def log(results, step=1):
        run = Run()
        with Store(tmp_path).writing(step, f"w{step}") as writer:
            for name, result in results.items():
                writer.write(name, result)
        sink = wandb_sink.WandbSink.__new__(wandb_sink.WandbSink)
        sink.run, sink.classes, sink.page, sink.claims = run, [], False, None
        sink.log(CheckpointReport(step, results), Store(tmp_path).step_folder(step))
        return run

    return log


def test_a_dashboard_has_no_more_keys_for_more_layers_and_classes(logged):
    some, many = logged(deep(30, 1, 30)).rows, logged(deep(60, 1, 90)).rows
    assert len(some) == len(many)
    assert len(many) <= 2 * (bounds.CURVES + 3) + 4 * (bounds.LAYERS + 2)


def test_what_is_left_out_is_said(logged):
    run = logged(deep(30, 9, 30))
    said = run.summary["left out"]
    assert "examples: pictures of 18 of 30 layers" in said
    assert "examples: 6 of 30 curves of dead_units" in said
    assert "concepts: 18 of 30 tables" in said
    assert "table of units: 162 of 270 units" in said
    assert "left out" not in logged(deep(3, 2, 4)).summary


def test_of_how_many_classes_there_is_no_curve_is_said():
    ranked = [f"val/{family}_classes/{rank:02d}" for family in ("worst", "best") for rank in range(1, 11)]
    metrics = ["train/loss", "val/accuracy", "val/class_accuracy/median", *ranked]
    (said,) = bounds.left_out_classes(metrics, 1000)
    assert said.startswith("curves of 980 of 1000 classes (the worst 10 and the best 10")
    assert bounds.left_out_classes(["val/accuracy", "val/accuracy_class/stop"], 2) == []


def test_a_table_has_the_rows_first_that_the_page_has_first_and_what_has_changed():
    recalls = [0.75, None, 0.5, 0.25]
    table = Table({"class": ["a", "b", "c", "d"], "images": [4] * 4, "recall": recalls}, "recall")
    before = {"class": ["a", "c", "b"], "recall": [0.5, 0.5, 0.5]}
    columns, rows = dashboard_table(table, before)
    assert columns == ["class", "images", "recall", "change of recall"]
    assert rows == [["d", 4, 0.25, None], ["c", 4, 0.5, 0.0], ["a", 4, 0.75, 0.25], ["b", 4, None, None]]
    assert dashboard_table(table, {})[0] == columns  # at the first checkpoint too
    plain = Table({"class": ["b", "a"], "size": [2, 1]})
    assert dashboard_table(plain, before) == (["class", "size"], [["b", 2], ["a", 1]])


def test_of_two_rows_of_one_name_each_has_its_own_change():
    table = Table({"class": ["crane", "stork", "crane"], "recall": [0.5, 0.25, 0.75]}, "recall")
    before = {"class": ["crane", "crane"], "recall": [0.25, 1.0]}
    rows = dashboard_table(table, before)[1]
    assert rows == [["stork", 0.25, None], ["crane", 0.5, 0.25], ["crane", 0.75, -0.25]]


def test_of_a_table_with_too_many_rows_the_first_and_the_last_are_shown(monkeypatch):
    monkeypatch.setattr(bounds, "ROWS", 5)
    table = Table({"class": list("gfedcba"), "recall": [0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]}, "recall")
    assert [row[0] for row in dashboard_table(table, {})[1]] == list("abcfg")
    results = {"confusion": AnalysisResult([Figure("confusion", IMAGE, "", table=table)], [], 1.0)}
    assert bounds.left_out(results) == ["confusion: 2 of 7 rows of confusion"]


def test_the_change_is_since_the_latest_checkpoint_before(logged):
    def recall(value):
        table = Table({"class": ["a"], "recall": [value]}, "recall")
        return {"confusion": AnalysisResult([Figure("confusion", IMAGE, "", table=table)], [], 1.0)}

    changes = [
        logged(recall(value), step).rows["Classes/confusion table"].data[0][2]
        for step, value in ((1, 0.25), (2, 0.5), (3, 0.375))
    ]
    assert changes == [None, 0.25, -0.125]


def test_what_wandb_is_said_to_have_is_what_it_is_given(logged, tmp_path):
    results = deep(30, 1, 30)
    rows = logged(results).rows
    store = Store(tmp_path)
    keys = set().union(*(result_keys(n, r, store.entries(1, n)) for n, r in store.results(1).items()))
    assert keys == rows.keys() - {"trainer/global_step", "Features/units"}


def test_curves_left_out_are_summed_up_over_all():
    values = {f"dead_units/layer{i}": float(i) for i in range(100)} | {"alarm/odd": 1.0, "entropy": 2.0}
    shown = bounds.shown_curves(values)
    assert shown["dead_units/all/minimum"] == 0 and shown["dead_units/all/maximum"] == 99
    assert shown["dead_units/all/median"] == 49.5
    assert {"dead_units/layer0", "dead_units/layer99", "alarm/odd", "entropy"} <= shown.keys()
    assert len(shown) == bounds.CURVES + 5
    few = {f"dead_units/layer{i}": float(i) for i in range(bounds.CURVES)}
    assert bounds.shown_curves(few) == few


def test_what_is_shown_is_spread_evenly_and_begins_and_ends_with_the_ends():
    assert bounds.evenly(range(100), 12) == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    assert bounds.evenly("abc", 3) == ["a", "b", "c"] and bounds.evenly("abc", 1) == ["a"]
    layers = [None, *(f"layer{i}" for i in range(30))]
    assert bounds.shown_layers(layers)[:2] == [None, "layer0"]
    units = [(f"layer{i}", unit) for i in range(100) for unit in range(64)]
    assert len(bounds.shown_units(units)) == bounds.UNITS
    assert bounds.shown_units(units[:100]) == set(units[:100])


def test_tensorboard_has_as_many():
    class Writer:
        def __init__(self):
            self.images, self.scalars = [], []

        def add_scalar(self, key, *_):
            self.scalars.append(key)

        def add_image(self, key, *_, **__):
            self.images.append(key)

        def flush(self):
            pass

    writer = Writer()
    results = deep(30, 1, 30)
    TensorBoardSink(writer).log(CheckpointReport(1, results), None)
    assert len(writer.images) == 2 * bounds.LAYERS + 1
    assert sorted(writer.scalars) == sorted(key for n, r in results.items() for key in named_scalars(n, r))
