"""The pictures of streets say what is found, whatever is missing, and leave training as it was."""

import logging

import pytest
import torch

from vitrine.callbacks.street_pictures import StreetPictures, describe, held_out_figure
from vitrine.datamodules.streets import StreetData, StreetSettings
from vitrine.lidar.detector import Detector, DetectorSettings
from vitrine.lidar.evaluation import Detections
from vitrine.lidar.grid import Grid
from vitrine.lidar.scanner import Scanner
from vitrine.runs.store import Store

CARS = torch.tensor([[10.0, 0, 4, 2, 0], [20.0, 5, 4, 2, 0], [30.0, 5, 4, 2, 0]])
AWAY = torch.tensor([[15.0, -8, 4, 2, 0]])


def detections(scores, boxes, counted=(True, True, False), cars=CARS):
    return Detections(torch.tensor(scores), boxes, cars, torch.tensor(counted[: len(cars)]))


def test_a_caption_tells_what_is_found_by_hand():
    found = detections([0.9, 0.7, 0.3], torch.cat([CARS[:1], AWAY, CARS[1:2]]))
    text = describe(0, found, 0.5)
    assert text.startswith("Street 1 of those to validate on: 1 of 2 cars found with a score of 0.5 or more")
    assert "1 more with too few returns to count" in text and "1 of 2 detections is no car" in text
    assert "2 of 2 cars found" in describe(0, found, 0.2)
    # one with few returns that is found is neither right nor wrong
    assert "no car;" not in describe(0, detections([0.9], CARS[2:]), 0.5)


def test_a_street_without_cars_and_without_detections_is_said_to_be_so():
    nothing = detections([], torch.zeros(0, 5), cars=torch.zeros(0, 5), counted=())
    assert "no car in sight" in describe(1, nothing._replace(counted=torch.zeros(0).bool()), 0.5)


def test_what_is_undefined_is_said_to_be_so():
    measured = {"scenes": 1, "cars": 0, "iou": 0.5, "threshold": 0.5, "recall": None, "precision": None}
    measured |= {"average_precision": None, "recall_by_range": {"0-15 m": {"recall": None, "cars": 0}}}
    figure = held_out_figure(measured)
    assert "recall undefined, precision undefined, AP undefined" in figure.caption
    assert figure.table.columns["recall"] == [None]


@pytest.fixture
def run(tmp_path):
    grid, scanner = Grid(cell=1.0, slices=4), Scanner(beams=16, step=3)
    data = StreetData(StreetSettings(train_size=1, val_size=2), grid, scanner)
    detector = Detector(DetectorSettings(width=4), grid, scanner)
    content = {"state_dict": detector.state_dict(), "global_step": 7}
    detector.on_save_checkpoint(content)
    (tmp_path / "checkpoints").mkdir()
    torch.save(content, tmp_path / "checkpoints" / "step=00000007.ckpt")
    return tmp_path, StreetPictures(tmp_path, data, 1)


@pytest.mark.slow
def test_pictures_change_no_random_number_and_are_made_once(run):
    folder, pictures = run
    before = torch.get_rng_state()
    pictures.update()
    assert torch.equal(before, torch.get_rng_state())
    file = folder / "analysis" / "step=00000007" / "complete.json"
    made = file.stat().st_mtime_ns
    pictures.update()
    assert file.stat().st_mtime_ns == made
    (figure,) = Store(folder).figures(7, "streets")
    assert figure.image.shape[2] == 3 and figure.image.float().std() > 1


def test_what_fails_is_logged_and_training_goes_on(run, caplog):
    folder, pictures = run
    (folder / "checkpoints" / "step=00000007.ckpt").write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        pictures.update()
    assert "the pictures of streets at step 7 could not be made" in caplog.text
    assert Store(folder).steps() == [] and (folder / "index.html").exists()
