"""What a validation measures: of all images, and of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from vitrine.core.class_names import unique_names
from vitrine.modules.calibration import CalibrationError
from vitrine.modules.class_means import class_means

_TOP5_ABOVE = 10  # classes: of ten, five guesses nearly always hold the right one
# of the classes' recall, where there are too many classes for a curve each
_QUANTILES = {"minimum": 0.0, "percentile_10": 0.1, "median": 0.5, "percentile_90": 0.9, "maximum": 1.0}

_OF_CLASS = ("accuracy_class", "worst_classes", "best_classes")


def is_of_class(metric: str) -> bool:
    """Whether "val/accuracy_class/stop", or another, is of one class, of which there are many."""
    return any(part in _OF_CLASS for part in metric.split("/")[:-1])


class ValidationMetrics(nn.Module):
    """accuracy, loss (cross-entropy, without an objective's weights and smoothing), ece (15 bins; Guo 2017),
    macro_accuracy and macro_f1 (every class counts alike), top5_accuracy of more than ten classes; and of the
    classes that occur the recall, accuracy_class/NAME, or of too many classes five quantiles of it,
    class_accuracy/minimum, /percentile_10, /median, /percentile_90 and /maximum, and the lowest and the
    highest, worst_classes/RANK and best_classes/RANK: which classes these are changes, their number does not.

    Args:
        classes: their names; where two have one name, their labels stand behind it.
        class_curves: classes up to which each has a number of its own; of more, half as many of the worst
            and half as many of the best have one.

    Attributes:
        confusion: after `compute`, int64 [K, K], a row for each true class.
    """

    def __init__(self, classes: Sequence[str], class_curves: int = 20):
        super().__init__()
        self.names, self.class_curves = unique_names(classes), class_curves
        count = len(self.names)
        self.matrix = MulticlassConfusionMatrix(count, validate_args=False)
        self.calibration = CalibrationError(count, n_bins=15, validate_args=False)
        self.loss = MeanMetric(nan_strategy="disable")
        self.top5 = MeanMetric() if count > _TOP5_ABOVE else None
        self.more = nn.ModuleDict()  # of the objective
        self.confusion: Tensor | None = None

    def reset(self) -> None:
        top5 = [] if self.top5 is None else [self.top5]
        for metric in (self.matrix, self.calibration, self.loss, *top5, *self.more.values()):
            metric.reset()

    def update(self, logits: Tensor, labels: Tensor, more: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            logits: float [N, K].
            labels: int64 [N].
            more: further values of each image, float [N], by name.
        """
        self.matrix.update(logits, labels)
        self.calibration.update(logits.softmax(1), labels)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))
        if self.top5 is not None:
            self.top5.update((logits.topk(5).indices == labels[:, None]).any(1).float())
        for name, values in more.items():
            if name not in self.more:
                self.more[name] = MeanMetric(nan_strategy="disable").to(logits.device)
            self.more[name].update(values.detach().float())

    def compute(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The main metrics and the others, of all ranks; all of them have to call this."""
        self.confusion = self.matrix.compute().cpu()
        accuracy = self.confusion.diagonal().sum() / self.confusion.sum()
        main = {"accuracy": accuracy, "loss": self.loss.compute(), "ece": self.calibration.compute()}
        more: dict[str, Any] = {}
        if self.each_class:
            more |= {f"accuracy_class/{name}": recall for name, recall in self.recalls().items()}
        elif values := list(self.recalls().values()):
            recalls = torch.tensor(values, dtype=torch.float64)
            more |= {f"class_accuracy/{name}": recalls.quantile(q).item() for name, q in _QUANTILES.items()}
            ascending = recalls.sort().values.tolist()
            worst, best = self._ranked(len(ascending))
            more |= dict(zip(worst, ascending)) | dict(zip(best, reversed(ascending)))
        more |= class_means(self.confusion)
        if self.top5 is not None:
            more["top5_accuracy"] = self.top5.compute()
        return main, more | {name: metric.compute() for name, metric in self.more.items()}

    def recalls(self) -> dict[str, float]:
        """The recall of each class that occurs, by its name; after `compute`."""
        images = self.confusion.sum(1)
        recalls = (self.confusion.diagonal() / images).tolist()
        return {name: recall for name, recall, count in zip(self.names, recalls, images.tolist()) if count}

    @property
    def each_class(self) -> bool:
        """Whether each class has a number of its own."""
        return len(self.names) <= self.class_curves

    def _ranked(self, occurring: int) -> tuple[list[str], list[str]]:
        """The names of the lowest and of the highest recalls, the extreme ones first; no class is in both. A
        rank is called alike however many classes occur."""
        digits = len(str(self.class_curves // 2))
        of = [f"{rank:0{digits}d}" for rank in range(1, min(self.class_curves, occurring) // 2 + 1)]
        return [f"worst_classes/{rank}" for rank in of], [f"best_classes/{rank}" for rank in of]

    def keys(self, labels: Tensor) -> list[str]:
        """The names of what `compute` gives for images of these labels, int64 [N]; those of the objective
        only after a batch."""
        if self.each_class:
            of_classes = [f"accuracy_class/{self.names[label]}" for label in labels.unique().tolist()]
        else:
            worst, best = self._ranked(len(labels.unique()))
            of_classes = [*(f"class_accuracy/{name}" for name in _QUANTILES), *worst, *best]
        means = ["macro_accuracy", "macro_f1", *([] if self.top5 is None else ["top5_accuracy"])]
        return ["accuracy", "loss", "ece", *means, *self.more, *of_classes]
