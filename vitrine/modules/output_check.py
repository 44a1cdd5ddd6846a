"""What a network gives, checked once before anything is made."""

from __future__ import annotations

import torch
from torch import nn

from vitrine.core.network_output import NO_LOGITS, as_logits
from vitrine.core.network_scopes import eval_mode
from vitrine.core.references import raised_by


def check_logits(network: nn.Module, classes: int, channels: int, image_size: int) -> None:
    """Run a network on two images, in eval mode; its modes are left as they are.

    Raises:
        ValueError: it does not take such images, or does not give finite logits [2, classes].
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, image_size, image_size, generator=generator)
    parameter = next(network.parameters(), images)
    try:
        with eval_mode(network), torch.no_grad():
            logits = as_logits(network(images.to(parameter.device)))
    except Exception as error:
        if str(error).startswith(NO_LOGITS):
            raise
        size = f"{channels} x {image_size} x {image_size}"
        raise ValueError(f"does not take images of {size} (data.image_size): {raised_by(error)}") from error
    if logits.ndim != 2 or len(logits) != 2:
        raise ValueError(f"gives {list(logits.shape)} for 2 images, expected logits [2, {classes}]")
    if logits.shape[1] != classes:
        problem = f"gives {logits.shape[1]} logits an image, the data have {classes} classes"
        raise ValueError(f"{problem}; has it an option for that? model.options={{NAME: {classes}}}")
    if not logits.isfinite().all():
        raise ValueError("gives logits that are not finite for ordinary images")
