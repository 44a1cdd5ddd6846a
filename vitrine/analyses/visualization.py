"""Feature visualization (Erhan 2009, Olah 2017): pictures that excite a unit most, by gradient ascent.

pictures = visualize(network, [channel("layer3", unit) for unit in range(16)], size=128, seed=0)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.analyses.ascent import PRECISIONS, View, plain_gradients
from vitrine.analyses.base import Progress, no_progress
from vitrine.analyses.objectives import Objective, ObjectiveBatch
from vitrine.analyses.parameterization import Fourier, Phases, Pixels, Smooth
from vitrine.analyses.picture_optimization import colours_for, device_of, optimize_pictures
from vitrine.analyses.picture_size import Size, sides, size_text
from vitrine.analyses.transforms import Crops, Transforms, colour_shifts, sample_maps, warp
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.registry import Registry

PARAMETERIZATIONS = Registry("parameterization", {"fourier": Fourier, "smooth": Smooth, "pixels": Pixels})

TRANSFORMS, CROPS = Transforms(), Crops()  # the defaults
MANY = 128  # steps, from which on they are of the length and memory that are usual (Olah 2017)
SHORTEST, LONGEST = 0.05, 0.4  # steps
USUAL_MEMORY, SHORT_MEMORY = (0.9, 0.999), (0.5, 0.99)  # Adam's betas


def step_length(steps: int) -> float:
    """The length of each of so many steps of Adam, unless it is given: fewer than 128 are longer ones, which
    reach as far."""
    return min(LONGEST, max(SHORTEST, SHORTEST * MANY / max(steps, 1)))


def memory(steps: int) -> tuple[float, float]:
    """Adam's betas for so many steps: of few, ten steps of momentum are a third, and units that are hard to
    excite find their direction too late."""
    return USUAL_MEMORY if steps >= MANY else SHORT_MEMORY


def visualize(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    size: Size,
    steps: int = 512,
    seed: int,
    **options: Any,
) -> Tensor:
    """Pictures that excite: float32 in [0, 1], [len(objectives), C, height, width].

    `steps` of Adam; the other arguments, and what is raised, are those of `visualize_at_steps`.
    """
    return visualize_at_steps(network, objectives, at_steps=[steps], size=size, seed=seed, **options)[0]


@in_eager_eval_mode
def visualize_at_steps(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    at_steps: Sequence[int],
    size: Size,
    seed: int,
    lr: float | None = None,
    betas: tuple[float, float] | None = None,
    parameterization: str = "fourier",
    colours: Tensor | None = None,
    transforms: Transforms | None = TRANSFORMS,
    colour_shift: float = 0.0,
    warm_start: Tensor | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    progress: Progress = no_progress,
) -> Tensor:
    """Pictures that excite after several numbers of steps (0: before the first), one for each objective, by
    Adam on what a parameterization turns into pictures; where there are few steps, with the `memory` of few.

    A picture does not depend on what else is in the call: its random numbers come from the seed and its
    objective. Only the rounding of convolutions may depend on the batch size; the difference of 1e-7 grows
    with the number of steps.

    Args:
        network: takes images in [0, 1]; used in eval mode and left unchanged.
        objectives: one a picture; the forward pass ends at the deepest layer they name.
        at_steps: numbers of steps; random numbers, and so pictures, depend on the largest.
        size: pixels on a side; or height and width.
        seed: of everything random.
        lr: of Adam; `step_length` of the largest number of steps unless given.
        betas: of Adam; its `memory` for that number unless given.
        parameterization: "fourier", "smooth" or "pixels".
        colours: [C, C], the colour directions of natural images, as `colour_matrix(images)` gives them;
            ImageNet's (grey for one channel) unless given.
        transforms: random transformations while a picture is optimised; None for none.
        colour_shift: standard deviation of what is added to each channel at random, the same all over the
            picture, in the first step; it falls to 0 at the last (Ghiasi 2022).
        warm_start: initial pictures [N, C, h, w], instead of noise.
        batch_size: pictures optimised together, by their size unless given; at least a diversity group.
        precision: of the network's arithmetic, "float32" or "bfloat16"; unless given, bfloat16 on a GPU and
            float32 on a CPU.

    Returns:
        Float32 in [0, 1], [len(at_steps), len(objectives), C, height, width].

    Raises:
        UnknownName: there is no such layer, parameterization or precision.
        ValueError: a unit, label or position is out of range, a vector does not fit its layer, a layer has
            no maps, or the network does not take images of that size.
    """
    colours = colours_for(network, size, colours, warm_start)
    parameters = PARAMETERIZATIONS[parameterization](size, colours)
    if precision is not None:
        PRECISIONS.check(precision)
    steps = max(at_steps)

    def view(generators: list[torch.Generator]) -> View:
        maps, shifts = None, None
        if transforms is not None:
            maps = sample_maps(transforms, generators, steps, size).to(colours.device)
        if colour_shift:
            shifts = colour_shifts(generators, steps, len(colours), colour_shift).to(colours.device)

        def transform(pictures: Tensor, step: int) -> Tensor:
            moved = pictures if maps is None else warp(pictures, maps[step])
            return moved if shifts is None else moved + shifts[step]

        return transform

    lr = step_length(steps) if lr is None else lr
    optimizer = partial(torch.optim.Adam, lr=lr, betas=betas or memory(steps), maximize=True, fused=True)
    common = {"warm_start": warm_start, "batch_size": batch_size, "progress": progress}
    return optimize_pictures(
        network, objectives, parameters, view, at_steps, seed, optimizer, **common, precision=precision
    )


@in_eager_eval_mode
def maco(
    network: nn.Module,
    objectives: Sequence[Objective],
    *,
    size: Size,
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
    progress: Progress = no_progress,
) -> tuple[Tensor, Tensor]:
    """Feature visualization at the magnitudes of natural images: only phases are optimised (MACO, Fel 2023).

    Args:
        magnitude: [C, height, width // 2 + 1], as `mean_magnitude(images, size, colours)` gives it.
        colours: [C, C], those that the magnitudes were measured in.
        lr: of NAdam, in radians.
        crops: random parts of a picture that the network gets.
        views: crops a step.
        noise: standard deviation of the noise added to each.

    The other arguments are those of `visualize_at_steps`.

    Returns:
        The pictures [N, C, height, width] in [0, 1], and the accumulated gradient magnitude of each
        pixel, [N, height, width] in [0, 1], for use as opacity.

    Raises:
        ValueError: as `visualize_at_steps`, or the magnitudes are not of this size.
    """
    device = device_of(network)
    parameters = Phases(size, colours_for(network, size, colours, warm_start), magnitude.to(device))
    height, width = sides(size)
    expected = (len(parameters.colours), height, width // 2 + 1)
    if parameters.shape != expected:
        raise ValueError(
            f"magnitude has shape {parameters.shape}, expected {expected} for {size_text(size)} pixels"
        )
    magnitudes = torch.zeros(len(objectives), height, width, device=device)

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
    common = {"warm_start": warm_start, "batch_size": batch_size, "progress": progress}
    pictures = optimize_pictures(
        network, objectives, parameters, view, [steps], seed, optimizer, **common, on_gradient=accumulate
    )[0]
    ceiling = magnitudes.flatten(1).quantile(0.99, dim=1).clamp_min(1e-30)
    return pictures, (magnitudes / ceiling[:, None, None]).clamp(0, 1)


@in_eager_eval_mode
def objective_values(network: nn.Module, objectives: Sequence[Objective], pictures: Tensor) -> Tensor:
    """Each objective's value [N] on its picture of [N, C, H, W], untransformed, in full precision."""
    with torch.no_grad():
        return ObjectiveBatch(objectives).scores(network, pictures.to(device_of(network)))


@in_eager_eval_mode
def has_no_gradient(network: nn.Module, objectives: Sequence[Objective], pictures: Tensor) -> Tensor:
    """Whether each objective is constant around its picture of [N, C, H, W], as for a dead unit: bool [N]."""
    if not objectives:
        return torch.zeros(0, dtype=torch.bool)
    gradients = plain_gradients(network, objectives, pictures.to(device_of(network))[None])[0]
    return (gradients == 0).flatten(1).all(1)
