"""The expected calibration error as Guo et al. (2017) define it."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.utilities import dim_zero_cat


class CalibrationError(MulticlassCalibrationError):
    """torchmetrics' expected calibration error (l1), with the paper's bins.

    Its own are closed below, which puts confidences of exactly 1 into a bin of their own (torchmetrics issue
    3510): fully confident predictions then do not average with the others of the last bin.
    """

    def compute(self) -> Tensor:
        return calibration_error(dim_zero_cat(self.confidences), dim_zero_cat(self.accuracies), self.n_bins)


def calibration_error(confidences: Tensor, correct: Tensor, bins: int) -> Tensor:
    """The mean of |accuracy - confidence| over M bins ((m - 1) / M, m / M], weighted by their counts.

    Args:
        confidences: probability of the predicted class, [N].
        correct: whether the prediction is correct, 0 or 1, [N].
    """
    boundaries = torch.linspace(0, 1, bins + 1, dtype=confidences.dtype, device=confidences.device)
    index = (torch.bucketize(confidences, boundaries) - 1).clamp(0, bins - 1)
    zeros = torch.zeros_like(boundaries)
    count = zeros.scatter_add(0, index, torch.ones_like(confidences))
    confidence = torch.where(count > 0, zeros.scatter_add(0, index, confidences) / count, 0)
    accuracy = torch.where(count > 0, zeros.scatter_add(0, index, correct.to(zeros.dtype)) / count, 0)
    return ((accuracy - confidence).abs() * (count / count.sum())).sum()
