"""Train a detector of cars in the scans of a simulated LiDAR, and measure it on streets that it has not seen.

    python -m vitrine lidar                                     minutes on two cores; nothing is downloaded
    python -m vitrine lidar configs/lidar.yaml data.train_size=2000 trainer.max_epochs=20
    python -m vitrine lidar run.name=NAME run.resume=true       start a run, or go on where it was cut off

Recipes are merged left to right, then key=value. Writes runs/NAME: index.html, a page with the curves and, at
every checkpoint, what is found in the same streets; config.yaml, metrics.csv (losses; recall, precision and
average precision in validation), checkpoints, and held_out.json.
"""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vitrine import config
from vitrine.callbacks.checkpoints import CheckpointSettings
from vitrine.config import trainer_arguments
from vitrine.config.errors import as_setting_error
from vitrine.core import atomic
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.streets import StreetData, StreetSettings
from vitrine.distributed import interruption
from vitrine.distributed.interruption import Interrupted
from vitrine.lidar.detector import Detector, DetectorSettings
from vitrine.lidar.evaluation import IOU, evaluate, recall_within
from vitrine.lidar.grid import Grid
from vitrine.lidar.scanner import Scanner
from vitrine.runs import run_folders

EPOCHS = 8
# not the precision, which is undefined where nothing is found
MONITORS = ("val/loss", "val/recall", "val/average_precision")
RANGES = ((0, 15), (15, 25), (25, 45))  # metres to the middle of a car


@dataclass
class RunSettings:
    name: str | None = setting(None, "folder of the run below run.root; lidar-detector-time unless given")
    root: str = setting("runs", "where runs are kept")
    seed: int = setting(0, "of the first weights and of the order of the scenes", least=0, most=2**31 - 1)
    resume: bool = setting(False, "go on with the run of this name from its last good checkpoint")
    pictures: int = setting(3, "streets of validation that the page shows at every checkpoint", least=1)


@dataclass
class Settings:
    run: RunSettings = field(default_factory=RunSettings)
    data: StreetSettings = field(default_factory=StreetSettings)
    scanner: Scanner = field(default_factory=Scanner)
    grid: Grid = field(default_factory=Grid)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    trainer: dict[str, Any] = setting(
        {}, f"handed to lightning.Trainer, such as trainer.max_epochs=20 ({EPOCHS} unless given)"
    )

    @property
    def folder(self) -> Path:
        """The run's directory."""
        return Path(self.run.root) / str(self.run.name)


def main(arguments: list[str]) -> None:
    with interruption.handle_signals():
        settings, unnamed = load(arguments)
        try:
            train(settings, arguments, unnamed)
        except Interrupted as interrupted:
            root = [] if settings.run.root == "runs" else [f"run.root={settings.run.root}"]
            words = ["python", "-m", "vitrine", "lidar", *root, f"run.name={settings.run.name}"]
            print(f"to go on: {shlex.join([*words, 'run.resume=true'])}", flush=True)
            raise SystemExit(interrupted.status) from None


def load(arguments: Sequence[str]) -> tuple[Settings, bool]:
    """The settings that recipes and `key=value` arguments give, and whether the run's name is from the clock.

    With run.resume, the run's own config.yaml comes before all others.

    Raises:
        SettingError: a setting is wrong; the run exists already; or no run is named to resume.
    """
    settings = _parse(arguments)
    unnamed = settings.run.name is None
    if settings.run.resume:
        if unnamed:
            known = run_folders.describe_runs(settings.run.root)
            raise SettingError("run.resume", f"needs run.name=NAME; {known}")
        saved = settings.folder / "config.yaml"
        if saved.exists():  # which may have been moved or copied since
            settings = _parse([*arguments, f"run.root={settings.run.root}"], [saved])
    if unnamed:
        settings.run.name = run_folders.default_name("lidar", "detector")
    run_folders.check_name(settings.run.name, settings.run.root)
    if settings.folder.exists() and not (unnamed or settings.run.resume):
        problem = f"{settings.folder} is there already; run.resume=true goes on with it"
        raise SettingError("run.name", f"{problem}, another name starts another")
    return settings, unnamed


def _parse(arguments: Sequence[str], base: Sequence[Path] = ()) -> Settings:
    with as_setting_error("grid"):
        settings = config.parse_settings(Settings, arguments, base)
    if settings.data.nearest >= settings.data.farthest:
        problem = f"is {settings.data.nearest}, expected less than data.farthest={settings.data.farthest}"
        raise SettingError("data.nearest", problem)
    if settings.scanner.lowest >= settings.scanner.highest:
        problem = (
            f"is {settings.scanner.lowest}, expected less than scanner.highest={settings.scanner.highest}"
        )
        raise SettingError("scanner.lowest", problem)
    if (monitor := settings.checkpoint.monitor) not in (None, *MONITORS):
        raise SettingError("checkpoint.monitor", f"is {monitor}, expected one of {', '.join(MONITORS)}")
    trainer_arguments.check(settings.trainer)
    settings.trainer = trainer_arguments.DEFAULTS | {"max_epochs": EPOCHS} | settings.trainer
    return settings


