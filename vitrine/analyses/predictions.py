"""What the network says of each image of the data set, without a pass of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.analyses.base import Subject
from vitrine.analyses.examples import dataset_examples
from vitrine.core.network_scopes import eager_eval_mode


def dataset_predictions(subject: Subject) -> tuple[Tensor, Tensor]:
    """The labels [n] and predicted classes [n] of this rank's part of the data set, on the CPU.

    Computed once for all analyses, in the pass that finds the top examples if that is still to come.
    """
    labels: list[Tensor] = []
    predicted: list[Tensor] = []

    def add(logits: Tensor, own: Tensor) -> None:
        labels.append(own.cpu())
        predicted.append(logits.argmax(1).cpu())

    def find() -> tuple[Tensor, Tensor]:
        if subject.layers:
            dataset_examples(subject, on_logits=add)
        own = subject.shard(len(subject.dataset))
        if own and not predicted:  # no layers, or the examples were known
            for images, of in subject.batches("predictions", own):
                with eager_eval_mode(subject.network) as network, torch.no_grad():
                    add(network(images), of)
        empty = torch.zeros(0, dtype=torch.int64)
        return torch.cat([empty, *labels]), torch.cat([empty, *predicted])

    return subject.cached("predictions", find)
