"""The LightningModule: any network, any objective; what is logged, what is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from modules.objectives.base import Objective
from modules.optimizers import OptimizerSettings, build
from settings import check

_CHECK_EVERY = 16  # steps between looks at the loss where looking makes the host wait for the device


class NonFiniteLoss(ArithmeticError):
    """The loss is NaN or infinite.

    Attributes:
        step: optimizer steps taken before it.
        indices: of the batch's images in the data set; empty where the batch does not say.
    """

    def __init__(self, step: int, loss: float, indices: list[int]):
        shown = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
        of = f" on the batch of images {shown}" if indices else ""
        super().__init__(
            f"the loss is {loss} at step {step}{of}: lower the learning rate, or look at these images"
        )
        self.step, self.loss, self.indices = step, loss, indices


class Classifier(LightningModule):
    """Trains a network with an objective, and validates it.

    A batch is (images, labels, indices, ...): float [N, C, H, W] in [0, 1], int64 [N], int64 [N]. Logged in
    training: train/loss and train/accuracy, means since they were logged last; in validation, at its end:
        val/accuracy, val/loss
    (cross-entropy), val/ece (15 bins; Guo 2017), val/accuracy_class/<name> for classes that occur.
    `confusion` is then the confusion matrix, int64 [K, K], rows the true classes.

    Args:
        network: of `modules.load_network`.
        objective: see `modules.objectives.base`.
        optimizer: settings of optimizer and schedule.
        classes: class names.
        compile: compile the network, in place.

    Raises:
        ValueError: a network of other classes than these.
        NonFiniteLoss: in training; before the step on a CPU, at most 16 steps late elsewhere.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimizer: OptimizerSettings,
        classes: Sequence[str],
        compile: bool = False,
    ):
        super().__init__()
        spec = getattr(network, "spec", None)
        if spec is not None and spec["classes"] != len(classes):
            raise ValueError(f"classes: {len(classes)} came, the network has {spec['classes']}")
        check(optimizer, "optimizer")
        self.network, self.objective, self.optimizer = network, objective, optimizer
        self.classes = [str(name) for name in classes]
        self.confusion: Tensor | None = None
        if compile:
            network.compile()
        count = len(self.classes)
        self._matrix = MulticlassConfusionMatrix(count, validate_args=False)
        self._calibration = MulticlassCalibrationError(count, n_bins=15, norm="l1", validate_args=False)
        self._loss = MeanMetric(nan_strategy="disable")
        self._extra: dict[str, MeanMetric] = {}
        self._sums: list[Tensor | int] = [0, 0, 0]  # loss times images, correct ones, images
        self._logged = 0  # the step at which the sums were logged
        self._unseen: list[tuple[int, Tensor, Tensor | None]] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = build(self.optimizer, self.network, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # training

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch[0], batch[1]
        loss, logits = self.objective(self.network, images, labels)
        self._watch(loss.detach(), batch[2] if len(batch) > 2 else None)
        with torch.no_grad():
            self._sums[0] += loss.detach() * len(labels)
            self._sums[1] += (logits.detach().argmax(1) == labels).sum()
            self._sums[2] += len(labels)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # self.log costs as much as a small network's step, so it is called where Lightning uses its value
        every = self.trainer.log_every_n_steps
        if not every or self.global_step % every or self.global_step == self._logged:
            return
        loss, correct, images = self._sums
        self._sums, self._logged = [0, 0, 0], self.global_step
        self.log_dict({"train/loss": loss / images, "train/accuracy": correct / images}, prog_bar=True)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        for _ in range(getattr(self.objective, "replays", 1)):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_after_backward(self) -> None:
        if hasattr(self.objective, "after_backward"):
            self.objective.after_backward(self.network)

    def _watch(self, loss: Tensor, indices: Tensor | None) -> None:
        if loss.device.type == "cpu" and math.isfinite(loss.item()):
            return
        self._unseen.append((self.global_step, loss, indices))
        if loss.device.type == "cpu" or len(self._unseen) >= _CHECK_EVERY:
            self._look()

    def _look(self) -> None:
        """Raise NonFiniteLoss for the first of the losses not looked at yet that is not finite."""
        unseen, self._unseen = self._unseen, []
        if not unseen or bool(torch.stack([loss for _, loss, _ in unseen]).isfinite().all()):
            return
        step, loss, indices = next(entry for entry in unseen if not bool(entry[1].isfinite()))
        raise NonFiniteLoss(step, float(loss), [] if indices is None else indices.tolist())

    def on_train_epoch_end(self) -> None:
        self._look()

    # validation

    def on_validation_epoch_start(self) -> None:
        self._look()
        for metric in (self._matrix, self._calibration, self._loss, *self._extra.values()):
            metric.reset()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, labels = batch[0], batch[1]
        logits = self.network(images).float()
        self._matrix.update(logits, labels)
        self._calibration.update(logits.softmax(1), labels)
        self._loss.update(F.cross_entropy(logits, labels, reduction="none"))
        if hasattr(self.objective, "validate"):
            with torch.inference_mode(False), torch.enable_grad():
                more = self.objective.validate(self.network, images.clone(), labels.clone())
            for name, values in more.items():
                metric = self._extra.setdefault(name, MeanMetric(nan_strategy="disable").to(self.device))
                metric.update(values.detach().float())

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        self.confusion = self._matrix.compute().cpu()
        occurring = self.confusion.sum(1)
        correct = self.confusion.diagonal()
        values: dict[str, Any] = {
            "val/accuracy": correct.sum() / occurring.sum(),
            "val/loss": self._loss.compute(),
            "val/ece": self._calibration.compute(),
        }
        self.log_dict(values, prog_bar=True)
        per_class = (correct / occurring).tolist()
        more = {
            f"val/accuracy_class/{n}": a for n, a, o in zip(self.classes, per_class, occurring.tolist()) if o
        }
        more |= {f"val/{name}": metric.compute() for name, metric in self._extra.items()}
        self.log_dict(more)

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._look()
        state = self.objective.state_dict() if hasattr(self.objective, "state_dict") else {}
        checkpoint["vitrine"] = {
            "spec": getattr(self.network, "spec", None),
            "classes": list(self.classes),
            "step": int(checkpoint.get("global_step", 0)),
            "objective": state,
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        if hasattr(self.objective, "load_state_dict"):
            self.objective.load_state_dict(checkpoint["vitrine"]["objective"])
