"""One table that outlives a kill."""

import csv

import torch

from vitrine.runs.metrics_csv import MetricsCSV, read_curves, read_rows


def table(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_a_step_and_columns_as_they_come(tmp_path):
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"epoch": 0, "train/loss": torch.tensor(0.5)}, 0)
    logger.log_metrics({"epoch": 0, "train/loss": 0.25}, 1)
    logger.log_metrics({"epoch": 0, "val/accuracy": 0.75}, 1)  # the same step: the same row
    logger.log_metrics({"epoch": 1, "train/loss": 0.125}, 2)
    logger.log_metrics({"epoch": 1, "a, comma": 1}, 2)
    assert table(tmp_path) == [
        {"step": "0", "epoch": "0", "train/loss": "0.5", "val/accuracy": "", "a, comma": ""},
        {"step": "1", "epoch": "0", "train/loss": "0.25", "val/accuracy": "0.75", "a, comma": ""},
        {"step": "2", "epoch": "1", "train/loss": "0.125", "val/accuracy": "", "a, comma": "1"},
    ]


def test_another_start_goes_on_with_the_file(tmp_path):
    for start in (0, 3):
        logger = MetricsCSV(tmp_path)
        for step in range(start, start + 3):
            logger.log_metrics({"loss": step}, step)
    assert [row["loss"] for row in table(tmp_path)] == list("012345")


def test_a_resumed_run_forgets_what_lies_beyond_its_checkpoint(tmp_path):
    logger = MetricsCSV(tmp_path)
    for step in range(6):
        logger.log_metrics({"loss": step}, step)
    resumed = MetricsCSV(tmp_path)
    resumed.rewind(4)
    resumed.log_metrics({"val": 9}, 3)  # joins a row that stayed
    resumed.log_metrics({"loss": "new"}, 4)
    assert [(row["step"], row["loss"]) for row in table(tmp_path)] == [
        ("0", "0"),
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
        ("4", "new"),
    ]
    assert table(tmp_path)[3]["val"] == "9"


def test_a_last_row_that_was_cut_off_is_dropped(tmp_path):
    logger = MetricsCSV(tmp_path)
    for step in range(3):
        logger.log_metrics({"loss": 0.5, "epoch": 0}, step)
    content = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").write_text(content[:-3])
    MetricsCSV(tmp_path).log_metrics({"loss": 0.25, "epoch": 0}, 2)
    assert [row["loss"] for row in table(tmp_path)] == ["0.5", "0.5", "0.25"]


def test_rewinding_where_there_is_no_file_makes_none(tmp_path):
    MetricsCSV(tmp_path).rewind(0)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_read_as_they_were_logged(tmp_path):
    assert read_rows(tmp_path) == []
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"epoch": 0, "a, comma": 0.5}, 0)
    logger.log_metrics({"epoch": 0, "genauigkeit/ä": 1}, 1)
    assert read_rows(tmp_path) == table(tmp_path)
    content = (tmp_path / "metrics.csv").read_bytes()
    for length in range(len(content)):  # a kill cuts anywhere, also inside a character
        (tmp_path / "metrics.csv").write_bytes(content[:length])
        kept = content[:length].count(b"\n") - 1
        assert read_rows(tmp_path) == list(csv.DictReader(content.decode().splitlines()))[: max(kept, 0)]


def test_curves_are_the_finite_numbers_in_optimizer_steps(tmp_path):
    assert read_curves(tmp_path) == {}
    logger = MetricsCSV(tmp_path)
    logger.log_metrics({"epoch": 0, "loss": 0.5}, 9)
    logger.log_metrics({"epoch": 0, "loss": float("nan"), "accuracy": 0.25, "note": "text"}, 19)
    logger.log_metrics({"epoch": 1, "loss": float("inf"), "accuracy": 1}, 29)
    logger.log_metrics({"epoch": 1, "loss": 7})  # at no step
    assert read_curves(tmp_path) == {"loss": [(10, 0.5)], "accuracy": [(20, 0.25), (30, 1.0)]}
