"""Feature visualization (Erhan 2009, Olah 2017): what would excite a unit most, found by gradient ascent.

pictures = visualize(network, [channel("layer3", unit) for unit in range(16)], size=128, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.ascent import View, ascend, generators
from vitrine.analyses.hooks import input_channels
from vitrine.analyses.objectives import Objective, ObjectiveBatch, diversity_groups
from vitrine.analyses.parameterization import Phases, Pixels, imagenet_colours
from vitrine.analyses.transforms import Crops, Transforms, drawn, moved
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.registry import Registry

PARAMETERIZATIONS = Registry(
    "parameterization",
    {
        "fourier": "vitrine.analyses.parameterization:Fourier",
        "pixels": "vitrine.analyses.parameterization:Pixels",
    },
)

TRANSFORMS, CROPS = Transforms(), Crops()  # as they are by default
BATCH_PIXELS = {"cpu": 8 * 128**2, "cuda": 128 * 224**2}  # larger batches fall out of a CPU's cache
Progress = Callable[..., Any]
"""Wraps an iterable with a bar: `progress(iterable, description, total)`."""


def _silent(iterable: Any, *_: Any) -> Any:
    return iterable


@in_eager_eval_mode
def visualize(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    size: int,
    steps: int = 512,
    seed: int,
    lr: float = 0.05,
    parameterization: str = "fourier",
    colours: Tensor | None = None,
    transforms: Transforms | None = TRANSFORMS,
    warm_start: Tensor | None = None,
    batch_size: int | None = None,
    progress: Progress = _silent,
) -> Tensor:
    """Pictures that excite: one for each objective, by Adam on what a parameterization turns into pictures.

    A picture is the same whatever else is in the call: its random numbers come from the seed and its
        objective. Only the order in which a convolution sums may change with the size of the batch; the
        1e-7 by which that rounds differently grows with the number of steps.

    Args:
        network: takes images in [0, 1]. It is looked at in eval mode and left as it was.
        objectives: one a picture; the forward pass ends at the deepest layer they name.
        size: pixels on a side.
        steps: of Adam.
        seed: of everything random.
        lr: of Adam.
        parameterization: "fourier" or "pixels".
        colours: [C, C], the colour directions of natural images, as `colour_matrix(images)` gives them;
            ImageNet's (grey for one channel) unless given.
        transforms: how pictures move while they are optimised; None for not at all.
        warm_start: pictures [N, C, h, w] to begin from, instead of noise.
        batch_size: pictures worked on together, by their size unless given; those that share a diversity
            group always are.
        progress: wraps an iterable with a bar, `progress(iterable, description, total)`.

    Returns:
        Float32 in [0, 1], [len(objectives), C, size, size].

    Raises:
        UnknownName: there is no such layer or parameterization.
        ValueError: a unit, label or position is out of range, a vector does not fit its layer, a layer has
            no spatial reading, or the size is not one that the network takes.
    """
    return course(
        network,
        objectives,
        at=[steps],
        size=size,
        seed=seed,
        lr=lr,
        parameterization=parameterization,
        colours=colours,
        transforms=transforms,
        warm_start=warm_start,
        batch_size=batch_size,
        progress=progress,
    )[0]


@in_eager_eval_mode
def course(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    at: Sequence[int],
    size: int,
    seed: int,
    lr: float = 0.05,
    parameterization: str = "fourier",
    colours: Tensor | None = None,
    transforms: Transforms | None = TRANSFORMS,
    warm_start: Tensor | None = None,
    batch_size: int | None = None,
    progress: Progress = _silent,
) -> Tensor:
    """The pictures of `visualize` on their way, after each of the numbers of steps in `at` (0: before the
    first).

    The course depends on how long it is: random numbers are drawn for `max(at)` steps.

    Returns:
        Float32 in [0, 1], [len(at), len(objectives), C, size, size].
    """
    network_colours = _colours(network, size, colours, warm_start)
    kind = PARAMETERIZATIONS[parameterization](size, network_colours)

    def view(dice: list[torch.Generator]) -> View:
        if transforms is None:
            return lambda pictures, step: pictures
        maps = drawn(transforms, dice, max(at), size).to(network_colours.device)
        return lambda pictures, step: moved(pictures, maps[step])

    optimizer = partial(torch.optim.Adam, lr=lr, maximize=True, fused=True)
    return _optimised(network, objectives, kind, view, at, seed, optimizer, warm_start, batch_size, progress)


@in_eager_eval_mode
def maco(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    size: int,
    steps: int = 256,
    seed: int,
    magnitude: Tensor,
    colours: Tensor | None = None,
    lr: float = 0.2,
    crops: Crops = CROPS,
    views: int = 8,
    noise: float = 0.08,
    warm_start: Tensor | None = None,
    batch_size: int | None = None,
    progress: Progress = _silent,
) -> tuple[Tensor, Tensor]:
    """Feature visualization at the magnitudes of natural images: only phases are optimised (MACO, Fel 2023).

    Args:
        network, objectives, size, steps, seed, warm_start, batch_size, progress: as in `visualize`.
        magnitude: [C, size, size // 2 + 1], as `mean_magnitude(images, size, colours)` gives it.
        colours: [C, C], those that the magnitudes were measured in.
        lr: of NAdam, in radians.
        crops: the random parts of a picture that the network is shown.
        views: how many of them a step.
        noise: standard deviation of what is added to each.

    Returns:
        The pictures [N, C, size, size] in [0, 1], and how much each place mattered on the way, [N, size,
        size] in [0, 1]: opacities.

    Raises:
        ValueError: as `visualize`, or the magnitudes are not of this size.
    """
    expected = (len(_colours(network, size, colours, warm_start)), size, size // 2 + 1)
    if tuple(magnitude.shape) != expected:
        raise ValueError(
            f"magnitude has shape {tuple(magnitude.shape)}, expected {expected} for {size} pixels"
        )
    device = _device(network)
    kind = Phases(size, _colours(network, size, colours, warm_start), magnitude.to(device))
    mattered = torch.zeros(len(objectives), size, size, device=device)

    def view(dice: list[torch.Generator]) -> View:
        maps = torch.stack([drawn(crops, dice, steps, size) for _ in range(views)]).to(device)

        def look(pictures: Tensor, step: int) -> Tensor:
            shown = [moved(pictures, of_view[step]) for of_view in maps]
            shape = (views, *pictures.shape[1:])
            grain = torch.stack([torch.randn(shape, generator=g) for g in dice], 1).flatten(0, 1)
            return torch.cat(shown) + noise * grain.to(device)

        return look

    def watch(members: list[int], gradient: Tensor) -> None:
        mattered[members] += gradient.abs().mean(1)

    optimizer = partial(torch.optim.NAdam, lr=lr, maximize=True)
    pictures = _optimised(
        network, objectives, kind, view, [steps], seed, optimizer, warm_start, batch_size, progress, watch
    )[0]
    ceiling = mattered.flatten(1).quantile(0.99, dim=1).clamp_min(1e-30)
    return pictures, (mattered / ceiling[:, None, None]).clamp(0, 1)


@in_eager_eval_mode
def reached(network: nn.Module, objectives: Sequence[Objective], pictures: Tensor) -> Tensor:
    """Each objective's value [N] on its picture of [N, C, H, W], as it is: not moved, in full precision."""
    device = _device(network)
    with torch.no_grad():
        return ObjectiveBatch(objectives).scores(network, pictures.to(device))


def _optimised(
    network: nn.Module,
    objectives: Sequence[Objective],
    kind: Pixels,
    view: Callable[[list[torch.Generator]], View],
    at: Sequence[int],
    seed: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    warm_start: Tensor | None,
    batch_size: int | None,
    progress: Progress,
    watch: Callable[[list[int], Tensor], None] | None = None,
) -> Tensor:
    """Pictures [len(at), N, C, size, size], worked on batch by batch."""
    if warm_start is not None and len(warm_start) != len(objectives):
        raise ValueError(
            f"warm_start has {len(warm_start)} pictures, expected one for each of {len(objectives)}"
        )
    dice = generators(objectives, seed)
    result = torch.empty(
        len(at), len(objectives), len(kind.colours), kind.size, kind.size, device=kind.colours.device
    )
    _check(network, objectives, kind)
    batches = _batches(objectives, batch_size or fitting(kind.size, kind.colours.device))
    for members in progress(batches, "features", len(batches)):
        own = [dice[i] for i in members]
        if warm_start is None:
            variables = kind.start(own)
        else:
            variables = kind.invert(warm_start[members])
        pictures = ascend(
            network,
            [objectives[i] for i in members],
            kind,
            variables,
            view(own),
            at=at,
            optimizer=optimizer,
            watch=partial(watch, members) if watch else None,
        )
        for step, picture in pictures:
            for row in (row for row, wanted in enumerate(at) if wanted == step):
                result[row, members] = picture
    return result


def _batches(objectives: Sequence[Objective], batch_size: int) -> list[list[int]]:
    """The objectives' numbers in batches of at most batch_size, unless a diversity group alone is larger."""
    batches: list[list[int]] = []
    for group in diversity_groups(objectives):
        if batches and len(batches[-1]) + len(group) <= batch_size:
            batches[-1] += group
        else:
            batches.append(group)
    return batches


def fitting(size: int, device: torch.device) -> int:
    """As many pictures, of so many pixels a side, as a device works on well."""
    pixels = BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"])
    return max(1, min(256, pixels // size**2))


def _check(network: nn.Module, objectives: Sequence[Objective], kind: Pixels) -> None:
    """One cheap forward pass, so that what is wrong with a call is said before the work begins."""
    layers = list(dict.fromkeys(layer for objective in objectives for layer in objective.layers))
    grey = torch.full((1, len(kind.colours), kind.size, kind.size), 0.5, device=kind.colours.device)
    with torch.no_grad():
        try:
            maps = activations(network, grey, layers)
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"size is {kind.size}, and the network does not take images of that size: {reason}"
            ) from error
        alone = [term for objective in objectives for _, term in objective.terms]
        ObjectiveBatch([Objective(((1.0, term),)) for term in alone]).scores_from_maps(
            {layer: m.expand(len(alone), -1, -1, -1) for layer, m in maps.items()}
        )


def _device(network: nn.Module) -> torch.device:
    return next(
        (tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu")
    )


def _colours(network: nn.Module, size: int, colours: Tensor | None, warm_start: Tensor | None) -> Tensor:
    """The colour directions asked for, or those of ImageNet or of grey images, by what the network takes."""
    if colours is None:
        channels = input_channels(network, (size, size)) if warm_start is None else warm_start.shape[1]
        if channels not in (1, 3):
            raise ValueError(
                f"colours are needed: the network takes {channels} channels, which are not grey or RGB"
            )
        colours = imagenet_colours() if channels == 3 else torch.ones(1, 1)
    return colours.to(_device(network), torch.float32)
