"""The attributions of parts on a network with random weights: a control, the same at all checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrine.analyses.attribution import Effort, attributions, cam_layer, signed_importance
from vitrine.analyses.base import Subject
from vitrine.analyses.part_scores import part_attributions
from vitrine.analyses.randomization import randomized
from vitrine.core.module_copies import tensors_of
from vitrine.core.random_numbers import content_keys, fold_in, hash_seed

KEYS = "keys"


@dataclass(frozen=True)
class Untrained:
    """What is known of a network with random weights and the structure of the subject's.

    Nothing of it depends on what was learned: the weights are a function of structure and seed, and the maps
    are for the true class of a scene and the one after it. So the checkpoint before has it already.
    """

    keys: Tensor  # int64 [N], of the scenes' pixels and all else that the attributions depend on
    known: Mapping[str, Tensor]  # attributions [2, N, P] by technique

    @classmethod
    def of(cls, subject: Subject, name: str, images: Tensor, labels: Tensor, effort: Effort) -> Untrained:
        """What the state of analysis `name` has of these scenes, at the checkpoint before."""
        structure = [(key, *values.shape) for key, values in tensors_of(subject.network).items()]
        settings = hash_seed(repr((structure, effort, subject.seed, cam_layer(subject))).encode())
        keys = fold_in(content_keys(images.cpu()), labels.cpu(), settings)
        before = subject.previous_state.get(name, {})
        same = KEYS in before and torch.equal(before[KEYS], keys)
        return cls(keys, {key: own for key, own in before.items() if key != KEYS} if same else {})

    def attributions(
        self,
        subject: Subject,
        rows: Sequence[int],
        images: Tensor,
        labels: Tensor,
        masks: Tensor,
        names: Sequence[str],
        effort: Effort,
    ) -> dict[str, Tensor]:
        """The attributions of the scenes in some rows by technique, [2, n, P].

        Args:
            images, labels, masks: of these scenes: float [n, C, H, W], int64 [n] and bool [n, P, H, W].
        """
        found = {name: self.known[name][:, list(rows)] for name in names if name in self.known}
        if new := [name for name in names if name not in found]:
            network = randomized(subject.network, subject.seed)
            targets = torch.stack([labels, (labels + 1) % len(subject.classes)])
            maps = attributions(
                network, new, images, targets, cam_layer(subject), effort, log_level=logging.DEBUG
            )
            for name, both in maps.items():
                signed = [signed_importance(name, own).cpu() for own in both]
                found[name] = torch.stack([part_attributions(own, masks) for own in signed])
        return found

    def state(self, of_all: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the next checkpoint is to have: attributions [2, N, P] of all scenes by technique."""
        return {KEYS: self.keys, **of_all}
