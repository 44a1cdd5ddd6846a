"""Where a network attends: its blocks with attention, and where in the image their tokens are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vitrine.analyses.attention_maps import Attention, attention_hooks, attention_maps
from vitrine.analyses.layout import PREFIX, measured_places, probe
from vitrine.analyses.structure import forward_on_random_weights
from vitrine.core.network_scopes import in_eager_eval_mode


@dataclass(frozen=True, eq=False)
class TokenGrid:
    """Where the tokens of one module's attention are."""

    size: tuple[int, int]  # height and width of the grid that all tokens of all windows form
    cells: Tensor  # int64 [windows, tokens]: the place in the grid, row by row; -1: none (prefix, padding)

    def to_map(self, values: Tensor) -> Tensor:
        """Values of tokens [..., windows, tokens] as maps [..., h, w]."""
        inside = self.cells >= 0
        flat = values.new_zeros(*values.shape[:-2], self.size[0] * self.size[1])
        flat[..., self.cells[inside].to(values.device)] = values[..., inside.to(values.device)]
        return flat.unflatten(-1, self.size)

    def distances(self, image_size: tuple[int, int]) -> Tensor:
        """Distances in pixels between tokens of a window, [windows, tokens, tokens]; NaN outside the grid."""
        cells = self.cells
        rows, columns = cells // self.size[1], cells % self.size[1]
        places = torch.stack(
            [rows * image_size[0] / self.size[0], columns * image_size[1] / self.size[1]], -1
        ).float()
        places[cells < 0] = torch.nan
        return (places[:, :, None] - places[:, None]).norm(dim=-1)


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """A module that attends, and the block that it is in."""

    module: str
    block: str  # the largest module that contains no other attention
    shape: tuple[int, ...]  # (windows,) heads, queries, keys
    grid: TokenGrid | None  # None: queries are not keys (pooled ones, a class token's alone), or unknown

    @property
    def is_global(self) -> bool:
        """Whether all tokens attend to all."""
        return self.grid is not None and len(self.shape) == 3


@dataclass(frozen=True, eq=False)
class AttentionStructure:
    """The blocks of a network with attention, in order."""

    blocks: list[AttentionBlock]
    readers: list[int]  # the prefix tokens that the logits are read from; empty: patch tokens are, too

    @property
    def trunk(self) -> list[AttentionBlock]:
        """The blocks of global attention among the same tokens, of the most frequent number of them."""
        tokens = Counter(block.shape[-1] for block in self.blocks if block.is_global)
        most = max(tokens, key=tokens.get, default=None)
        return [block for block in self.blocks if block.is_global and block.shape[-1] == most]

    @property
    def is_columnar(self) -> bool:
        """Whether all blocks with grids attend globally, among the same tokens."""
        return len(self.trunk) == sum(block.grid is not None for block in self.blocks)

    def spread(self, count: int) -> list[AttentionBlock]:
        """So many blocks with grids, or all, evenly over the depth, with the last."""
        blocks = [block for block in self.blocks if block.grid is not None]
        return [blocks[i] for i in spread(len(blocks), count)]


def spread(depth: int, count: int) -> list[int]:
    """So many of `range(depth)`, or all, evenly spaced, with the last and, of several, the first."""
    return sorted({round(i) for i in np.linspace(depth - 1, 0, min(count, depth)).tolist()})


@in_eager_eval_mode
def attention_structure(network: nn.Module, images: Tensor) -> AttentionStructure:
    """Where the network attends on images of that size; no blocks where it has no attention that can be seen.

    It does not depend on the weights: places are measured as `layout` does, on random ones.

    Args:
        images: [B, C, H, W], a probe; one image is enough.
    """
    shapes = {name: tuple(a.shape[1:]) for name, a in attention_maps(network, images[:1]).items()}
    if not shapes:
        return AttentionStructure([], [])
    grids: dict[str, TokenGrid | None] = {}

    def measure(attention: Attention) -> None:
        grids[attention.module] = _grid(attention, images.shape[-2] / images.shape[-1])

    with attention_hooks(network, measure), _WithoutContext():
        probe(network, images.double(), count=1, noise=1e-6)
    blocks = [
        AttentionBlock(name, _block(name, list(shapes)), shape, grids.get(name))
        for name, shape in shapes.items()
    ]
    return AttentionStructure(blocks, _readers(network, images, blocks))


