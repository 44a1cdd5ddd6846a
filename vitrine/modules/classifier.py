"""The LightningModule: trains any network with any objective; logs and saves."""

from __future__ import annotations

import gc
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vitrine.core.class_names import refuse_other_classes
from vitrine.core.settings import check
from vitrine.distributed.ranks import ranks_of_trainer
from vitrine.modules.compilation import compile_network
from vitrine.modules.finite import FiniteLossCheck, NonFiniteWeights, nonfinite_names, world_size
from vitrine.modules.freezing import find_frozen_part
from vitrine.modules.network_record import record_of
from vitrine.modules.objectives.base import Objective
from vitrine.modules.optimizers import OptimizerSettings, build_optimizer
from vitrine.modules.validation_metrics import ValidationMetrics


class Classifier(LightningModule):
    """Trains a network with an objective, and validates it.

    A batch is (images, labels, indices, ...): float [N, C, H, W] in [0, 1], int64 [N], int64 [N].

    In training labels may be probabilities, float32 [N, K], if the objective has `soft_targets`.

    Logged in training: train/loss and train/accuracy, means since they were logged last; of mixed images
    accuracy is as against the class with the larger share. Logged at the end of a validation: what
    `ValidationMetrics` measures, as val/accuracy and so on. The test split is measured in the same way, into
    `test_metrics`.

    Args:
        network: of `modules.load_network`.
        objective: see `modules.objectives.base`.
        optimizer: settings of optimizer and schedule.
        classes: class names.
        compile: compile the network, in place.
        class_curves: classes up to which each has a curve of its own.
        channels_last: hand images to the network with their channels innermost in memory, in which its layers
            then compute too; the network's own weights keep their format.
        freeze: what does not train, see `freezing.find_frozen_part`; None: nothing.
        unfreeze_epoch: the epoch, from 0, from which all of it trains; None: none.

    Raises:
        ValueError: the network has another number of classes.
        SettingError: of model.freeze.
        NonFiniteLoss: in training; before the step in one process on a CPU, at most 16 steps late elsewhere.
            All ranks raise it, whichever rank's loss it was.
        NonFiniteWeights: where a checkpoint of such weights would have been written.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimizer: OptimizerSettings,
        classes: Sequence[str],
        compile: bool = False,
        freeze: str | Sequence[str] | None = None,
        unfreeze_epoch: int | None = None,
        channels_last: bool = False,
        class_curves: int = 20,
    ):
        super().__init__()
        record = record_of(network)
        self._spec = None if record is None else record.spec
        if self._spec is not None and self._spec["classes"] != len(classes):
            raise ValueError(f"classes: {len(classes)} came, the network has {self._spec['classes']}")
        check(optimizer, "optimizer")
        self.network, self.objective, self.optimizer = network, objective, optimizer
        self.classes = [str(name) for name in classes]
        self.metrics = ValidationMetrics(self.classes, class_curves)
        self.test_metrics: dict[str, float | None] = {}
        self.unfreeze_epoch = unfreeze_epoch
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.frozen = None if freeze is None else find_frozen_part(network, freeze, len(self.classes))
        if self.frozen is not None:
            self.frozen.freeze(network)
        if compile:
            compile_network(network)
        self._sums: list[Tensor | int] = [0, 0, 0]  # of losses, of correct predictions, of images
        self._logged_at = 0  # step
        self._resumed_epoch = 0
        self._finite_loss = FiniteLossCheck()
        self._last_indices: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = self.build_optimizer(self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def build_optimizer(self, steps: float) -> tuple[Optimizer, LambdaLR]:
        """Optimizer and scheduler, also of what is frozen now: so a run is resumed before and after that."""
        frozen = () if self.frozen is None else self.frozen.parameters
        return build_optimizer(self.optimizer, self.network, steps, frozen)

    # training

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # not at the start of an epoch, which a run that is resumed within it has behind it
        due = self.unfreeze_epoch is not None and self.current_epoch >= self.unfreeze_epoch
        if due and self.frozen is not None:
            self.frozen.release(self.network)
            self.frozen = None
            _renew_replicas(self.trainer.strategy, self)
            self.print(f"epoch {self.current_epoch}: from here on all of the network trains")

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch[0].to(memory_format=self.memory_format), batch[1]
        if self.frozen is not None:
            self.frozen.keep_statistics(self.network)
        loss, logits = self.objective(self.network, images, labels)
        self._last_indices = batch[2] if len(batch) > 2 else None
        self._finite_loss.add(self.global_step, loss.detach(), self._last_indices)
        with torch.no_grad():
            losses, correct, count = self._sums
            classes = labels.argmax(1) if labels.ndim == 2 else labels
            correct = correct + (logits.detach().argmax(1) == classes).sum()
            self._sums = [losses + loss.detach() * len(labels), correct, count + len(labels)]
        return loss

    def on_train_start(self) -> None:
        # a checkpoint is written before its own step is logged: a run resumed from it logs that step
        if metrics := self._means_to_log():
            values = {name: float(value) for name, value in metrics.items()}
            step = self.global_step - 1  # loggers count from 0
            for logger in self.trainer.loggers:
                logger.log_metrics(values | {"epoch": self._resumed_epoch}, step)
                logger.save()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # self.log costs as much as a small network's step, so it is called where Lightning uses its value
        if metrics := self._means_to_log():
            self.log_dict(metrics, prog_bar=True)

    def _means_to_log(self) -> dict[str, Tensor]:
        """Means of all ranks since they were logged last, at the steps that are logged; else empty."""
        every = self.trainer.log_every_n_steps
        if not every or self.global_step % every or self.global_step == self._logged_at:
            return {}
        loss, correct, images = self._reduced_sums()
        self._sums, self._logged_at = [0, 0, 0], self.global_step
        return {"train/loss": loss / images, "train/accuracy": correct / images} if images else {}

    def _reduced_sums(self) -> list[Tensor | int]:
        """`_sums` added up over the ranks, all of which have to call this."""
        if world_size() == 1:
            return self._sums
        total = torch.stack([torch.as_tensor(s, device=self.device, dtype=torch.float32) for s in self._sums])
        torch.distributed.all_reduce(total)
        return list(total)

    def _sums_by_rank(self) -> list[list[Tensor | int]]:
        """`_sums` of every rank; added up over the ranks here, and over more steps later, they would round
        otherwise than in an uninterrupted run."""
        if world_size() == 1:
            return [[s.cpu() if isinstance(s, Tensor) else s for s in self._sums]]
        own = torch.stack([torch.as_tensor(s, device=self.device, dtype=torch.float32) for s in self._sums])
        every = [torch.empty_like(own) for _ in range(world_size())]
        torch.distributed.all_gather(every, own)
        return [list(sums.cpu()) for sums in every]

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        for _ in range(self.objective.replays):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_after_backward(self) -> None:
        self.objective.after_backward(self.network)

    def on_train_epoch_end(self) -> None:
        self._finite_loss.check_all()

    # validation

    def on_validation_epoch_start(self) -> None:
        self._finite_loss.check_all()
        self.metrics.reset()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        images, labels = batch[0].to(memory_format=self.memory_format), batch[1]
        logits = self.network(images).float()
        with torch.inference_mode(False), torch.enable_grad():
            more = self.objective.validate(self.network, images.clone(), labels.clone())
        self.metrics.update(logits, labels, more)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        values, more = self.metrics.compute()
        self.log_dict({f"val/{name}": value for name, value in values.items()}, prog_bar=True)
        self.log_dict({f"val/{name}": value for name, value in more.items()})

    # test: measured as validation is, and logged nowhere

    def on_test_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        values, more = self.metrics.compute()
        numbers = {f"test/{name}": float(value) for name, value in (values | more).items()}
        self.test_metrics = {name: value if math.isfinite(value) else None for name, value in numbers.items()}

    def validation_metrics(self, labels: Tensor) -> list[str]:
        """The names that a validation logs for images of these labels, int64 [N]; those of the objective only
        after a batch has been validated."""
        return [f"val/{name}" for name in self.metrics.keys(labels)]

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._finite_loss.check_all()
        if names := nonfinite_names(self, checkpoint.get("state_dict", {})):
            indices = [] if self._last_indices is None else self._last_indices.tolist()
            raise NonFiniteWeights(int(checkpoint.get("global_step", 0)), names, indices)
        checkpoint["vitrine"] = {
            "spec": self._spec,
            "classes": list(self.classes),
            "step": int(checkpoint.get("global_step", 0)),
            "objective": self._objective_by_rank(),
            "sums": self._sums_by_rank(),
            "logged": self._logged_at,
        }

    def _objective_by_rank(self) -> dict[str, Any] | list[dict[str, Any]]:
        """The objective's state; of several ranks a list, as each has images and perturbations of its own."""
        state = self.objective.state_dict()
        return state if world_size() == 1 else ranks_of_trainer(self.trainer).all_gather(state)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over what `on_save_checkpoint` saved, each rank its own. With another number of ranks the sums
        go to rank 0, and the states of the objective are assigned in turn."""
        saved = checkpoint.get("vitrine", {})
        refuse_other_classes(self.classes, saved.get("classes"), "the checkpoint")
        self._logged_at = saved.get("logged", self._logged_at)
        sums = saved.get("sums", [])
        if sums and not isinstance(sums[0], list):
            sums = [sums]  # earlier checkpoints have the sums over all ranks
        rank = 0 if world_size() == 1 else torch.distributed.get_rank()
        if len(sums) == world_size():
            self._sums = sums[rank]
        elif rank == 0:
            self._sums = [sum(column) for column in zip(*sums)] or [0, 0, 0]
        self._resumed_epoch = checkpoint.get("epoch", 0)
        states = saved.get("objective", {})
        states = states if isinstance(states, list) else [states]  # of one process; earlier, rank 0's for all
        self.objective.load_state_dict(states[rank % len(states)])


def _renew_replicas(strategy: Any, module: LightningModule) -> None:
    """Let data parallelism average the gradients of parameters that had none when it was set up."""
    if isinstance(strategy, DDPStrategy):
        strategy.model = module
        gc.collect()  # the former wrapper's hooks on the parameters end with it
        strategy.configure_ddp()
