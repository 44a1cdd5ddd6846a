"""Class activation maps (Zhou 2016), Grad-CAM (Selvaraju 2017) and variants."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.hooks import output_hooks
from vitrine.analyses.layout import layouts
from vitrine.analyses.pooled_head import pooled_head
from vitrine.core.network_scopes import in_eager_eval_mode


@in_eager_eval_mode
def cam(network: nn.Module, images: Tensor, targets: Tensor | int | None = None) -> Tensor:
    """Class activation maps (Zhou 2016): the last maps weighted as the linear layer weights their averages.

    M_c = sum_k w_k^c A_k, the bias left out: its mean is the logit of c less the bias. No backward pass.

    Args:
        images: [N, C, H, W] in [0, 1].
        targets: class indices [N], or one for all images; None for all classes.

    Returns:
        [N, h, w], or [N, K, h, w] for all classes; signed.

    Raises:
        ValueError: the network does not end in global average pooling and one linear layer (then use
            `grad_cam`), or a target is no class.
    """
    head = pooled_head(network, images)
    if targets is None:
        return torch.einsum("kc,nchw->nkhw", head.weight, head.maps)
    weight = head.weight[_expect_targets(targets, head.logits)]
    return torch.einsum("nc,nchw->nhw", weight, head.maps)


def grad_cam(network: nn.Module, images: Tensor, targets: Tensor | int, layer: str) -> Tensor:
    """Grad-CAM (Selvaraju 2017): a layer's channels weighted by their mean gradients, negative sums cut off.

    alpha_k = mean over space of d z_c / d A_k (before softmax); L = ReLU(sum_k alpha_k A_k). Nothing below
    the layer is computed backwards, and no parameter's gradient.

    Args:
        images: [N, C, H, W] in [0, 1].
        targets: class indices [N], or one for all images.
        layer: dotted name; of a layer with maps, channels-last maps or a token grid.

    Returns:
        [N, h, w], not rescaled.

    Raises:
        UnknownName: there is no such layer.
        NoGradient (a ValueError): the logits depend on the layer, but no gradient flows back to it.
        ValueError: a target is no class, or the logits do not depend on the layer.
    """
    maps, gradients, _ = class_gradients(network, images, targets, layer)
    return torch.einsum("nchw,nc->nhw", maps, gradients.mean((2, 3))).relu()


def grad_cam_pp(network: nn.Module, images: Tensor, targets: Tensor | int, layer: str) -> Tensor:
    """Grad-CAM++ (Chattopadhyay 2018), as `grad_cam`: of positive gradients, each weighted by
    g^2 / (2 g^2 + (sum A) g^3)."""
    maps, g, _ = class_gradients(network, images, targets, layer)
    denominator = 2 * g**2 + maps.sum((2, 3), keepdim=True) * g**3
    alpha = torch.where(denominator != 0, g**2 / denominator, 0)
    return torch.einsum("nchw,nc->nhw", maps, (alpha * g.relu()).sum((2, 3))).relu()


def hires_cam(network: nn.Module, images: Tensor, targets: Tensor | int, layer: str) -> Tensor:
    """HiRes-CAM (Draelos & Carin 2020), as `grad_cam`: ReLU(sum_k of gradient x activation), elementwise."""
    maps, gradients, _ = class_gradients(network, images, targets, layer)
    return (gradients * maps).sum(1).relu()


def layer_cam(network: nn.Module, images: Tensor, targets: Tensor | int, layer: str) -> Tensor:
    """Layer-CAM (Jiang 2021), as `grad_cam`: ReLU(sum_k of positive gradient x activation), elementwise."""
    maps, gradients, _ = class_gradients(network, images, targets, layer)
    return (gradients.relu() * maps).sum(1).relu()


@in_eager_eval_mode
def class_gradients(
    network: nn.Module, images: Tensor, targets: Tensor | int, layer: str
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's maps A [N, C, h, w], the gradients d z_target / d A, and the logits [N, K], in eval mode.

    Below the layer no graph is built; above it only what leads to A is computed backwards.
    """
    layout = layouts(network, images, [layer])[layer]
    leaf: Tensor

    def replace_by_leaf(_layer: str, output: Tensor) -> Tensor:
        nonlocal leaf
        leaf = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until the no_grad around the forward pass ends
        return leaf.clone()  # an in-place ReLU that follows must not write into the leaf

    with torch.no_grad():
        with output_hooks(network, [layer], replace_by_leaf):
            logits = network(images.clone())  # a network may write into its input
        targets = _expect_targets(targets, logits)
        gradient = None
        if logits.requires_grad:
            with torch.enable_grad():  # a no_grad of the network's own has ended with its forward pass
                score = logits.gather(1, targets[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, leaf, allow_unused=True)
    if gradient is None:
        if _depend_on(network, images, layer, logits):
            raise NoGradient("its logits", f"layer {layer!r}")
        raise ValueError(f"the logits do not depend on layer {layer!r}")
    return layout.maps(leaf.detach()), layout.maps(gradient), logits.detach()


def _depend_on(network: nn.Module, images: Tensor, layer: str, logits: Tensor) -> bool:
    """Whether logits become others where the layer's output is changed at random."""

    def change(_layer: str, output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return output + noise.to(output) * output.std().clamp_min(1)

    with torch.no_grad(), output_hooks(network, [layer], change):
        return not torch.equal(network(images.clone()), logits)


def _expect_targets(targets: Tensor | int, logits: Tensor) -> Tensor:
    """Targets as int64 [N] on the logits' device."""
    if logits.ndim != 2:
        raise ValueError(f"network: gives {list(logits.shape)}, expected logits [N, K]")
    n, classes = logits.shape
    targets = torch.as_tensor(targets, device=logits.device)
    targets = targets.expand(n) if targets.ndim == 0 else targets
    if targets.shape != (n,) or targets.is_floating_point():
        raise ValueError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}, "
            f"expected a class index for each of {n} images"
        )
    wrong = targets[(targets < 0) | (targets >= classes)]
    if len(wrong):
        raise ValueError(f"targets hold {wrong[0].item()}, expected classes 0 to {classes - 1}")
    return targets.long()
