"""Which axes of a module's output are channels, rows, columns or tokens.

The layout is inferred from where in the image each position of the output looks, never from sizes. Noise is
added to an image three times: evenly, growing from top to bottom, and growing from left to right. The
responses of a position to the second and the third, divided by its response to the first, are its vertical
and horizontal place in the image. The layout is the one whose positions lie where those of a grid over the
image would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from vitrine.analyses.hooks import modules_at, output_hooks
from vitrine.analyses.structure import PassRelus, forward_on_random_weights, local_operations
from vitrine.core.network_scopes import eager_eval_mode
from vitrine.core.settings import SettingError

IMAGES = 2  # that noise is added to
NOISE = 0.005  # small enough to be linear in
AGREEMENT = {4: 0.25, 3: 0.5}  # the least, of maps (the wrong layout of two: below 0) and token grids (0.35)
SURE = 0.9  # so far measured places agree with a layout where nothing mixes all positions
PREFIX = 16  # how many tokens before a grid's first may see something


@dataclass(frozen=True)
class Layout:
    """How an output holds its maps."""

    axes: str  # "NCHW", "NHWC", "NTC" or "NCT" (tokens, a grid's row by row), or "NC" (1 x 1 maps)
    grid: tuple[int, int] | None = None  # height and width of a grid of tokens
    prefix: int = 0  # how many tokens stand before a grid's first (class, distillation, register tokens)

    def maps(self, output: Tensor) -> Tensor:
        """The output as [B, C, h, w], without copying; tokens outside the grid are left out."""
        if output.ndim != len(self.axes):
            raise ValueError(f"the output has shape {tuple(output.shape)}, expected {self.axes}")
        if self.axes == "NC":
            return output[:, :, None, None]
        if self.axes == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.axes == "NCHW":
            return output
        if self.axes == "NTC":
            output = output.transpose(1, 2)
        height, width = self.grid
        return output[:, :, self.prefix : self.prefix + height * width].unflatten(2, self.grid)


_known: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, dict[Any, Layout]]] = WeakKeyDictionary()
# of a network's modules, by the height and width of its images; by None where the layout is that of any size


def layouts(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Layout]:
    """The layouts of named layers' outputs on images of that size, found once a network, layer and size.

    Args:
        images: [B, C, H, W]; what is in them does not matter.

    Raises:
        UnknownName: there is no such layer.
        ValueError: the images are none, or a layer was not reached, gives no tensor, or no layout.
    """
    modules = modules_at(network, layers)
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected [B, C, H, W]")

    def find(layer: str, response: Tensor) -> None:
        if layout_of(network, modules[layer], images, response) is None:
            raise ValueError(
                f"the layout of layer {layer!r} cannot be told: its output of shape {tuple(response.shape)} "
                f"for {4 * IMAGES} images is no map [B, C, h, w] or [B, h, w, C], token grid or vector that "
                "follows the image; name another layer"
            )

    missing = [layer for layer, module in modules.items() if _known_layout(network, module, images) is None]
    if missing:
        with output_hooks(network, missing, find, stop=True):
            probe(network, images)
    return {layer: _known_layout(network, module, images) for layer, module in modules.items()}


def check_layers(network: nn.Module, images: Tensor, layers: Sequence[str], key: str) -> None:
    """Raise SettingError for the setting `key` that names layers which `layouts` refuses."""
    try:
        layouts(network, images, layers)
    except ValueError as error:
        raise SettingError(key, str(error)) from error


def layout_of(network: nn.Module, module: nn.Module, images: Tensor, response: Tensor) -> Layout | None:
    """The layout of a module's output on images of that size, from its response to `probe`; None: it cannot
    be told."""
    layout = _known_layout(network, module, images) or infer_layout(response)
    if layout is not None:
        known = _known.setdefault(network, WeakKeyDictionary()).setdefault(module, {})
        known[images.shape[-2:] if layout.grid else None] = layout
    return layout


def _known_layout(network: nn.Module, module: nn.Module, images: Tensor) -> Layout | None:
    known = _known.get(network, {}).get(module, {})
    return known.get(None) or known.get(images.shape[-2:])


def probe(network: nn.Module, images: Tensor, count: int = IMAGES, noise: float = NOISE) -> None:
    """Run the network on noise images of the size of `images`; hooks see what `infer_layout` reads.

    Args:
        images: their dtype is what is computed in, at least float32.
        count: of images that noise is added to.
        noise: its size; with float64 it may be small enough for places to be exact.
    """
    channels, height, width = images.shape[1:]
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(2, count, channels, height, width, generator=generator)
    precision = torch.promote_types(images.dtype, torch.float32)  # a lower one would round the noise away
    base, noise = draw[0].to(precision), noise * (draw[1].to(precision) - 0.5).sign()
    down, right = torch.from_numpy(_ramp(height))[:, None], torch.from_numpy(_ramp(width))
    shown = torch.cat([base, base + noise, base + noise * down, base + noise * right])
    with eager_eval_mode(network) as eager, torch.no_grad(), local_operations(), PassRelus():
        forward_on_random_weights(eager, shown.to(images.device, precision))


def infer_layout(response: Tensor) -> Layout | None:
    """The layout of an output, from its response to `probe`; None where there is none that agrees."""
    if len(response) != 4 * IMAGES or not 2 <= response.ndim <= 4:
        return None
    if response.ndim == 2:
        return Layout("NC")
    found, best = None, 0.0
    for layout, places, share in _candidates(response):
        agreement = share * _agreement(places)
        if agreement > best:
            found, best = layout, agreement
        if best > SURE:
            break
    return found if best >= AGREEMENT[response.ndim] else None


def _candidates(response: Tensor) -> Iterator[tuple[Layout, np.ndarray, float]]:
    """The layouts an output may have, each with the places of its grid [h, w, 2], and the share of the tokens
    that see anything that is in the grid."""
    for axes in ("NCHW", "NHWC") if response.ndim == 4 else ("NTC", "NCT"):
        places = _places(response, axes.index("C"))
        if response.ndim == 4:
            yield Layout(axes), places, 1.0
            continue
        seeing = np.flatnonzero(np.isfinite(places[:, 0])).tolist() or [0]
        first, end = seeing[0], seeing[-1] + 1
        places = np.nan_to_num(places)
        if len(places) > 1 and np.abs(places).max() < 0.5:
            continue  # along this axis all see the same
        for prefix in range(first, min(end, first + PREFIX)):
            count = end - prefix
            for width in range(1, count + 1):
                if count % width == 0:
                    grid = count // width, width
                    share = count / (end - first)
                    yield Layout(axes, grid, prefix), places[prefix:end].reshape(*grid, 2), share


def _places(response: Tensor, channel_axis: int) -> np.ndarray:
    """Where in the image each position of an output looks: [*positions, 2], vertical and horizontal in
    [-1, 1]; NaN where it sees nothing of it, about 0 where it sees all alike."""
    base, *noisy = response.detach().unflatten(0, (4, -1))
    even, down, right = (output - base for output in noisy)
    unit = even / even.abs().max().square().clamp_min(1e-30)
    size, *along = ((change * unit).sum((0, channel_axis)) for change in (even, down, right))
    places = torch.where(size > 1e-6 * size.max(), torch.stack(along) / size, torch.nan)
    return places.movedim(0, -1).double().cpu().numpy()


def measured_places(response: Tensor) -> np.ndarray:
    """Where in the image tokens look, from their response [4 * count, T, C] to `probe`: [T, 2], vertical and
    horizontal in [-1, 1]; NaN where a token sees nothing of it."""
    return _places(response, 2)


def _agreement(places: np.ndarray) -> float:
    """How well measured places [h, w, 2] agree with those of a grid over the whole image: 1 where they differ
    by an offset alone, 0 where they are all one. A single place is taken for one unless others are sure."""
    height, width, _ = places.shape
    if height * width == 1:
        return SURE
    expected = np.stack(np.meshgrid(_ramp(height), _ramp(width), indexing="ij"), -1)
    seeing = np.isfinite(places[..., 0])  # padding sees nothing
    if not seeing.any():
        return 0.0
    measured, expected = (p[seeing] - p[seeing].mean(0) for p in (places, expected))
    size = np.square(expected).sum()
    return 1 - np.square(measured - expected).sum() / size if size else 0.0


def _ramp(count: int) -> np.ndarray:
    """The centres of so many equal parts of [-1, 1]."""
    return (2 * np.arange(count) + 1) / count - 1
