"""What the parts of a scene do to the logits: scenes drawn without some of them, or with another class's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrine.analyses.base import as_float
from vitrine.core.image_dataset import ImageDataset

BATCH_SIZE = 64  # images of a forward pass


class PartLogits:
    """The logits of scenes without any of their parts, each set of parts drawn and passed through once.

    Args:
        network: in eval mode.
        dataset: one with parts.
        indices: of the scenes, int64 [N].
        device: where the network is.
    """

    def __init__(self, network: nn.Module, dataset: ImageDataset, indices: Tensor, device: torch.device):
        self.network, self.dataset, self.indices, self.device = network, dataset, indices, device
        self._bits = 2 ** torch.arange(len(dataset.parts))
        self._known: dict[tuple[int, int], Tensor] = {}

    def without(self, left_out: Tensor) -> Tensor:
        """The logits [N, ..., K] of the scenes without parts `left_out`, bool [N, ..., P]."""
        codes = (left_out * self._bits).sum(-1)
        wanted = [
            (row, code) for row, own in enumerate(codes.reshape(len(codes), -1).tolist()) for code in own
        ]
        new = [key for key in dict.fromkeys(wanted) if key not in self._known]
        if new:
            rows, sets = torch.tensor(new).unbind(1)
            parts = (sets[:, None] & self._bits) > 0
            images = self.dataset.without_parts(self.indices[rows], parts)
            self._known |= dict(zip(new, self._logits(images)))
        return torch.stack([self._known[key] for key in wanted]).unflatten(0, codes.shape)

    def with_other(self, part: int) -> Tensor:
        """The logits [N, K] of the scenes with a part replaced by that of another class."""
        replaced = torch.zeros(len(self.indices), len(self.dataset.parts), dtype=torch.bool)
        replaced[:, part] = True
        return self._logits(self.dataset.with_other_parts(self.indices, replaced))

    def _logits(self, images: Tensor) -> Tensor:
        # in parts of equal size: convolutions of a single image round differently
        batches = images.tensor_split(-(-len(images) // BATCH_SIZE))
        with torch.no_grad():
            return torch.cat([self.network(as_float(batch.to(self.device))).cpu() for batch in batches])


def drops(logits: Tensor, after: Tensor, targets: Tensor) -> Tensor:
    """By how much the logits of classes fall, [N, P].

    Args:
        logits: of the scenes as they are, [N, K].
        after: of the scenes without each part, or with another class's, [N, P, K].
        targets: int64 [N].
    """
    fall = logits[:, None] - after
    return fall.gather(2, targets[:, None, None].expand(-1, fall.shape[1], 1))[:, :, 0]
