"""Where the evidence for a class can still be seen as a map: the layer at which Grad-CAM looks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vitrine.analyses.attention import attention_modules
from vitrine.analyses.attention_maps import attention_maps
from vitrine.analyses.hooks import module_at, output_hooks
from vitrine.analyses.layers import last_layers
from vitrine.analyses.layout import Layout, layouts
from vitrine.analyses.structure import PassRelus, forward_on_random_weights
from vitrine.analyses.structure_key import once_a_structure
from vitrine.core.network_scopes import in_eager_eval_mode

LATER_ATTENTIONS = 2  # after more the maps' places are mixed: two blocks may gather them for the head
COLLINEAR = 1e-5  # 1 - |cosine| of two classes' gradients below which they are one but for a factor


class NoSpatialLayer(ValueError):
    """No layer with maps larger than 1 x 1, in which classes differ, gets a gradient of the logits."""


@in_eager_eval_mode
def last_spatial_layer(network: nn.Module, images: Tensor) -> str:
    """The deepest layer that has maps on which the logits depend, each class's in its own way, whatever its
    weights are; sought once a structure, not once a checkpoint.

    That is the last of `last_layers`. A transformer's block ends in a sum that a normalisation rescales, and
    the gradient of such a sum is orthogonal to it: there it is a normalisation inside the last block that
    leads to the logits. Where all blocks attend among the same tokens, it is the one that attention reads,
    whether the head takes a class token or averages patches; else the last, as the first shows the background
    (Swin).

    Args:
        images: [B, C, H, W]; what is in them does not matter.

    Raises:
        NoSpatialLayer: there is none.
    """

    def find() -> str | NoSpatialLayer:
        try:
            return _search(network, images)
        except NoSpatialLayer as error:
            return error

    found = once_a_structure("last spatial layer", network, images, find)
    if isinstance(found, NoSpatialLayer):
        raise NoSpatialLayer(str(found))
    return found


def _search(network: nn.Module, images: Tensor) -> str:
    if not (layers := last_layers(network, images)):
        raise NoSpatialLayer("the network has no layers")
    default = layers[-1]
    attentions, order = attention_modules(network, images)
    for candidate in (
        *_block_norms(network, images, default, attentions, order),
        *_siblings(network, default),
    ):
        later = [name for name in attentions if order.get(name, 0) > order.get(candidate, -1)]
        if len(later) > LATER_ATTENTIONS:
            continue
        layout = _layout(network, images, candidate)
        if layout is not None and _tells_classes_apart(network, images, candidate, layout):
            return candidate
    raise NoSpatialLayer(
        "the logits depend on no layer of which maps larger than 1 x 1 can be told, or no gradient of theirs "
        "flows back to it"
    )


def _siblings(network: nn.Module, layer: str) -> Iterator[str]:
    """The layer, and the modules before it under the same parent, last first."""
    parent, _, last = layer.rpartition(".")
    names = [name for name, _ in (module_at(network, parent) if parent else network).named_children()]
    for name in reversed(names[: names.index(last) + 1]):
        yield f"{parent}.{name}" if parent else name


def _block_norms(
    network: nn.Module, images: Tensor, default: str, attentions: list[str], order: dict[str, int]
) -> Iterator[str]:
    """The normalisations of the network's last blocks with attention, last first, but before them those that
    attention reads where all blocks attend among the same tokens; none where more than a normalisation comes
    after those blocks, nor of blocks that normalise what a branch gives."""
    seen: set[str] = set()
    columnar = _is_columnar(network, images) if attentions else False
    for attention in reversed(attentions):
        block = attention
        while (block := block.rpartition(".")[0]) and not (norms := _norms(network, block)):
            pass
        if not block or block in seen:
            continue
        seen.add(block)
        inside = block == default or block.startswith(f"{default}.") or default.startswith(f"{block}.")
        after = order.get(default, -1) > order.get(block, -1)
        if after and not inside and not _is_norm(module_at(network, default)):
            return
        norms = sorted((norm for norm in norms if norm in order), key=order.get, reverse=True)
        if not _branches_end_in_norms(network, images, block, norms):
            read = [norm for norm in norms if order[norm] < order[attention]] if columnar else []
            yield from dict.fromkeys([*read, *norms])


def _is_columnar(network: nn.Module, images: Tensor) -> bool:
    """Whether all tokens attend to all, in every block the same ones; a class token may attend alone."""
    maps = [a for a in attention_maps(network, images[:1]).values() if a.shape[-2] > 1]
    return all(a.ndim == 4 for a in maps) and len({n for a in maps for n in a.shape[-2:]}) == 1


def _branches_end_in_norms(network: nn.Module, images: Tensor, block: str, norms: list[str]) -> bool:
    """Whether a norm of a block takes what its MLP gives as it is: then norms have seen branches alone, not
    the sum with what passes by them (post-norm, as Swin v2's)."""
    given: list[Tensor] = []
    taken: list[Tensor] = []
    handles = []
    for name, module in module_at(network, block).named_children():
        if f"{block}.{name}" in norms:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _, args, kwargs: taken.append((*args, *kwargs.values())[0]), with_kwargs=True
                )
            )
        elif any(isinstance(inner, nn.Linear) for inner in module.modules()):
            handles.append(
                module.register_forward_hook(lambda _module, _inputs, output: given.append(output))
            )
    try:
        with torch.no_grad():
            network(images[:1].clone())
    finally:
        for handle in handles:
            handle.remove()
    return any(output is x for output in given for x in taken)


