"""What was measured on the test split, and which checkpoint it is measured with."""

import pytest
import torch

from vitrine.reporting.page_data import run_data
from vitrine.reporting.ranking import ranking
from vitrine.runs import held_out
from vitrine.runs.checkpoint_files import best_checkpoint

ONE = {
    "weights_hash": "aa",
    "checkpoint": "best.ckpt",
    "chosen": "the best",
    "step": 30,
    "images": 1200,
    "metrics": {"test/accuracy": 0.9125, "test/loss": 0.25, "test/ece": None},
    "classes": [{"name": "cat", "images": 1200, "accuracy": 0.9125}],
    "measured": "2026-01-01T12:00:00+00:00",
}


def test_measurements_are_kept_and_found_by_their_weights(tmp_path):
    assert held_out.read(tmp_path) == [] and held_out.find(tmp_path, "aa") is None
    held_out.add(tmp_path, ONE)
    held_out.add(tmp_path, ONE | {"weights_hash": "bb", "step": 40})
    assert [one["step"] for one in held_out.read(tmp_path)] == [30, 40]
    assert held_out.find(tmp_path, "aa") == ONE
    assert [file.name for file in tmp_path.iterdir()] == ["test.json"]
    said = held_out.describe(ONE)
    assert said == "test accuracy 91.2%, loss 0.25 (1,200 images; best.ckpt, step 30)"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"measurements": [{"step": 1}]}', '{"measurements": 3}'])
def test_a_damaged_file_holds_no_measurement(tmp_path, text):
    (tmp_path / "test.json").write_text(text)
    assert held_out.read(tmp_path) == []


def test_they_stand_apart_in_the_summary_and_on_the_page(tmp_path):
    assert "test/accuracy" not in ranking(tmp_path) and run_data(tmp_path)["tests"] == []
    held_out.add(tmp_path, ONE)
    found = {name: value for name, value in ranking(tmp_path).items() if name.startswith("test/")}
    assert found == {"test/accuracy": 0.9125, "test/loss": 0.25, "test/step": 30}
    data = run_data(tmp_path)
    assert data["tests"] == [ONE] and not data["metrics"]


def write_checkpoint(folder, name, step):
    folder.mkdir(exist_ok=True)
    torch.save({"global_step": step, "state_dict": {}}, folder / name)


def test_the_best_checkpoint_is_that_of_the_monitor_or_of_validation_or_the_last(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    assert best_checkpoint(tmp_path) is None
    for step in (10, 20, 30):
        write_checkpoint(folder, f"step={step:08d}.ckpt", step)
    assert best_checkpoint(tmp_path)[:2] == (30, folder / "step=00000030.ckpt")
    rows = "step,val/accuracy\n9,0.5\n14,0.99\n19,0.75\n29,0.75\n"  # of step 15 there is no checkpoint
    (tmp_path / "metrics.csv").write_text(rows)
    assert best_checkpoint(tmp_path)[:2] == (20, folder / "step=00000020.ckpt")
    write_checkpoint(folder, "best.ckpt", 10)
    assert best_checkpoint(tmp_path)[:2] == (10, folder / "best.ckpt")
    (folder / "best.ckpt").write_bytes(b"damaged")
    assert best_checkpoint(tmp_path)[:2] == (20, folder / "step=00000020.ckpt") and "best.ckpt" in caplog.text