def train(settings: Settings, arguments: Sequence[str], unnamed: bool) -> None:
    """A run, from its settings to its measurement on the scenes held out."""
    from lightning.pytorch import seed_everything

    from vitrine.callbacks.street_pictures import StreetPictures, show_held_out
    from vitrine.runs.checkpoint_files import checkpoint_files, last_good_checkpoint, refuse_other_network
    from vitrine.runs.metrics_csv import MetricsCSV
    from vitrine.runs.run_record import RunRecord, format_duration

    started = time.monotonic()
    seed_everything(settings.run.seed, verbose=False)
    data = StreetData(settings.data, settings.grid, settings.scanner, settings.run.seed)
    detector = Detector(settings.detector, settings.grid, settings.scanner)
    trainer = _build_trainer(settings)
    if trainer.world_size > 1:
        expected = "expected 1: all of a detector's training is in one process"
        raise SettingError("trainer.devices", f"makes {trainer.world_size} processes, {expected}")
    files = checkpoint_files(settings.folder / "checkpoints", newest_first=True)
    for _, file in list(files)[:1] if settings.run.resume else ():
        refuse_other_network(detector.state_dict(), file, "detector")
    # nothing is refused from here on
    folder = run_folders.claim(settings.folder, settings.run.resume, unnamed)
    if folder != settings.folder:
        settings.run.name = folder.name
        trainer = _build_trainer(settings)
    text = OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(settings)))
    atomic.write_text(folder / "config.yaml", text)
    trainer.loggers = [MetricsCSV(folder)]
    parameters = sum(p.numel() for p in detector.parameters())
    print(f"{settings.run.name}: a detector of cars, {parameters:,} parameters, in {folder}")
    sizes = settings.data.train_size, settings.data.val_size
    print(f"{sizes[0]:,} streets to train on, {sizes[1]:,} to validate on: scanning", flush=True)
    found = last_good_checkpoint(folder) if settings.run.resume else None
    if found:
        print(f"going on from {found}")
    facts = {
        "data": f"{sizes[0]:,} streets, scanned by {settings.scanner.beams} beams",
        "network": f"birds-eye, {parameters:,} parameters",
        "learning rate": f"{settings.detector.lr:g}",
    }
    pictures = StreetPictures(folder, data, settings.run.pictures)
    trainer.callbacks.append(pictures)
    with RunRecord(folder, ["-m", "vitrine", "lidar", *arguments], facts):
        trainer.fit(detector, datamodule=data, ckpt_path=found and str(found), weights_only=True)
        trained = time.monotonic() - started
        measured = measure(detector, data)
        atomic.write_json(folder / "held_out.json", measured)
        pictures.update()
        show_held_out(folder, trainer.global_step, detector, measured)
    pictures.update()  # the run's end as well
    print(describe(measured))
    print(f"{trainer.global_step:,} steps in {format_duration(trained)}, scans included: {folder}")
    print(f"the page: {folder / 'index.html'}")


def measure(detector: Detector, data: StreetData) -> dict[str, Any]:
    """How well cars are found in the scenes held out, as held_out.json has it; None for what is undefined."""
    training, threshold = detector.training, detector.settings.threshold
    detector.eval()
    found = [of for batch in data.held_out_dataloader() for of in detector.find(batch)]
    detector.train(training)
    quality = evaluate(found, threshold)
    by_range = {
        f"{near}-{far} m": dict(zip(("recall", "cars"), recall_within(found, threshold, near, far)))
        for near, far in RANGES
    }
    return {
        "scenes": len(found),
        "cars": quality.cars,
        "iou": IOU,
        "threshold": threshold,
        "recall": quality.recall,
        "precision": quality.precision,
        "average_precision": quality.average_precision,
        "recall_by_range": by_range,
    }


def describe(measured: dict[str, Any]) -> str:
    """What was measured on the scenes held out, in two lines."""
    recall, precision, average = (
        "undefined" if (value := measured[name]) is None else f"{value:.1%}"
        for name in ("recall", "precision", "average_precision")
    )
    near = ", ".join(
        f"{name} {part['recall']:.1%} of {part['cars']}"
        for name, part in measured["recall_by_range"].items()
        if part["cars"]
    )
    scenes = f"{measured['cars']:,} cars of {measured['scenes']:,} streets held out"
    at = f"IoU {measured['iou']:g}, score {measured['threshold']:g}"
    return f"{scenes}, {at}: recall {recall}, precision {precision}, AP {average}\nrecall by distance: {near}"


def _build_trainer(settings: Settings) -> Any:
    from lightning.pytorch import Trainer

    from vitrine.assembly.trainers import silence_lightning
    from vitrine.callbacks.checkpoints import model_checkpoints
    from vitrine.callbacks.resume import ExactResume
    from vitrine.callbacks.signals import StopBetweenSteps
    from vitrine.runs.checkpoint_io import AtomicCheckpointIO

    silence_lightning()
    callbacks = [ExactResume(), StopBetweenSteps(), *model_checkpoints(settings.folder, settings.checkpoint)]
    with as_setting_error("trainer"):
        return Trainer(
            **settings.trainer,
            callbacks=callbacks,
            logger=False,  # added once the run's folder exists
            plugins=[AtomicCheckpointIO()],
            default_root_dir=settings.folder,
            use_distributed_sampler=False,
        )
