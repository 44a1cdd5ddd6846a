"""What techniques score training images with, for validation images: [m, N], high where for the label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from benchmarks.retraining import Trained, as_pixels, margins
from vitrine.analyses.head import head_inputs, linear_head
from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, distilled_targets, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, leave_one_out
from vitrine.analyses.tracin import cosines, gradient_products
from vitrine.core.image_dataset import ImageDataset

PENALTY = 1e-3
PROJECTED = 256  # dimensions of TRAK's random projection, a quarter of the images; not tuned
_TOGETHER = 64  # images whose gradients are taken at once

Scores = dict[str, Tensor]


@dataclass
class Scored:
    """A network, its training images and the validation images that they are scored for."""

    trained: Trained
    train: ImageDataset
    probes: ImageDataset

    def checkpoints(self) -> Iterator[tuple[float, nn.Module]]:
        """The learning rate and the network of each; then the network is as it was."""
        network = self.trained.network
        last = {name: value.clone() for name, value in network.state_dict().items()}
        for rate, weights in zip(self.trained.rates, self.trained.weights):
            network.load_state_dict(weights)
            yield rate, network
        network.load_state_dict(last)


def read_head(network: nn.Module, split: ImageDataset, first: int | None = None) -> tuple[Tensor, Features]:
    """The augmented head [K, D + 1], float64, and what it reads of a split, or of the `first` of it."""
    count = len(split) if first is None else first
    head = linear_head(network, as_pixels(split, torch.arange(min(8, count))))
    batches = ((as_pixels(split, i), split.labels[i]) for i in torch.arange(count).split(256))
    vectors = torch.cat([vectors for vectors, _, _ in head_inputs(network, head, batches)])
    return head.augmented, Features(vectors, bias=head.bias is not None)


def control_scores(scored: Scored) -> Scores:
    """What needs no more than classes and distances."""
    of_class = (scored.probes.labels[:, None] == scored.train.labels).double()
    _, features = read_head(scored.trained.network, scored.train)
    probes = read_head(scored.trained.network, scored.probes)[1][:]
    pixels = [as_pixels(split).flatten(1).double() for split in (scored.probes, scored.train)]
    pixels = [F.normalize(of - of.mean(1, keepdim=True), dim=1) for of in pixels]
    near = cosines(features, probes)
    draw = torch.Generator().manual_seed(0)
    return {
        "random": torch.rand(near.shape, generator=draw, dtype=torch.float64),
        "same class": of_class,
        "nearest by pixels, of its class": pixels[0] @ pixels[1].T * of_class,
        "nearest by features": near,
        "nearest by features, of its class": near * of_class,
        "nearest by features, other classes against it": near * (2 * of_class - 1),
    }


def head_scores(scored: Scored) -> Scores:
    """What is read off the last layer."""
    network, classes = scored.trained.network, int(scored.train.labels.max()) + 1
    own, features = read_head(network, scored.train)
    probes = read_head(network, scored.probes)[1][:]
    truth = F.one_hot(scored.probes.labels, classes).double()
    of_labels = label_targets(scored.train.labels, classes)
    scores: Scores = {}
    for name, targets in (("own probabilities", distilled_targets(own)), ("labels", of_labels)):
        problem = HeadProblem(features, targets, PENALTY)
        weight = fit_head(problem, own)
        errors = truth - (probes @ weight.T).softmax(1)
        duals = problem.duals(slice(None), features[:], weight)
        scores[f"duals, head refitted on {name}"] = (errors @ duals.T) * (probes @ features[:].T)
        # the network has seen the labels, whatever the head is refitted on
        at_labels = HeadProblem(features, of_labels, PENALTY)
        curvature = Curvature.at(at_labels, weight)
        scores[f"head influence, head refitted on {name}"] = leave_one_out(curvature, probes, errors)
    total = torch.zeros(len(probes), len(features), dtype=torch.float64)
    cosine = total.clone()
    for rate, network in scored.checkpoints():
        weight, features = read_head(network, scored.train)
        probes = read_head(network, scored.probes)[1][:]
        errors = truth - (probes @ weight.T).softmax(1)
        total += rate * gradient_products(features, of_labels, weight, probes, errors, cosine=False)
        cosine += rate * gradient_products(features, of_labels, weight, probes, errors, cosine=True)
    return scores | {"TracInCP, last layer": total, "TracInCP, last layer, cosine": cosine}


def gradient_scores(scored: Scored) -> Scores:
    """What takes the gradient of every weight for every image."""
    total = torch.zeros(len(scored.probes), len(scored.train), dtype=torch.float64)
    for rate, network in scored.checkpoints():
        probes, train = (gradients(network, split, loss) for split in (scored.probes, scored.train))
        total += rate * (probes @ train.T).double()
    return {"TracInCP, all layers": total, "TRAK": trak(scored)}


def trak(scored: Scored, seed: int = 0) -> Tensor:
    """TRAK of one network (Park 2023): least squares on randomly projected gradients of the margin."""
    network = scored.trained.network
    probes, train = (gradients(network, split, margin) for split in (scored.probes, scored.train))
    draw = torch.Generator().manual_seed(seed)
    projection = torch.randn(train.shape[1], PROJECTED, generator=draw) / PROJECTED**0.5
    probes, train = (probes @ projection).double(), (train @ projection).double()
    with torch.no_grad():
        p = network(as_pixels(scored.train)).softmax(1).gather(1, scored.train.labels[:, None])[:, 0]
    return probes @ torch.linalg.solve(train.T @ train, train.T) * (1 - p.double())


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    return margins(logits, labels)[0]


def gradients(network: nn.Module, split: ImageDataset, output) -> Tensor:
    """The gradient of the output for each image of a split with respect to all parameters, [N, P]."""
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    buffers = dict(network.named_buffers())

    def of_one(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return output(functional_call(network, (parameters, buffers), (image[None],)), label[None])

    rows = []
    for images, labels in zip(as_pixels(split).split(_TOGETHER), split.labels.split(_TOGETHER)):
        found = vmap(grad(of_one), in_dims=(None, 0, 0))(parameters, images, labels)
        rows.append(torch.cat([found[name].flatten(1) for name in parameters], 1))
    return torch.cat(rows)
