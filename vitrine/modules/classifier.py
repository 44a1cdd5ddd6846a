"""The LightningModule: any network, any objective; what is logged, what is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from vitrine.core.settings import Stopped, check
from vitrine.modules.objectives.base import Objective
from vitrine.modules.optimizers import OptimizerSettings, build

_CHECK_EVERY = 16  # steps between looks at the loss where looking makes the host wait for the device


class NonFinite(Stopped, ArithmeticError):
    """The loss, or the weights, are NaN or infinite.

    Attributes:
        step: optimizer steps taken before it.
        indices: of the batch's images in the data set; empty where the batch does not say.
        loss: what it is; None where it is the weights that are not finite.
    """

    spoiled = True

    def __init__(self, what: str, step: int, indices: Sequence[int], loss: float | None = None):
        shown = ", ".join(map(str, indices[:8])) + (", ..." if len(indices) > 8 else "")
        of = f" on the batch of images {shown}" if indices else ""
        super().__init__(f"{what} at step {step}{of}: lower the learning rate, or look at these images")
        self.step, self.loss, self.indices = step, loss, list(indices)


class NonFiniteLoss(NonFinite):
    """The loss is NaN or infinite."""

    def __init__(self, step: int, loss: float, indices: Sequence[int]):
        super().__init__(f"the loss is {loss}", step, indices, loss)


class NonFiniteWeights(NonFinite):
    """A weight is NaN or infinite, and so the checkpoint that was about to be written is not."""

    def __init__(self, step: int, names: Sequence[str], indices: Sequence[int]):
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        super().__init__(f"{names[0]}{more} is no longer finite", step, indices)


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
        NonFiniteLoss: in training; before the step in one process on a CPU, at most 16 steps late elsewhere.
            All ranks raise it, whoever's loss it was.
        NonFiniteWeights: where a checkpoint of such weights would have been written.
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
        self._epoch = 0  # in which the checkpoint was written that training goes on from
        self._unseen: list[tuple[int, Tensor, Tensor | None]] = []
        self._latest: Tensor | None = None  # indices of the last batch

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = build(self.optimizer, self.network, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # training

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch[0], batch[1]
        loss, logits = self.objective(self.network, images, labels)
        self._latest = batch[2] if len(batch) > 2 else None
        self._watch(loss.detach(), self._latest)
        with torch.no_grad():
            losses, correct, count = self._sums
            correct = correct + (logits.detach().argmax(1) == labels).sum()
            self._sums = [losses + loss.detach() * len(labels), correct, count + len(labels)]
        return loss

    def on_train_start(self) -> None:
        # a checkpoint is written before its own step is logged: whoever goes on from it logs that step
        if metrics := self._since_logged():
            values = {name: float(value) for name, value in metrics.items()}
            for logger in self.trainer.loggers:
                logger.log_metrics(values | {"epoch": self._epoch}, self.global_step - 1)  # they count from 0
                logger.save()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # self.log costs as much as a small network's step, so it is called where Lightning uses its value
        if metrics := self._since_logged():
            self.log_dict(metrics, prog_bar=True)

    def _since_logged(self) -> dict[str, Tensor]:
        """What is to be logged at this step, if anything is: means since it was logged last, of all ranks."""
        every = self.trainer.log_every_n_steps
        if not every or self.global_step % every or self.global_step == self._logged:
            return {}
        loss, correct, images = self._over_ranks()
        self._sums, self._logged = [0, 0, 0], self.global_step
        return {"train/loss": loss / images, "train/accuracy": correct / images} if images else {}

    def _over_ranks(self) -> list[Tensor | int]:
        """`_sums` of all ranks, which come here together."""
        if _ranks() == 1:
            return self._sums
        total = torch.stack([torch.as_tensor(s, device=self.device, dtype=torch.float32) for s in self._sums])
        torch.distributed.all_reduce(total)
        return list(total)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        for _ in range(getattr(self.objective, "replays", 1)):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_after_backward(self) -> None:
        if hasattr(self.objective, "after_backward"):
            self.objective.after_backward(self.network)

    def _watch(self, loss: Tensor, indices: Tensor | None) -> None:
        at_once = loss.device.type == "cpu" and _ranks() == 1  # no waiting for a device, nor for another rank
        if at_once and math.isfinite(loss.item()):
            return
        self._unseen.append((self.global_step, loss, indices))
        if at_once or len(self._unseen) >= _CHECK_EVERY:
            self._look()

    def _look(self) -> None:
        """Raise NonFiniteLoss for the first of the losses not looked at yet that is not finite, of any rank.

        All ranks come here together, and have as many to look at.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        bad = ~torch.stack([loss for _, loss, _ in unseen]).isfinite()
        anywhere = bad.any().to(torch.uint8)
        if _ranks() > 1:
            torch.distributed.all_reduce(anywhere, torch.distributed.ReduceOp.MAX)
        if not bool(anywhere):
            return
        found = [
            (step, float(loss), [] if indices is None else indices.tolist())
            for (step, loss, indices), is_bad in zip(unseen, bad.tolist())
            if is_bad
        ][:1]
        if _ranks() > 1:
            gathered: list[Any] = [None] * _ranks()
            torch.distributed.all_gather_object(gathered, found)
            found = sorted((entry for entries in gathered for entry in entries), key=lambda entry: entry[0])
        raise NonFiniteLoss(*found[0])

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
        if names := self._not_finite(checkpoint.get("state_dict", {})):
            indices = [] if self._latest is None else self._latest.tolist()
            raise NonFiniteWeights(int(checkpoint.get("global_step", 0)), names, indices)
        state = self.objective.state_dict() if hasattr(self.objective, "state_dict") else {}
        checkpoint["vitrine"] = {
            "spec": getattr(self.network, "spec", None),
            "classes": list(self.classes),
            "step": int(checkpoint.get("global_step", 0)),
            "objective": state,
            "sums": [s.cpu() if isinstance(s, Tensor) else s for s in self._over_ranks()],
            "logged": self._logged,
        }

    def _not_finite(self, state: Mapping[str, Any]) -> list[str]:
        """The parameters that are NaN or infinite, and the buffers that are NaN (a mask may hold -inf)."""
        parameters = {name for name, _ in self.named_parameters()}
        floats = {n: t for n, t in state.items() if isinstance(t, Tensor) and t.is_floating_point()}
        bad = {n: (~t.isfinite() if n in parameters else t.isnan()).any() for n, t in floats.items()}
        return [name for name, is_bad in bad.items() if bool(is_bad)]

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        saved = checkpoint.get("vitrine", {})
        self._logged = saved.get("logged", self._logged)
        if _ranks() == 1 or torch.distributed.get_rank() == 0:  # they are of all ranks
            self._sums = saved.get("sums", [0, 0, 0])
        self._epoch = checkpoint.get("epoch", 0)
        if hasattr(self.objective, "load_state_dict"):
            self.objective.load_state_dict(checkpoint["vitrine"]["objective"])


def _ranks() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
