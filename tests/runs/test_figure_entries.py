"""Figures in figures.json: their typed fields, and the files of earlier versions."""

import json
import math

import torch

from vitrine.analyses.base import Figure, Histogram, Turntable
from vitrine.analyses.result import AnalysisResult
from vitrine.runs.store import Store

IMAGE = torch.zeros(2, 2, 3, dtype=torch.uint8)
# as version 0.1 wrote what Examples yields
OLD = {
    "key": "layer1/unit-003",
    "file": "layer1/unit-003.png",
    "caption": "what excites it most",
    "layer": "layer1",
    "unit": 3,
    "probe": None,
    "label": None,
    "values": {
        "activation": 4.0,
        "least": 2.0,
        "class_entropy": 0.5,
        "top_class": 1.0,
        "top_class_share": 0.75,
        "class/no entry": 0.75,
        "class/a/b\nc": 0.25,
        "lowest": -1.0,
        "bin-01": 0.25,
        "bin-02": 0.75,
        "index-1": 7.0,
        "index-2": 3.0,
    },
}


def written(run_dir, *figures):
    with Store(run_dir).writing(1, weights="w") as writer:
        writer.write("examples", AnalysisResult(figures, [], 0.0))
    return Store(run_dir)


def test_typed_fields_come_back_as_they_were(tmp_path):
    figure = Figure(
        "a",
        IMAGE,
        "",
        indices=[5, 2],
        scores=[math.inf, 0.5],
        class_shares={"b": 0.5, "a": 0.5},
        histogram=Histogram(-1.0, 2.0, [0.25, 0.75]),
    )
    store = written(tmp_path, figure)
    (read,) = store.figures(1, "examples")
    assert list(read.indices) == [5, 2] and read.histogram == figure.histogram
    assert list(read.class_shares.items()) == [("b", 0.5), ("a", 0.5)]
    assert math.isnan(read.scores[0]) and read.scores[1] == 0.5  # JSON holds finite numbers only
    (entry,) = store.entries(1, "examples")
    assert entry["histogram"] == {"low": -1.0, "high": 2.0, "shares": [0.25, 0.75]}


def test_a_turntable_comes_back_as_it_was(tmp_path):
    turned = Turntable(["0°", "180°"], {"a": ["x", "y"]}, {"a": [True, False]}, [1, 2], [3, 4], [5, 6])
    (read,) = written(tmp_path, Figure("a", IMAGE, "", turntable=turned)).figures(1, "examples")
    assert read.turntable == turned


def test_tensors_are_taken_as_numbers(tmp_path):
    figure = Figure("a", IMAGE, "", indices=torch.tensor([5, 2]), scores=torch.tensor([1.0, 0.5]))
    (entry,) = written(tmp_path, figure).entries(1, "examples")
    assert (entry["indices"], entry["scores"]) == ([5, 2], [1.0, 0.5])


def test_the_files_of_earlier_versions_are_read(tmp_path):
    store = written(tmp_path, Figure(OLD["key"], IMAGE, ""))
    listing = store.step_folder(1) / "examples" / "figures.json"
    listing.write_text(json.dumps([OLD]))
    (figure,) = store.figures(1, "examples")
    assert figure.values == {"activation": 4.0, "class_entropy": 0.5, "top_class_share": 0.75}
    assert figure.indices == [7, 3] and figure.scores == [4.0, 2.0]
    assert figure.class_shares == {"no entry": 0.75, "a/b\nc": 0.25}
    assert figure.histogram == Histogram(-1.0, 4.0, [0.25, 0.75])
    assert (figure.layer, figure.unit, figure.probe) == ("layer1", 3, None)
