"""Which image tokens a transformer's class score is from: LeGrad, Chefer's relevance, attention x gradient.

These read the attention probabilities A and the gradient of a score with respect to them; rollout reads A
alone and knows no class. LeGrad, relevance and rollout need attention of all tokens to all in every block:
that of vision transformers, with a class token or with averaged tokens, and whatever other tokens
(distillation, registers) they carry. Attention x gradient is that of the last block, and defined within
windows (Swin), too. Maps show image tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vitrine.analyses.attention_maps import Attention, attention_gradients, attention_hooks
from vitrine.analyses.attention_statistics import attended_maps, rollout_step
from vitrine.analyses.attention_structure import (
    AttentionBlock,
    AttentionStructure,
    TokenGrid,
    attention_structure,
)
from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.hooks import module_at, output_hooks
from vitrine.analyses.target_scores import class_scores, expect_images
from vitrine.core.network_scopes import in_eager_eval_mode


class NoTokenAttention(ValueError):
    """The network has not the attention that a map needs."""


@in_eager_eval_mode
def legrad(network: nn.Module, images: Tensor, targets: Tensor | int) -> Tensor:
    """LeGrad (Bousselham 2024): how far attention to a token raises the class's score, in all blocks.

    The score of a block is the logit that the rest of the network, from behind the last block, gives for the
    mean of the block's tokens (all of them). Its gradient with respect to the block's own attention, negative
    entries cut off, is averaged over heads and queries, then over blocks. One forward and one backward pass.

    Args:
        images: [N, C, H, W] in [0, 1].
        targets: class indices [N], or one for all images.

    Returns:
        [N, h, w], h x w being the grid of image tokens; >= 0, not rescaled.

    Raises:
        NoTokenAttention: attention is not of all tokens to all in every block, or blocks are no modules.
        NoGradient: the logits let none flow back to attention.
        ValueError: images or targets are not as above.
    """
    blocks = _global_blocks(network, images)
    names, (*_, last) = [block.block for block in blocks], blocks
    _expect_modules(network, blocks)
    means: list[Tensor] = []
    maps: list[Tensor] = []

    def cut(name: str, tokens: Tensor) -> Tensor:
        """What goes on knows nothing of the blocks before; behind the last, all blocks' means do."""
        if tokens.ndim != 3 or tokens.shape[1:] != (last.shape[-1], *(means or [tokens])[0].shape[2:]):
            raise NoTokenAttention(
                f"it needs blocks that give {last.shape[-1]} tokens, and {name} gives {list(tokens.shape)}"
            )
        means.append(tokens.mean(1, keepdim=True))
        if name == last.block:
            return torch.cat(means).expand(-1, tokens.shape[1], -1)
        torch.set_grad_enabled(False)  # until the next attention
        return tokens.detach()

    with torch.no_grad():
        watching = attention_hooks(network, lambda a: maps.append(a.probabilities), graph=True)
        with watching, output_hooks(network, names, cut):
            logits = network(images.clone())  # [blocks x N, K]
        targets = torch.as_tensor(targets, device=images.device).expand(len(images))
        with torch.enable_grad():  # a no_grad of the network's own has ended with its forward pass
            score = class_scores(logits, targets.repeat(len(blocks)), "logit").sum()
        if not score.requires_grad:
            raise NoGradient("its logits", "attention")
        found = torch.autograd.grad(score, maps, allow_unused=True)
    gradients = [torch.zeros_like(a) if g is None else g for a, g in zip(maps, found)]
    of_keys = torch.stack([gradient.relu().mean((1, 2)) for gradient in gradients]).mean(0)
    return last.grid.to_map(of_keys[:, None])


@in_eager_eval_mode
def chefer(network: nn.Module, images: Tensor, targets: Tensor | int) -> Tensor:
    """Relevance (Chefer 2021): positive attention x gradient carried through all blocks to the class's logit.

    R <- R + mean over heads of ReLU(A * d logit / d A) R, block by block, from the identity. Read are the
    rows of the tokens that the head reads, see `_of_read_tokens`; the identity itself is left out.

    Arguments, result and what is raised are those of `legrad`; blocks need not be modules.
    """
    (*_, last) = _global_blocks(network, images)
    found = attention_gradients(network, images, targets)
    relevance = identity = torch.eye(last.shape[-1], dtype=images.dtype, device=images.device)
    for a, gradient in zip(found.maps.values(), found.gradients.values()):
        relevance = relevance + (a * gradient).relu().mean(1) @ relevance
    return last.grid.to_map(_of_read_tokens((relevance - identity)[:, None], gradient[:, None], last.grid))


