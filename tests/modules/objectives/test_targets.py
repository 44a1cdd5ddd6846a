"""Labels that are probabilities, and weights of the classes, in every objective that takes them."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from vitrine.core.settings import SettingError
from vitrine.modules import OBJECTIVES

NAMES = ["a", "b", "c", "d"]
SOFT = [name for name in OBJECTIVES if OBJECTIVES[name].soft_targets]
WEIGHTS = [0.5, 2.0, 1.0, 4.0]


def loss_and_gradients(objective, network, images, labels):
    network = copy.deepcopy(network)
    torch.manual_seed(0)
    loss, _ = objective(network, images, labels)
    return loss, *torch.autograd.grad(loss, list(network.parameters()))


def prepared(name, labels=None, **settings):
    objective = OBJECTIVES[name](**settings)
    objective.prepare(SimpleNamespace(labels=labels), NAMES)
    return objective


def test_all_objectives_but_marts_take_probabilities():
    assert set(OBJECTIVES) - set(SOFT) == {"mart"}


@pytest.mark.parametrize("name", SOFT)
def test_certain_probabilities_are_the_labels_themselves(network, batch, name):
    images, labels = batch
    for settings in ({}, {"label_smoothing": 0.2, "awp": 0.01}):
        hard = loss_and_gradients(OBJECTIVES[name](**settings), network, images, labels)
        one_hot = F.one_hot(labels, 4).float()
        soft = loss_and_gradients(OBJECTIVES[name](**settings), network, images, one_hot)
        for mine, theirs in zip(soft, hard):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*SOFT, "mart"])
def test_the_loss_of_classes_is_weighted_as_by_hand(network, batch, name):
    """With an eps of zero all objectives are the cross-entropy of the images, and mart's has its margin."""
    images, labels = batch
    without_attack = {} if name == "standard" else {"eps": 0.0}
    objective = prepared(name, class_weights=WEIGHTS, label_smoothing=0.1, **without_attack)
    loss, *_ = loss_and_gradients(objective, network, images, labels)
    logits = copy.deepcopy(network)(images)
    weights, log_p = torch.tensor(WEIGHTS), logits.log_softmax(1)
    of_labels = weights[labels].sum()
    target = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
    expected = -(weights * target * log_p).sum() / of_labels
    if name == "mart":
        others = logits.softmax(1).scatter(1, labels[:, None], 0).max(1).values
        expected = expected - (weights[labels] * (1 + 1e-4 - others).log()).sum() / of_labels
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SOFT)
def test_probabilities_with_smoothing_and_weights_are_as_by_hand(network, batch, name):
    images, labels = batch
    share = torch.tensor([0.7, 0.2, 0.5, 1.0, 0.9, 0.1, 0.3, 0.6])[: len(labels), None]
    one_hot = F.one_hot(labels, 4).float()
    targets = share * one_hot + (1 - share) * one_hot.roll(1, 0)
    without_attack = {} if name == "standard" else {"eps": 0.0}
    objective = prepared(name, class_weights=WEIGHTS, label_smoothing=0.1, **without_attack)
    loss, *_ = loss_and_gradients(objective, network, images, targets)
    log_p = copy.deepcopy(network)(images).log_softmax(1)
    expected = -(torch.tensor(WEIGHTS) * (0.9 * targets + 0.1 / 4) * log_p).sum() / len(labels)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_the_attack_of_adversarial_training_raises_the_loss_of_the_probabilities(network, batch):
    images, labels = batch
    targets = (F.one_hot(labels, 4) + F.one_hot(labels.roll(1), 4)) / 2
    network.eval()
    adversarial = OBJECTIVES["pgd"]().attack(network, images, targets)
    before, after = F.cross_entropy(network(images), targets), F.cross_entropy(network(adversarial), targets)
    assert after > before + 0.01


def test_balanced_weights_make_all_classes_weigh_alike():
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 9 + [3])
    weights = prepared("standard", labels, class_weights="balanced").weights
    torch.testing.assert_close(weights * labels.bincount(), torch.full((4,), 25.0))
    assert weights[labels].mean().item() == pytest.approx(1)


class Unread:
    @property
    def labels(self):
        raise AssertionError("labels were read, perhaps all images for them")


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_labels_of_the_split_are_read_for_balanced_weights_alone(weights):
    OBJECTIVES["standard"](class_weights=weights).prepare(Unread(), NAMES)


@pytest.mark.parametrize(
    ("weights", "labels", "problem"),
    [
        ("even", None, "is 'even', expected balanced, null or a list of 4 numbers"),
        ([1.0, 2.0], None, "has 2 numbers, expected 4, in the order of a, b, c, d"),
        ([1.0, -2.0, 1.0, 1.0], None, "is -2.0 for 'b', expected a number of at least 0"),
        ([1.0, float("nan"), 1.0, 1.0], None, "is nan for 'b', expected a number of at least 0"),
        ([1.0, "a", 1.0, 1.0], None, "is 'a' for 'b', expected a number"),
        (True, None, "is True, expected balanced"),
        ({"a": 1.0}, None, "expected balanced, null or a list of 4 numbers"),
        ([0.0] * 4, None, "are all 0"),
        ("balanced", None, "the labels of these data are not known"),
        ("balanced", torch.tensor([0, 0, 3]), "'b' has no training image, nor have 1 other classes"),
    ],
)
def test_weights_that_cannot_be_are_answered_in_one_line(weights, labels, problem):
    with pytest.raises(SettingError, match=problem) as caught:
        prepared("standard", labels, class_weights=weights)
    assert caught.value.key == "objective.class_weights"