class _WithoutContext(TorchDispatchMode):
    """Within the scope the mean of a map over space is 0: a squeeze-excitation sees nothing of the image."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name, pooled = func.overloadpacket.__name__, getattr(result, "shape", ())
        if name in ("mean", "_adaptive_avg_pool2d") and len(pooled) == 4 and pooled.count(1) >= 2:
            return torch.zeros_like(result)
        return result


def _grid(attention: Attention, aspect: float) -> TokenGrid | None:
    """The grid of a module's tokens, from their values' response to `probe`."""
    values, (queries, keys) = attention.values, attention.probabilities.shape[-2:]
    if values is None or queries != keys or keys == 1:
        return None
    windows = 1 if values.ndim == 4 else values.shape[1]
    values = values.reshape(len(values), windows, -1, keys, values.shape[-1]).transpose(2, 3).flatten(3)
    return _grid_of_places(measured_places(values.flatten(1, 2)), (windows, keys), aspect)


def _grid_of_places(places: np.ndarray, shape: tuple[int, int], aspect: float) -> TokenGrid | None:
    """The grid whose every cell holds one of the places [windows * tokens, 2] in [-1, 1]; None: none does.

    Tokens that see nothing are in none of its cells; nor are the first, where they gather what others see.
    """
    seeing = np.isfinite(places[:, 0])
    for prefix in range(PREFIX + 1 if shape[0] == 1 else 1):
        inside = np.flatnonzero(seeing & (np.arange(len(places)) >= prefix))
        sizes = [(len(inside) // w, w) for w in range(1, len(inside) + 1) if len(inside) % w == 0]
        for height, width in sorted(sizes, key=lambda size: abs(np.log(size[0] / size[1] / aspect))):
            steps = np.floor((places[inside] + 1) / 2 * (height, width)).clip(0, (height - 1, width - 1))
            cells = (steps[:, 0] * width + steps[:, 1]).astype(np.int64)
            if len(np.unique(cells)) == len(inside):
                found = torch.full((len(places),), -1)
                found[torch.from_numpy(inside)] = torch.from_numpy(cells)
                return TokenGrid((height, width), found.view(shape))
    return None


def _block(module: str, attentions: list[str]) -> str:
    """The largest module with this attention and no other."""
    block = module.partition(":")[0]
    others = [name.partition(":")[0] for name in attentions]
    others = [name for name in others if name != block]
    while (parent := block.rpartition(".")[0]) and not any(o.startswith(f"{parent}.") for o in others):
        block = parent
    return block


def _readers(network: nn.Module, images: Tensor, blocks: list[AttentionBlock]) -> list[int]:
    """The prefix tokens whose attention in the last global block reaches the logits, if no patch's does."""
    last = next((block for block in reversed(blocks) if block.is_global), None)
    if last is None or not (last.grid.cells < 0).any():
        return []
    kept: list[Tensor] = []

    def keep(attention: Attention) -> None:
        if attention.module == last.module:
            kept.append(attention.probabilities)

    with torch.no_grad(), attention_hooks(network, keep, graph=True):
        logits = forward_on_random_weights(network, images[:1])
    if not logits.requires_grad:  # computed under no_grad
        return []
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), kept, allow_unused=True)
    if gradient is None:
        return []
    read = gradient.abs().amax((0, 1, 3)).nonzero()[:, 0].tolist()
    return read if all(last.grid.cells[0, token] < 0 for token in read) else []
