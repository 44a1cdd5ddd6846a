"""What each training image does to each probe, by several scores, and to the head as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses.base import Subject
from vitrine.analyses.head import LinearHead, head_inputs
from vitrine.analyses.head_fit import HeadProblem, answers, distilled_targets, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, leave_one_out
from vitrine.analyses.representers import representers
from vitrine.analyses.tracin import cosines, gradient_products
from vitrine.analyses.training_pass import TrainingImages


@dataclass(frozen=True)
class Refit:
    """To what heads are refitted."""

    penalty: float
    on_labels: bool  # the head of the duals, too


@dataclass(frozen=True)
class SeenProbes:
    """What the network's head reads of probes, and what it says."""

    features: Tensor  # float64 [P, D + 1], with a 1 for the bias if the head has one
    labels: Tensor  # int64 [P]; below 0 where unknown
    probabilities: Tensor  # float64 [P, K]

    @property
    def predicted(self) -> Tensor:
        """The most probable class, int64 [P]."""
        return self.probabilities.argmax(1)

    @property
    def targets(self) -> Tensor:
        """The label, or where it is unknown what the network says, int64 [P]."""
        return torch.where(self.labels < 0, self.predicted, self.labels)


@dataclass(frozen=True)
class SampleScores:
    """Scores of the N training images of all ranks, on the CPU; large ones speak for the class."""

    duals: Tensor  # [P, N], what each adds to the logit of the predicted class at the refitted head
    influence: Tensor  # [P, N], by how much that class's loss rises without it
    products: Tensor  # [P, N], of gradients for the probes' own labels, at the network's own head
    nearest: Tensor  # [P, N], cosines of features
    sizes: Tensor  # [N], of the duals
    curvature: Curvature  # at the head refitted to the labels
    agreement: float  # share of images of which the duals' head says the same as the network
    label_agreement: float  # that of the head refitted to the labels


def see_probes(subject: Subject, head: LinearHead, count: int) -> SeenProbes:
    """The first `count` probes."""
    images, labels = subject.probes.images[:count], subject.probes.labels[:count]
    inputs, logits, _ = next(head_inputs(subject.network, head, [(images, labels)]))
    ones = [inputs.new_ones(len(inputs), 1)] if head.bias is not None else []
    return SeenProbes(torch.cat([inputs, *ones], 1).double(), labels, logits.double().softmax(1))


def score_gradients(
    head: LinearHead, seen: TrainingImages, probes: SeenProbes, cosine: bool = False
) -> Tensor:
    """`SampleScores.products` alone, by all ranks together."""
    features, classes = seen.features, len(head.weight)
    by_label = label_targets(seen.labels[seen.own].to(features.device), classes)
    errors = F.one_hot(probes.targets, classes) - probes.probabilities
    own_head = head.augmented.to(features.device)
    products = gradient_products(features, by_label, own_head, probes.features, errors, cosine)
    return features.gather(products.T.float()).T.contiguous()


def score_samples(
    head: LinearHead, seen: TrainingImages, probes: SeenProbes, refit: Refit, cosine: bool = False
) -> SampleScores:
    """All scores of one checkpoint, by all ranks together.

    Args:
        cosine: products of gradients are divided by both norms.

    Raises:
        ValueError: a head cannot be refitted.
    """
    features, classes = seen.features, len(head.weight)
    own_head = head.augmented.to(features.device)
    by_label = label_targets(seen.labels[seen.own].to(features.device), classes)
    to_labels = HeadProblem(features, by_label, refit.penalty)
    problem = (
        to_labels if refit.on_labels else HeadProblem(features, distilled_targets(own_head), refit.penalty)
    )
    weight = fit_head(problem, own_head)
    label_weight = weight if refit.on_labels else fit_head(to_labels, weight)
    found = representers(problem, weight, probes.features, probes.predicted)
    curvature = Curvature.at(to_labels, label_weight)
    predicted = F.one_hot(probes.predicted, classes)
    errors = predicted - (probes.features @ label_weight.T).softmax(1)

    def agreement(weight: Tensor) -> float:
        same = answers(features, weight).cpu() == seen.predicted[seen.own]
        return features.total(same.sum()).item() / features.count

    def gather(scores: Tensor) -> Tensor:
        return features.gather(scores.T.float()).T.contiguous()

    return SampleScores(
        duals=gather(found.values),
        influence=gather(leave_one_out(curvature, probes.features, errors)),
        products=score_gradients(head, seen, probes, cosine),
        nearest=gather(cosines(features, probes.features)),
        sizes=features.gather(found.sizes),
        curvature=curvature,
        agreement=agreement(weight),
        label_agreement=agreement(label_weight),
    )
