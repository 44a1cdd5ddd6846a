"""Feature visualization (Erhan 2009, Olah 2017): pictures that excite a unit most, by gradient ascent.

pictures = visualize(network, [channel("layer3", unit) for unit in range(16)], size=128, seed=0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.ascent import View, ascend, picture_generators, plain_gradients
from vitrine.analyses.hooks import input_channels
from vitrine.analyses.objectives import Objective, ObjectiveBatch, diversity_groups
from vitrine.analyses.parameterization import Phases, Pixels, imagenet_colours
from vitrine.analyses.transforms import Crops, Transforms, sample_maps, warp
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.registry import Registry

PARAMETERIZATIONS = Registry(
    "parameterization",
    {
        "fourier": "vitrine.analyses.parameterization:Fourier",
        "pixels": "vitrine.analyses.parameterization:Pixels",
    },
)

TRANSFORMS, CROPS = Transforms(), Crops()  # the defaults
BATCH_PIXELS = {"cpu": 8 * 128**2, "cuda": 128 * 224**2}  # larger batches fall out of a CPU's cache
Progress = Callable[..., Any]
"""Wraps an iterable with a bar: `progress(iterable, description, total)`."""


def _no_progress(iterable: Any, *_: Any) -> Any:
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
    progress: Progress = _no_progress,
) -> Tensor:
    """Pictures that excite: one for each objective, by Adam on what a parameterization turns into pictures.

    A picture does not depend on what else is in the call: its random numbers come from the seed and its
    objective. Only the rounding of convolutions may depend on the batch size; the difference of 1e-7 grows
    with the number of steps.

    Args:
        network: takes images in [0, 1]; used in eval mode and left unchanged.
        objectives: one a picture; the forward pass ends at the deepest layer they name.
        size: pixels on a side.
        steps: of Adam.
        seed: of everything random.
        lr: of Adam.
        parameterization: "fourier" or "pixels".
        colours: [C, C], the colour directions of natural images, as `colour_matrix(images)` gives them;
            ImageNet's (grey for one channel) unless given.
        transforms: random transformations while a picture is optimised; None for none.
        warm_start: initial pictures [N, C, h, w], instead of noise.
        batch_size: pictures optimised together, by their size unless given; at least a diversity group.
        progress: wraps an iterable with a bar, `progress(iterable, description, total)`.

    Returns:
        Float32 in [0, 1], [len(objectives), C, size, size].

    Raises:
        UnknownName: there is no such layer or parameterization.
        ValueError: a unit, label or position is out of range, a vector does not fit its layer, a layer has
            no maps, or the network does not take images of that size.
    """
    return visualize_at_steps(
        network,
        objectives,
        at_steps=[steps],
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
def visualize_at_steps(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    at_steps: Sequence[int],
    size: int,
    seed: int,
    lr: float = 0.05,
    parameterization: str = "fourier",
    colours: Tensor | None = None,
    transforms: Transforms | None = TRANSFORMS,
    warm_start: Tensor | None = None,
    batch_size: int | None = None,
    progress: Progress = _no_progress,
) -> Tensor:
    """The pictures of `visualize` after several numbers of steps (0: before the first).

    They depend on the largest: random numbers are drawn for `max(at_steps)` steps.

    Returns:
        Float32 in [0, 1], [len(at_steps), len(objectives), C, size, size].
    """
    colours = _colours(network, size, colours, warm_start)
    parameters = PARAMETERIZATIONS[parameterization](size, colours)

    def view(generators: list[torch.Generator]) -> View:
        if transforms is None:
            return lambda pictures, step: pictures
        maps = sample_maps(transforms, generators, max(at_steps), size).to(colours.device)
        return lambda pictures, step: warp(pictures, maps[step])

    optimizer = partial(torch.optim.Adam, lr=lr, maximize=True, fused=True)
    return _optimise(
        network, objectives, parameters, view, at_steps, seed, optimizer, warm_start, batch_size, progress
    )


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
    progress: Progress = _no_progress,
) -> tuple[Tensor, Tensor]:
    """Feature visualization at the magnitudes of natural images: only phases are optimised (MACO, Fel 2023).

    Args:
        network, objectives, size, steps, seed, warm_start, batch_size, progress: as in `visualize`.
        magnitude: [C, size, size // 2 + 1], as `mean_magnitude(images, size, colours)` gives it.
        colours: [C, C], those that the magnitudes were measured in.
        lr: of NAdam, in radians.
        crops: random parts of a picture that the network gets.
        views: crops a step.
        noise: standard deviation of the noise added to each.

    Returns:
        The pictures [N, C, size, size] in [0, 1], and the accumulated gradient magnitude of each
        pixel, [N, size, size] in [0, 1], for use as opacity.

    Raises:
        ValueError: as `visualize`, or the magnitudes are not of this size.
    """
    expected = (len(_colours(network, size, colours, warm_start)), size, size // 2 + 1)
    if tuple(magnitude.shape) != expected:
        raise ValueError(
            f"magnitude has shape {tuple(magnitude.shape)}, expected {expected} for {size} pixels"
        )
    device = _device(network)
    parameters = Phases(size, _colours(network, size, colours, warm_start), magnitude.to(device))
    magnitudes = torch.zeros(len(objectives), size, size, device=device)

    def view(generators: list[torch.Generator]) -> View:
        maps = torch.stack([sample_maps(crops, generators, steps, size) for _ in range(views)]).to(device)

        def crop_and_add_noise(pictures: Tensor, step: int) -> Tensor:
            crops = [warp(pictures, view_maps[step]) for view_maps in maps]
            shape = (views, *pictures.shape[1:])
            randn = torch.stack([torch.randn(shape, generator=g) for g in generators], 1).flatten(0, 1)
            return torch.cat(crops) + noise * randn.to(device)

        return crop_and_add_noise

    def accumulate(members: list[int], gradient: Tensor) -> None:
        magnitudes[members] += gradient.abs().mean(1)

    optimizer = partial(torch.optim.NAdam, lr=lr, maximize=True)
    pictures = _optimise(
        network,
        objectives,
        parameters,
        view,
        [steps],
        seed,
        optimizer,
        warm_start,
        batch_size,
        progress,
        accumulate,
    )[0]
    ceiling = magnitudes.flatten(1).quantile(0.99, dim=1).clamp_min(1e-30)
    return pictures, (magnitudes / ceiling[:, None, None]).clamp(0, 1)


@in_eager_eval_mode
def objective_values(network: nn.Module, objectives: Sequence[Objective], pictures: Tensor) -> Tensor:
    """Each objective's value [N] on its picture of [N, C, H, W], untransformed, in full precision."""
    device = _device(network)
    with torch.no_grad():
        return ObjectiveBatch(objectives).scores(network, pictures.to(device))


@in_eager_eval_mode
def has_no_gradient(network: nn.Module, objectives: Sequence[Objective], pictures: Tensor) -> Tensor:
    """Whether each objective is constant around its picture of [N, C, H, W], as for a dead unit: bool [N]."""
    if not objectives:
        return torch.zeros(0, dtype=torch.bool)
    gradients = plain_gradients(network, objectives, pictures.to(_device(network))[None])[0]
    return (gradients == 0).flatten(1).all(1)


def _optimise(
    network: nn.Module,
    objectives: Sequence[Objective],
    parameters: Pixels,
    view: Callable[[list[torch.Generator]], View],
    at_steps: Sequence[int],
    seed: int,
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    warm_start: Tensor | None,
    batch_size: int | None,
    progress: Progress,
    on_gradient: Callable[[list[int], Tensor], None] | None = None,
) -> Tensor:
    """Pictures [len(at_steps), N, C, size, size], optimised batch by batch."""
    if warm_start is not None and len(warm_start) != len(objectives):
        raise ValueError(
            f"warm_start has {len(warm_start)} pictures, expected one for each of {len(objectives)}"
        )
    generators = picture_generators(objectives, seed)
    result = torch.empty(
        len(at_steps),
        len(objectives),
        len(parameters.colours),
        parameters.size,
        parameters.size,
        device=parameters.colours.device,
    )
    _check(network, objectives, parameters)
    batches = _batches(
        objectives, batch_size or default_batch_size(parameters.size, parameters.colours.device)
    )
    for members in progress(batches, "features", len(batches)):
        own = [generators[i] for i in members]
        if warm_start is None:
            variables = parameters.initialize(own)
        else:
            variables = parameters.invert(warm_start[members])
        pictures = ascend(
            network,
            [objectives[i] for i in members],
            parameters,
            variables,
            view(own),
            at_steps=at_steps,
            optimizer=optimizer,
            on_gradient=partial(on_gradient, members) if on_gradient else None,
        )
        for step, picture in pictures:
            for row in (row for row, requested in enumerate(at_steps) if requested == step):
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


def default_batch_size(size: int, device: torch.device) -> int:
    """The number of pictures with `size` pixels a side that a device processes efficiently."""
    pixels = BATCH_PIXELS.get(device.type, BATCH_PIXELS["cpu"])
    return max(1, min(256, pixels // size**2))


def _check(network: nn.Module, objectives: Sequence[Objective], parameters: Pixels) -> None:
    """Raise for what is wrong with a call before the work begins, by one forward pass."""
    layers = list(dict.fromkeys(layer for objective in objectives for layer in objective.layers))
    grey = torch.full(
        (1, len(parameters.colours), parameters.size, parameters.size), 0.5, device=parameters.colours.device
    )
    with torch.no_grad():
        try:
            maps = activations(network, grey, layers)
        except (RuntimeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"size is {parameters.size}, and the network does not take images of that size: {reason}"
            ) from error
        terms = [term for objective in objectives for _, term in objective.terms]
        ObjectiveBatch([Objective(((1.0, term),)) for term in terms]).scores_from_maps(
            {layer: m.expand(len(terms), -1, -1, -1) for layer, m in maps.items()}
        )


def _device(network: nn.Module) -> torch.device:
    return next(
        (tensor.device for tensor in (*network.parameters(), *network.buffers())), torch.device("cpu")
    )


def _colours(network: nn.Module, size: int, colours: Tensor | None, warm_start: Tensor | None) -> Tensor:
    """The given colour directions, or those of ImageNet or of grey images, by the network's channels."""
    if colours is None:
        channels = input_channels(network, (size, size)) if warm_start is None else warm_start.shape[1]
        if channels not in (1, 3):
            raise ValueError(
                f"colours are needed: the network takes {channels} channels, which are not grey or RGB"
            )
        colours = imagenet_colours() if channels == 3 else torch.ones(1, 1)
    return colours.to(_device(network), torch.float32)
