"""At every checkpoint of a detector: the same streets held out from training, and what it finds in them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch

from vitrine.analyses.base import Figure
from vitrine.analyses.outputs import Table
from vitrine.analyses.plots import COLOURS, bars
from vitrine.analyses.result import AnalysisResult
from vitrine.datamodules.streets import StreetData
from vitrine.examination.examiner import weights_hash
from vitrine.lidar.detector import Detector, load_detector
from vitrine.lidar.evaluation import Detections, match
from vitrine.lidar.frames import batch_of
from vitrine.lidar.network import places
from vitrine.lidar.scenes import scan_scene
from vitrine.lidar.street_drawing import draw_street
from vitrine.reporting import page
from vitrine.runs.checkpoint_files import checkpoint_files
from vitrine.runs.store import Store

STREETS, HELD_OUT = "streets", "held_out_streets"  # what the page calls these pictures
_log = logging.getLogger(__name__)


class StreetPictures(lightning.Callback):
    """Keeps a run's page: the curves, and for each checkpoint the first streets of validation.

    What is drawn is read from the checkpoints' files, whichever callback wrote them and when: the detector in
    training is not touched, and what a killed run owes is made up for. Never raises: a picture that fails is
    logged, and training goes on.

    Args:
        run_dir: the run's folder.
        data: where the streets are from.
        count: how many are drawn.
    """

    def __init__(self, run_dir: Path, data: StreetData, count: int):
        self.run_dir, self.data, self.count = run_dir, data, count

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.update()  # now the checkpoints of the epoch before are there

    def update(self) -> None:
        """Draw what is missing, and the page."""
        store = Store(self.run_dir)
        for step, file in list(checkpoint_files(self.run_dir / "checkpoints")):
            if step in store.steps():
                continue
            try:
                self._examine(store, step, file)
            except Exception:
                _log.warning("the pictures of streets at step %d could not be made", step, exc_info=True)
        page.PageSink(self.run_dir).close()

    def _examine(self, store: Store, step: int, file: Path) -> None:
        started = time.monotonic()
        with torch.random.fork_rng(devices=[]):  # building a network draws numbers
            detector = load_detector(file)
        result = AnalysisResult()
        for figure in street_figures(detector, self.data, self.count):
            result.add(figure)
        result.seconds = time.monotonic() - started
        with store.writing(step, weights_hash(detector.network)) as writer:
            writer.write(STREETS, result)


def street_figures(detector: Detector, data: StreetData, count: int) -> list[Figure]:
    """The first streets of validation, with what a detector finds in them."""
    found = detector.find(batch_of(data.frames("val")[:count], data.grid, places(data.grid)))
    figures = []
    for number, of in enumerate(found):
        scene = data.scene("val", number)
        points = scan_scene(scene, data.scanner).points
        threshold = detector.settings.threshold
        image = draw_street(scene, points, data.grid, of, threshold)
        figures.append(Figure(f"street-{number + 1}", image, describe(number, of, threshold)))
    return figures


def describe(number: int, found: Detections, threshold: float) -> str:
    """What is there and what is found, in a sentence or two."""
    sure = found.scores >= threshold
    found = found._replace(scores=found.scores[sure], boxes=found.boxes[sure])
    car_of, detection_of = match(found)
    counted, wrong = int(found.counted.sum()), int((car_of < 0).sum())
    hits = int((detection_of[found.counted] >= 0).sum())
    few = len(found.cars) - counted
    cars = f"{hits} of {counted} cars found" if counted else "no car in sight"
    beside = f", {few} more with too few returns to count" if few else ""
    wrongly = f"; {wrong} of {len(car_of)} detections {'is' if wrong == 1 else 'are'} no car" if wrong else ""
    start = f"Street {number + 1} of those to validate on: {cars} with a score of {threshold:g} or more"
    return f"{start}{beside}{wrongly}. True cars are dotted, detections blue with their scores."


def show_held_out(run_dir: Path, step: int, detector: Detector, measured: Mapping[str, Any]) -> None:
    """Add what was measured on the streets held out (the content of held_out.json) to the page, at the step
    at which it was measured. Never raises."""
    try:
        result = AnalysisResult()
        result.add(held_out_figure(measured))
        with Store(run_dir).writing(step, weights_hash(detector.network)) as writer:
            writer.write(HELD_OUT, result)
    except Exception:
        _log.warning("the picture of the streets held out could not be made", exc_info=True)
    page.PageSink(run_dir).close()


def held_out_figure(measured: Mapping[str, Any]) -> Figure:
    """Recall by distance as bars, with all that was measured in the caption and as a table."""
    ranges = {name: of for name, of in measured["recall_by_range"].items() if of["cars"]}
    measures = [
        f"{words} {measured[name]:.1%}" if measured[name] is not None else f"{words} undefined"
        for words, name in (("recall", "recall"), ("precision", "precision"), ("AP", "average_precision"))
    ]
    of = f"{measured['cars']:,} cars of {measured['scenes']:,} streets that it has not seen"
    at = f"IoU {measured['iou']:g}, score {measured['threshold']:g}"
    shares = {name: {"recall": 100 * part["recall"]} for name, part in ranges.items()}
    shares["all"] = {"recall": 100 * (measured["recall"] or 0)}
    return Figure(
        "recall",
        bars(shares, {"recall": COLOURS["pgd"]}, "% of the cars that are found", 100),
        f"{of}, {at}: {', '.join(measures)}.",
        table=Table(
            {
                "cars away": [*ranges, "all"],
                "recall": [*(part["recall"] for part in ranges.values()), measured["recall"]],
                "cars": [*(float(part["cars"]) for part in ranges.values()), float(measured["cars"])],
            }
        ),
    )
