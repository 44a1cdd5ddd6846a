import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassCalibrationError

from vitrine.modules.calibration import CalibrationError, calibration_error


def direct(confidences, correct, bins):
    """Guo et al. (2017), equations 2 to 5, image by image."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, c in enumerate(confidences) if (m - 1) / bins < c <= m / bins]
        if inside:
            accuracy = sum(correct[i] for i in inside) / len(inside)
            confidence = sum(confidences[i] for i in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(accuracy - confidence)
    return total


def test_the_value_of_the_paper_with_confidences_of_exactly_one():
    confidences, correct = [1.0, 1.0, 0.95, 0.9625], [1, 0, 0, 0]
    found = calibration_error(torch.tensor(confidences), torch.tensor(correct), 15).item()
    assert found == pytest.approx(direct(confidences, correct, 15)) == pytest.approx(0.728125)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([i / 16 for i in range(1, 17)]), st.integers(0, 1)), min_size=1))
def test_it_is_the_direct_definition_on_the_edges_of_bins_too(pairs):
    confidences, correct = zip(*pairs)  # sixteenths: exact in float32, and every second is an edge of 8 bins
    found = calibration_error(torch.tensor(confidences), torch.tensor(correct), 8).item()
    assert found == pytest.approx(direct(confidences, correct, 8), abs=1e-6)


def metrics(probabilities, labels):
    ours, theirs = (
        kind(probabilities.shape[1], n_bins=15) for kind in (CalibrationError, MulticlassCalibrationError)
    )
    for p, t in zip(probabilities.split(7), labels.split(7)):
        ours.update(p, t), theirs.update(p, t)
    return ours.compute(), theirs.compute()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_off_the_edges_it_is_torchmetrics_to_the_bit(classes):
    draw = torch.Generator().manual_seed(classes)
    probabilities = (torch.randn(200, classes, generator=draw) * 2).softmax(1)
    ours, theirs = metrics(probabilities, torch.randint(classes, (200,), generator=draw))
    assert torch.equal(ours, theirs)


def test_a_network_that_is_always_certain_is_as_wrong_as_its_errors():
    labels, predicted = torch.arange(40) % 4, torch.arange(40) % 4
    predicted[:10] += 1
    ours, _ = metrics(torch.nn.functional.one_hot(predicted % 4, 4).float(), labels)
    assert ours.item() == pytest.approx(0.25)


def test_classes_that_tie_share_one_confidence():
    ours, _ = metrics(torch.full((30, 3), 1 / 3), torch.arange(30) % 3)  # the first class is predicted
    assert ours.item() == pytest.approx(0.0, abs=1e-6)