def _norms(network: nn.Module, block: str) -> list[str]:
    children = module_at(network, block).named_children()
    return [f"{block}.{name}" for name, module in children if _is_norm(module)]


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower() and all(p.ndim < 2 for p in module.parameters())


def _layout(network: nn.Module, images: Tensor, layer: str) -> Layout | None:
    """The layout of a layer with maps larger than 1 x 1; None of any other."""
    shape: torch.Size

    def record(_layer: str, output: Tensor) -> None:
        nonlocal shape
        shape = layout.maps(output).shape

    try:
        layout = layouts(network, images, [layer])[layer]
        with torch.no_grad(), output_hooks(network, [layer], record, stop=True):
            network(images[:1].clone())
    except ValueError:
        return None
    return layout if shape[-2:].numel() > 1 else None


def _tells_classes_apart(network: nn.Module, images: Tensor, layer: str, layout: Layout) -> bool:
    """Whether the logits depend on a layer's maps, and not all by one and the same combination of them, and
    have a gradient by them.

    A property of the network's structure: its own weights may be zero."""
    images = torch.rand(1, *images.shape[1:], generator=torch.Generator().manual_seed(0)).to(images)

    def logits(change: float) -> Tensor:
        def shift(_layer: str, output: Tensor) -> Tensor:
            output = output.clone()
            maps = layout.maps(output)  # a view
            maps += change * torch.rand(maps.shape, generator=torch.Generator().manual_seed(1)).to(maps)
            return output

        with torch.no_grad(), PassRelus(), output_hooks(network, [layer], shift):
            return forward_on_random_weights(network, images)

    if torch.equal(logits(0), logits(1)):
        return False
    leaf: Tensor

    def replace_by_leaf(_layer: str, output: Tensor) -> Tensor:
        nonlocal leaf
        leaf = output.detach().requires_grad_()
        torch.set_grad_enabled(True)  # until the no_grad around the forward pass ends
        return leaf.clone()

    with torch.no_grad(), PassRelus(), output_hooks(network, [layer], replace_by_leaf):
        scores = forward_on_random_weights(network, images)
        if not scores.requires_grad:
            return False  # computed under no_grad: Grad-CAM would find no gradient
        if scores.shape[1] < 2:
            return True
        options = {"retain_graph": True, "allow_unused": True}
        with torch.enable_grad():  # a no_grad of the network's own has ended with its forward pass
            gradients = [torch.autograd.grad(scores[0, k], leaf, **options)[0] for k in (0, 1)]
    if any(gradient is None for gradient in gradients):
        return False  # from a detached tensor
    first, second = (layout.maps(gradient).flatten().double() for gradient in gradients)
    product = first.norm() * second.norm()
    if not product.isfinite() or product == 0:
        return True  # nothing to compare: a rectified logit, an underflow
    return bool(1 - (first @ second / product).abs() > COLLINEAR)
