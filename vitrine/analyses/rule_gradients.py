"""Input gradient, guided backprop and deconvnet of the same images from one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn

from vitrine.analyses.gradients import gradient
from vitrine.analyses.relu_rules import ReluRule, SwitchedRelu
from vitrine.analyses.saliency import input_gradient
from vitrine.analyses.target_scores import UnitTarget, class_scores, expect_images, scored, unit_activations
from vitrine.core.network_scopes import in_eager_eval_mode


@in_eager_eval_mode
def rule_gradients(
    network: nn.Module,
    images: Tensor,
    rules: Mapping[str, str],
    targets: Tensor | None = None,
    **unit: Unpack[UnitTarget],
) -> dict[str, Tensor]:
    """What `saliency.input_gradient`, `guided_backprop` and `deconvnet` give, from one forward pass and
    a backward pass each.

    Args:
        rules: "gradient", "guided_backprop" or "deconvnet" -> the score, "logit" or "log_prob"; not of
            units.
        targets: int64 [N]; or several classes of each image, [T, N], and then results are [T, N, C, H, W].
        unit: in place of targets, see `UnitTarget`.

    Raises:
        NoRule (a ValueError): the network has no ReLU, or GELU, SiLU and the like.
        NoGradient (a ValueError): the network lets none flow back.
        ValueError: an argument is not as above.
    """
    expect_images(images)
    if (targets is None) == (not unit):
        raise ValueError("targets: expected class indices, or in their place layer=, unit= (and position=)")
    pixels, switch = images.detach().requires_grad_(), SwitchedRelu()
    with ReluRule(switch) as relus:
        copied = pixels.clone()  # a network may write into its input, which autograd forbids for a leaf
        output = network(copied) if targets is not None else unit_activations(network, copied, **unit)
        if targets is None and not relus.count:  # below the first ReLU; is there one?
            network(images[:1].clone())
    relus.require_relus()
    apart = "gradient" in rules and relus.clamps > 0  # whose own gradient is another than that of a ReLU
    each = [None] if targets is None else targets if targets.ndim == 2 else targets[None]
    found: dict[str, list[Tensor]] = {rule: [] for rule in rules}
    jobs = [(rule, own) for rule in rules for own in each if not (apart and rule == "gradient")]
    for i, (rule, own) in enumerate(jobs):
        switch.backward = rule
        score = (output if own is None else class_scores(output, own, rules[rule])).sum()
        found[rule].append(gradient(score, pixels, scored(**unit), retain_graph=i + 1 < len(jobs)))
    if apart:
        found["gradient"] = [input_gradient(network, images, own, rules["gradient"], **unit) for own in each]
    several = targets is not None and targets.ndim == 2
    return {rule: torch.stack(of) if several else of[0] for rule, of in found.items()}
