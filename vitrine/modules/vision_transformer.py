"""Vision transformers: a small one of our own for small images, and torchvision's by its options."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.modules.surgery import set_input_channels

POOLINGS = ("mean", "class")
_DEVIATION = 0.02  # of the initial weights


class StochasticDepth(nn.Module):
    """In training, a residual branch is left out for a random part of the images (Huang 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)


class Attention(nn.Module):
    """Self-attention of several heads, by PyTorch's fused operation."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers on each token, a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Attention and a feed-forward, each after a normalisation and added to its input (pre-norm)."""

    def __init__(self, width: int, heads: int, hidden: int, drop_rate: float):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), FeedForward(width, hidden)
        self.drop = StochasticDepth(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class SmallVisionTransformer(nn.Module):
    """A vision transformer (Dosovitskiy 2021) for images of 32 to 64 pixels.

    The position embeddings are learned, from the sines and cosines of Beyer 2022, and belong to one image
    size; weights of another are interpolated when they are loaded.

    Args:
        image_size: side of the images, in pixels; a multiple of `patch_size`.
        patch_size: side of a patch, in pixels.
        width: channels of a token.
        depth: blocks.
        heads: of attention; they divide `width`.
        mlp_ratio: hidden units of a feed-forward, as a multiple of `width`.
        registers: tokens besides those of patches, which hold nothing of the image (Darcet 2024).
        pooling: "mean" of the patches' tokens, or a "class" token of its own.
        stochastic_depth: rate at which the last block's branches are left out; the others' rise to it.
        conv_stem: convolutions of stride 2 in place of one as wide as its stride (Xiao 2021).
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        channels: int = 3,
        patch_size: int = 4,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        registers: int = 0,
        pooling: str = "mean",
        stochastic_depth: float = 0.0,
        conv_stem: bool = False,
    ):
        super().__init__()
        _check_sizes(image_size, patch_size, width, depth, heads, mlp_ratio, registers)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"stochastic_depth is {stochastic_depth}, expected at least 0 and below 1")
        if conv_stem and (patch_size < 2 or patch_size & (patch_size - 1)):
            raise ValueError(f"conv_stem: patch_size is {patch_size}, expected a power of 2")
        self.image_shape, self.pooling = (channels, image_size, image_size), pooling
        side = image_size // patch_size
        stem = _conv_stem if conv_stem else _patches
        self.patch_embed = stem(channels, width, patch_size)
        self.prefix = registers + (pooling == "class")  # tokens before the patches', the class token first
        if self.prefix:
            self.prefix_tokens = nn.Parameter(torch.empty(1, self.prefix, width))
        self.pos_embed = nn.Parameter(sines_and_cosines(side, width)[None])
        rates = [stochastic_depth * i / max(depth - 1, 1) for i in range(depth)]
        hidden = round(mlp_ratio * width)
        self.blocks = nn.Sequential(*(Block(width, heads, hidden, rate) for rate in rates))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_DEVIATION)
                nn.init.zeros_(module.bias)
        if self.prefix:
            nn.init.trunc_normal_(self.prefix_tokens, std=_DEVIATION)

    def forward(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images are {list(images.shape[1:])}, expected {list(self.image_shape)}")
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        if self.prefix:
            x = torch.cat([self.prefix_tokens.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0] if self.pooling == "class" else x[:, self.prefix :].mean(1))


def vit(
    num_classes: int,
    image_size: int,
    channels: int = 3,
    patch_size: int = 16,
    hidden_dim: int = 192,
    num_layers: int = 12,
    num_heads: int = 3,
    mlp_dim: int | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> nn.Module:
    """torchvision's `VisionTransformer` of any size; by default DeiT-Tiny (Touvron 2021). `mlp_dim` is four
    times `hidden_dim` unless given."""
    _check_sizes(image_size, patch_size, hidden_dim, num_layers, num_heads)
    from torchvision.models import VisionTransformer

    mlp_dim = 4 * hidden_dim if mlp_dim is None else mlp_dim
    sizes: dict[str, Any] = {"num_layers": num_layers, "num_heads": num_heads, "hidden_dim": hidden_dim}
    sizes |= {"mlp_dim": mlp_dim, "dropout": dropout, "attention_dropout": attention_dropout}
    network = VisionTransformer(image_size, patch_size, num_classes=num_classes, **sizes)
    set_input_channels(network, channels)
    return network


def sines_and_cosines(side: int, width: int) -> Tensor:
    """Position embeddings [side * side, width] of a grid, row by row, a quarter of the channels each for sine
    and cosine of row and column (Beyer 2022)."""
    quarter = width // 4
    rates = 1e-4 ** (torch.arange(quarter) / max(quarter - 1, 1))
    angles = torch.arange(side)[:, None] * rates
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # [side, width / 2]
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return F.pad(torch.cat([rows, columns], 2).flatten(0, 1), (0, width - 4 * quarter))


def _patches(channels: int, width: int, patch: int) -> nn.Module:
    return nn.Conv2d(channels, width, patch, patch)


def _conv_stem(channels: int, width: int, patch: int) -> nn.Module:
    """Convolutions of stride 2 that halve the side until a patch is a pixel, then one of 1x1."""
    halvings = patch.bit_length() - 1
    layers, before = [], channels
    for left in reversed(range(halvings)):
        after = max(width >> (left + 1), 8)
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, width, 1))


def _check_sizes(
    image_size: int,
    patch_size: int,
    width: int,
    depth: int,
    heads: int,
    mlp_ratio: float = 1.0,
    registers: int = 0,
) -> None:
    counts = {"image_size": image_size, "patch size": patch_size, "depth": depth, "heads": heads}
    for key, value in counts.items():
        if value < 1:
            raise ValueError(f"{key} is {value}, expected at least 1")
    if mlp_ratio <= 0:
        raise ValueError(f"mlp_ratio is {mlp_ratio}, expected more than 0")
    if registers < 0:
        raise ValueError(f"registers is {registers}, expected at least 0")
    if image_size % patch_size:
        raise ValueError(
            f"images of {image_size} pixels are not cut into patches of {patch_size}: expected a divisor"
        )
    if width < 1 or width % heads:
        raise ValueError(f"{width} channels are not divided among {heads} heads: expected a divisor")
