"""The detector of cars as a LightningModule: focal loss for where they are, smooth L1 for the rectangles."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from vitrine.core.settings import setting
from vitrine.lidar.boxes import suppress
from vitrine.lidar.evaluation import Detections, evaluate
from vitrine.lidar.grid import Grid
from vitrine.lidar.network import BirdsEyeNetwork, decode, places
from vitrine.lidar.scanner import Scanner

CANDIDATES = 300  # of a scene, that suppression looks at: the surest


@dataclass(frozen=True)
class DetectorSettings:
    """The network, how it learns, and from when on it calls something a car."""

    width: int = setting(16, "channels of the network where its grid is finest", least=4, most=256)
    lr: float = setting(3e-3, "highest learning rate of AdamW, which rises and falls once", above=0)
    weight_decay: float = setting(0.01, "of AdamW", least=0)
    box_weight: float = setting(1.0, "of the rectangles in the loss, beside 1 of the scores", least=0)
    threshold: float = setting(0.5, "score from which on a rectangle is a detection", above=0, most=1)
    overlap: float = setting(
        0.1, "of two detections that overlap by more than this IoU the surer one stays", least=0, most=1
    )


class Detector(lightning.LightningModule):
    """Finds cars in occupancy [B, Z, X, Y]; its checkpoints hold all that `load_detector` needs."""

    def __init__(
        self,
        settings: DetectorSettings | None = None,
        grid: Grid | None = None,
        scanner: Scanner | None = None,
    ):
        super().__init__()
        self.settings = settings or DetectorSettings()
        self.grid, self.scanner = grid or Grid(), scanner or Scanner()
        self.network = BirdsEyeNetwork(self.grid.slices, self.settings.width)
        self.register_buffer("places", places(self.grid), persistent=False)
        self._found: list[Detections] = []

    def forward(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, X', Y'] and numbers [B, 6, X', Y'], see `network`."""
        return self.network(occupancy)

    def proposals(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """Every rectangle that the network proposes, before suppression: differentiable in the occupancy.

        Args:
            occupancy: [Z, X, Y], or [B, Z, X, Y].

        Returns:
            Scores in [0, 1], [P] or [B, P], and rectangles (see `boxes`), [P, 5] or [B, P, 5].
        """
        batch = occupancy if occupancy.dim() == 4 else occupancy[None]
        logits, numbers = self(batch)
        scores, boxes = logits.sigmoid().flatten(1), decode(numbers, self.places).flatten(1, 2)
        return (scores, boxes) if occupancy.dim() == 4 else (scores[0], boxes[0])

    @torch.no_grad()
    def detect(self, occupancy: Tensor, threshold: float | None = None) -> tuple[Tensor, Tensor]:
        """The cars in a scene [Z, X, Y]: scores [D] from the surest on, and rectangles [D, 5]."""
        scores, boxes = self.proposals(occupancy)
        return self._suppress(scores, boxes, self.settings.threshold if threshold is None else threshold)

    def _suppress(self, scores: Tensor, boxes: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        scores, order = scores.topk(min(CANDIDATES, len(scores)))
        order, scores = order[scores >= threshold], scores[scores >= threshold]
        kept = suppress(boxes[order], scores, self.settings.overlap)
        return scores[kept], boxes[order][kept]

    def loss(self, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch (see `frames.Batch`): of the scores, of the rectangles, and both weighed."""
        logits, numbers = self(batch.occupancy)
        focal = focal_loss(logits, batch.labels)
        car = (batch.labels == 1)[:, None].expand_as(numbers)
        rectangle = F.smooth_l1_loss(numbers[car], batch.numbers[car], beta=0.2, reduction="sum")
        rectangle = rectangle / (batch.labels == 1).sum().clamp(min=1)
        return {"loss": focal + self.settings.box_weight * rectangle, "focal": focal, "rectangle": rectangle}

    def training_step(self, batch: Any, index: int) -> Tensor:
        losses = self.loss(batch)
        self.log("train/loss", losses["loss"], prog_bar=True, batch_size=len(batch.occupancy))
        for name in ("focal", "rectangle"):
            self.log(f"train/{name}", losses[name], batch_size=len(batch.occupancy))
        return losses["loss"]

    def on_validation_epoch_start(self) -> None:
        self._found = []

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/loss", self.loss(batch)["loss"], batch_size=len(batch.occupancy))
        self._found += self.find(batch)

    def find(self, batch: Any) -> list[Detections]:
        """What is found in each scene of a batch from a score of 0.05 on, beside what is there."""
        with torch.no_grad():
            scores, boxes = self.proposals(batch.occupancy)
            found = [self._suppress(s, b, 0.05) for s, b in zip(scores, boxes)]
        return [
            Detections(s.cpu(), b.cpu(), frame.boxes.cpu(), frame.counted.cpu())
            for (s, b), frame in zip(found, batch.frames)
        ]

    def on_validation_epoch_end(self) -> None:
        quality = evaluate(self._found, self.settings.threshold)
        for name in ("recall", "precision", "average_precision"):
            if (value := getattr(quality, name)) is not None:
                self.log(f"val/{name}", value, prog_bar=name == "recall")

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / max(1, steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["detector"] = {
            name: dataclasses.asdict(of)
            for name, of in (("settings", self.settings), ("grid", self.grid), ("scanner", self.scanner))
        }


def one_cycle(progress: float) -> float:
    """The share of the highest learning rate at a share of training: up in a fifth of it, then down."""
    warm = 0.2
    if progress < warm:
        return 0.04 + 0.96 * progress / warm
    return 0.5 * (1 + math.cos(math.pi * min(1, (progress - warm) / (1 - warm))))


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = 0.5, gamma: float = 2) -> Tensor:
    """Focal loss (Lin et al. 2017) of labels 1, 0 and -1 (counts nothing), a car's place."""
    error = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0), reduction="none")
    right = torch.exp(-error)  # the probability of what is so
    share = torch.where(labels == 1, alpha, 1 - alpha)
    return (share * (1 - right) ** gamma * error * (labels >= 0)).sum() / (labels == 1).sum().clamp(min=1)


def load_detector(file: str | Path) -> Detector:
    """The detector of a checkpoint, in eval mode, frozen.

    Raises:
        ValueError: the checkpoint is of something else.
    """
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    made_of = checkpoint.get("detector")
    if made_of is None:
        raise ValueError(f"{file} holds no detector of cars, expected a checkpoint of `vitrine lidar`")
    detector = Detector(
        DetectorSettings(**made_of["settings"]), Grid(**made_of["grid"]), Scanner(**made_of["scanner"])
    )
    detector.load_state_dict(checkpoint["state_dict"])
    return detector.eval().requires_grad_(False)
