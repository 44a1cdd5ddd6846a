"""A training run of half a second with all in it that can go wrong."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.result import CheckpointReport
from vitrine.callbacks.analyze_run import AnalyzeRun
from vitrine.callbacks.checkpoints import CheckpointSettings, model_checkpoints
from vitrine.callbacks.resume import ExactResume
from vitrine.callbacks.signals import StopBetweenSteps
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.base import DataSettings, ImageDataModule
from vitrine.datamodules.memory import InMemory
from vitrine.examination.examiner import Examiner
from vitrine.examination.settings import AnalysisSettings
from vitrine.runs.checkpoint_files import last_good_checkpoint
from vitrine.runs.checkpoint_io import AtomicCheckpointIO
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.store import Store

warnings.filterwarnings("ignore")
for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)

BATCH = 4


class TinyData(ImageDataModule):
    """Random pictures, brighter for the second class."""

    def __init__(self, steps: int = 4):
        super().__init__(DataSettings(batch_size=BATCH, workers=0, augment=Augment(flip=True)), seed=3)
        self.steps = steps

    def load(self) -> tuple[InMemory, InMemory]:
        self.classes, self.channels, self.image_size = ["dark", "bright"], 3, 8
        return self._draw(self.steps * BATCH, 1), self._draw(8, 2)

    def _draw(self, count: int, seed: int) -> InMemory:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 2
        images = torch.rand(count, 3, 8, 8, generator=generator) * 0.5 + 0.5 * labels.view(-1, 1, 1, 1)
        return InMemory((images * 255).to(torch.uint8), labels)


def tiny_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 2)
    )


def load(file: Path) -> nn.Module:
    state = torch.load(file, weights_only=True)["state_dict"]
    network = tiny_network()
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items()})
    return network.eval()


class TinyModule(lightning.LightningModule):
    """Momentum, a schedule by step, dropout, and noise from every generator: all of it has to be resumed."""

    def __init__(self, raise_at: int | None = None):
        super().__init__()
        self.network, self.raise_at = tiny_network(), raise_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.raise_at is not None and self.global_step == self.raise_at:
            raise ArithmeticError("raised in the midst of a step")
        noise = random.random() + np.random.rand() + torch.rand(())
        loss = F.cross_entropy(self.network(batch.images + 0.01 * noise), batch.labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/accuracy", (self.network(batch.images).argmax(1) == batch.labels).float().mean())

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        steps = max(
            40, self.trainer.estimated_stepping_batches
        )  # makes the loaders before a checkpoint is read
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@dataclass(frozen=True)
class Plain(Analysis):
    """A picture of the first filter, and a curve."""

    seconds: float = 0.0

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        time.sleep(self.seconds)
        shade = float(subject.network[0].weight.detach().flatten()[0].clamp(-1, 1) + 1) / 2
        image = torch.full((4, 4, 3), round(shade * 255), dtype=torch.uint8)
        yield Figure("0/unit-000", image, "a filter", layer="0", unit=0)
        yield Scalar("shade", shade)


@dataclass(frozen=True)
class Nasty(Analysis):
    """Changes all it can reach, and then raises."""

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        network = subject.network
        network.train()
        network.requires_grad_(True)
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        F.cross_entropy(network(subject.probes.images), subject.probes.labels).backward()
        with torch.no_grad():
            network[0].weight.zero_()
        network[0].register_forward_hook(lambda *_: None)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        yield Figure("before", torch.zeros(2, 2, 3, dtype=torch.uint8), "drawn before it failed")
        raise RuntimeError("failed on purpose")


class Sink:
    """Remembers what it is given."""

    def __init__(self):
        self.logged: list[tuple[int, list[str]]] = []

    def log(self, report: CheckpointReport, folder: Path) -> None:
        assert (folder / "complete.json").exists()
        self.logged.append((report.step, sorted(report.results)))


class KillAt(lightning.Callback):
    """SIGKILL to itself at the end of a step; as good as a power cut."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(
    run_dir: Path,
    *,
    steps: int = 4,
    epochs: int = 2,
    checkpoints: CheckpointSettings | None = None,
    analyses: dict[str, Analysis] | None = None,
    settings: AnalysisSettings | None = None,
    sinks: tuple[Any, ...] = (),
    extra: tuple[lightning.Callback, ...] = (),
    raise_at: int | None = None,
    resume: bool = False,
    **trainer: Any,
) -> tuple[TinyModule, AnalyzeRun]:
    lightning.seed_everything(5, verbose=False)
    analyze_run = AnalyzeRun(
        run_dir,
        {"plain": Plain()} if analyses is None else analyses,
        settings or AnalysisSettings(layers=["0"], units=2, probes=3, device="cpu"),
        sinks,
        load=load,
    )
    writing = model_checkpoints(run_dir, checkpoints or CheckpointSettings())
    module = TinyModule(raise_at)
    lightning.Trainer(
        max_epochs=epochs,
        callbacks=[ExactResume(), StopBetweenSteps(), *extra, *writing, analyze_run],
        logger=MetricsCSV(run_dir),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run_dir,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        **trainer,
    ).fit(
        module,
        datamodule=TinyData(steps),
        ckpt_path=last_good_checkpoint(run_dir) if resume else None,
        weights_only=True,
    )
    return module, analyze_run


def examiner(
    run_dir: Path,
    analyses: Mapping[str, Analysis],
    *,
    sinks: Iterable[Any] = (),
    retry: bool = False,
    **how: Any,
) -> Examiner:
    """Of tiny networks; `how`: fields of AnalysisSettings."""
    data = TinyData()
    data.setup()
    settings = AnalysisSettings(**{"layers": ["0"], "units": 2, "probes": 2, **how})
    return Examiner(analyses, data, settings, Store(run_dir), sinks, retry=retry)


def weights(module: nn.Module) -> list[float]:
    return [value for tensor in module.state_dict().values() for value in tensor.flatten().tolist()]


def run(
    run_dir: Path, every_steps: int, kill: int | None = None, seconds: float = 0, resume: bool = False
) -> None:
    """`train`, in a process of its own; its weights end in `run_dir/final.pt`."""
    torch.set_num_threads(1)
    trained, _ = train(
        run_dir,
        checkpoints=CheckpointSettings(every_steps=every_steps),
        analyses={"plain": Plain(seconds=seconds)},
        extra=() if kill is None else (KillAt(kill),),
        resume=resume,
    )
    torch.save(weights(trained), run_dir / "final.pt")
