import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score

from vitrine.modules.class_means import class_means


@pytest.mark.parametrize("absent", [(), (2,), (0, 5)])
def test_means_of_classes_are_those_of_torchmetrics_and_of_a_brute_force(absent):
    generator = torch.Generator().manual_seed(len(absent))
    guesses = torch.randint(6, (80,), generator=generator)
    labels = torch.randint(6, (80,), generator=generator)
    for label in absent:  # never true; 5 is never guessed either
        labels[labels == label] = 1
    if 5 in absent:
        guesses[guesses == 5] = 3
    means = class_means(MulticlassConfusionMatrix(6)(guesses, labels))
    assert means["macro_f1"].item() == pytest.approx(
        MulticlassF1Score(6, average="macro")(guesses, labels).item()
    )
    recalls = [(guesses[labels == k] == k).double().mean().item() for k in labels.unique()]
    assert len(recalls) == 6 - len(absent)
    assert means["macro_accuracy"].item() == pytest.approx(sum(recalls) / len(recalls))


def test_a_rare_class_counts_like_a_common_one():
    means = class_means(torch.tensor([[98, 0], [2, 0]]))  # always the common one
    assert means["macro_accuracy"] == 0.5 and means["macro_f1"] == pytest.approx(0.5 * 2 * 98 / 198)
