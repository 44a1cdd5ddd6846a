"""Occlusion: the fall of a score when a part of the image is covered (Zeiler & Fergus 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrine.analyses.target_scores import class_scores, copy_batches, expect, expect_images
from vitrine.core.network_scopes import in_eager_eval_mode


@in_eager_eval_mode
def occlusion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    of: str = "logit",
    *,
    patch: int,
    stride: int,
    baseline: float = 0.5,
    batch_size: int = 64,
) -> Tensor:
    """How much the score falls when a square is covered (Zeiler & Fergus 2014), each pixel's mean over the
    squares that cover it, [N, H, W]; positive where the image is evidence for the class. With targets
    [T, N], several of each image: [T, N, H, W], from the same passes.

    Args:
        network, images, targets, of: as in `saliency`.
        patch: side of the square, in pixels.
        stride: from one square to the next, in pixels, at most `patch`; the last one ends at the border.
        baseline: the pixel value of the square.
        batch_size: images a pass (at least one copy of the batch).

    Raises:
        ValueError: an argument is not as above.
    """
    expect_images(images)
    height, width = images.shape[-2:]
    expect(1 <= patch <= min(height, width), "patch", patch, f"1 to {min(height, width)} pixels")
    expect(1 <= stride <= patch, "stride", stride, f"1 to {patch} pixels (patch): every pixel is covered")
    squares = _squares(height, width, patch, stride).to(images.device)
    of_each = targets if targets.ndim == 2 else targets[None]
    fall = images.new_zeros(len(of_each), len(images), height, width)
    counts = images.new_zeros(height, width)
    with torch.no_grad():
        logits = network(images.clone())
        whole = [class_scores(logits, own, of) for own in of_each]
        for chunk in copy_batches(len(squares), len(images), batch_size):
            square = squares[chunk]
            covered = torch.where(square[:, None, None], baseline, images)
            logits = network(covered.flatten(0, 1))
            for own, before, sums in zip(of_each, whole, fall):
                scores = class_scores(logits, own.repeat(len(chunk)), of)
                falls = before - scores.unflatten(0, (len(chunk), -1))
                sums += torch.einsum("pn,phw->nhw", falls, square.to(fall))
            counts += square.sum(0)
    return (fall if targets.ndim == 2 else fall[0]) / counts


def _squares(height: int, width: int, patch: int, stride: int) -> Tensor:
    """The masks of the squares, bool [P, H, W]."""

    def starts(size: int) -> list[int]:
        return sorted({*range(0, size - patch + 1, stride), size - patch})

    rows, columns = (
        torch.tensor([[start <= i < start + patch for i in range(size)] for start in starts(size)])
        for size in (height, width)
    )
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)