@in_eager_eval_mode
def attention_gradient(network: nn.Module, images: Tensor, targets: Tensor | int) -> Tensor:
    """Attention x gradient in the last block: mean over heads of ReLU(A * d logit / d A), Chefer's last step.

    Read are the rows that `chefer` reads. Arguments, result and what is raised are those of `legrad`, but the
    last attention alone matters, and may be within windows: keys then are relevant to their window's queries.
    """
    (*_, last) = _structure(network, images).blocks
    if last.grid is None:
        raise NoTokenAttention(f"it needs tokens on a grid, and {_problem(last, [])}")
    found = attention_gradients(network, images, targets)
    a, gradient = found.maps[last.module], found.gradients[last.module]
    if a.ndim == 4:
        a, gradient = a[:, None], gradient[:, None]
    return last.grid.to_map(_of_read_tokens((a * gradient).relu().mean(2), gradient, last.grid))


@in_eager_eval_mode
def rollout(network: nn.Module, images: Tensor) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020) to the tokens that the head reads: the same for all classes.

    Arguments, result and what is raised are those of `chefer`.
    """
    (*_, last) = _global_blocks(network, images)
    joint: list[Tensor] = []

    def add(attention: Attention) -> None:
        joint[:] = [rollout_step(joint[0] if joint else None, attention.probabilities)]

    with torch.no_grad(), attention_hooks(network, add):
        network(images.clone())
    return attended_maps(joint[0][:, None], last.grid, _structure(network, images).readers)[:, 0]


def _of_read_tokens(relevance: Tensor, gradient: Tensor, grid: TokenGrid) -> Tensor:
    """The mean of the rows of relevance [N, windows, queries, keys] whose tokens the head reads,
    [N, windows, keys].

    The head reads a token whose query has a gradient [N, windows, heads, queries, keys] in the last
    attention: the class token, or all image tokens, or both. The mean over image tokens counts as one row, as
    each of the other tokens does.
    """
    read = gradient.ne(0).any(4).any(2)[..., None]  # [N, windows, queries, 1]
    of_image = (grid.cells >= 0).to(relevance.device)[..., None]
    image, others = read & of_image, read & ~of_image
    image_row = (image * relevance).sum(2) / image.sum(2).clamp(min=1)
    count = others.sum(2) + image.any(2)
    return ((others * relevance).sum(2) + image_row) / count.clamp(min=1)


_known: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], AttentionStructure]] = WeakKeyDictionary()


def _structure(network: nn.Module, images: Tensor) -> AttentionStructure:
    """Where the network attends, found once a network and size of images.

    Raises:
        NoTokenAttention: nowhere; ValueError: images are none.
    """
    expect_images(images)
    known = _known.setdefault(network, {})
    if images.shape[1:] not in known:
        known[images.shape[1:]] = attention_structure(network, images[:1].clone())
    if not known[images.shape[1:]].blocks:
        raise NoTokenAttention("the network computes no attention")
    return known[images.shape[1:]]


def _global_blocks(network: nn.Module, images: Tensor) -> Sequence[AttentionBlock]:
    """The network's blocks; NoTokenAttention unless all attend from all tokens to all."""
    structure = _structure(network, images)
    trunk = structure.trunk
    for block in structure.blocks:
        if block not in trunk:
            raise NoTokenAttention(f"it needs attention of all tokens to all, and {_problem(block, trunk)}")
    return trunk


def _problem(block: AttentionBlock, trunk: list[AttentionBlock]) -> str:
    """Why a block does not attend from all tokens to all, as those of the trunk do."""
    (*windows, _heads, queries, keys), name = block.shape, block.module or "the network"
    if windows:
        return f"{name} attends within {windows[0]} windows of {keys} tokens"
    if queries != keys:
        return f"{name} attends from {queries} queries to {keys} keys"
    if block.grid is None:
        return f"{name} attends among {keys} tokens that lie in no grid that can be told"
    return f"{name} attends among {keys} tokens, others among {trunk[0].shape[-1]}"


def _expect_modules(network: nn.Module, blocks: Sequence[AttentionBlock]) -> None:
    """Raise NoTokenAttention unless each block is a module with a forward pass of its own, used once."""
    for block in blocks:
        module = module_at(network, block.block) if block.block else network
        if not block.block or ":" in block.module or isinstance(module, nn.ModuleList | nn.ModuleDict):
            raise NoTokenAttention(
                "it needs blocks that are modules of their own, and around "
                f"{block.module or 'the attention of the network'} there is none"
            )
