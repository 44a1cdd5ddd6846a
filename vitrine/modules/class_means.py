"""Metrics in which every class counts alike, however many images it has, from a confusion matrix."""

from torch import Tensor


def class_means(confusion: Tensor) -> dict[str, Tensor]:
    """Means over classes.

    Args:
        confusion: counts, int64 [K, K], a row for each true class.

    Returns:
        macro_accuracy: of the recall, over the classes that occur (balanced accuracy; Brodersen 2010).
        macro_f1: of F1 = 2 TP / (2 TP + FP + FN), over the classes that occur or are predicted.
    """
    correct, occurring, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    seen, either = occurring > 0, occurring + predicted > 0
    recall = correct[seen] / occurring[seen]
    f1 = 2 * correct[either] / (occurring + predicted)[either]
    return {"macro_accuracy": recall.mean(), "macro_f1": f1.mean()}
