"""Sanity check of attribution maps: do they change when the network is randomized from the logits down?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from vitrine.analyses import paint
from vitrine.analyses.attribution import TECHNIQUES, Effort, attributions, cam_layer, importance
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.hooks import module_at
from vitrine.analyses.traits import Traits
from vitrine.core.module_copies import copy_module
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.random_numbers import hash_seed, make_key, normal
from vitrine.core.settings import setting


@dataclass(frozen=True)
class Randomization(Analysis):
    """The probes' maps as more and more of the network, from the logits down, is randomized (Adebayo 2018).

    Scalars: "rank_correlation/<map>/<layer>", of the original map and the map with the layer and everything
    above it randomized; a map whose correlation stays high depends little on what was learned.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(section="Class maps", budget_priority=50)
    enabled: bool = setting(False, "make these pictures at every checkpoint")
    probes: int = setting(8, "probes, the first ones", least=1)
    shown: int = setting(2, "probes shown", least=0)
    maps: list[str] = setting(
        ["gradient", "smooth_grad", "integrated_gradients", "guided_backprop", "grad_cam", "guided_grad_cam"],
        f"maps compared, of {', '.join(TECHNIQUES)}",
    )
    copies: int = setting(16, "SmoothGrad: noisy copies", least=1)
    steps: int = setting(16, "integrated gradients: points of the path", least=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            TECHNIQUES.check(name)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        probes = range(min(self.probes, len(subject.probes)))
        results = subject.map_sharded(probes, partial(self._randomize_probes, subject))
        for name, stage in results[0][0]:
            correlations = torch.tensor([own[name, stage] for own, _ in results])
            layer = stage if stage in subject.units else None
            yield Scalar(f"rank_correlation/{name}/{stage}", correlations.mean().item(), layer)
        yield from (figure for _, figure in results if figure is not None)

    def _randomize_probes(
        self, subject: Subject, probes: Sequence[int]
    ) -> Iterator[tuple[dict[tuple[str, str], float], Figure | None]]:
        """For each of these probes the rank correlations by map and stage, and the figure, if it is shown."""
        images = subject.probes.images[list(probes)]
        with torch.no_grad():
            targets = subject.network(images).argmax(1)
        effort = Effort(self.copies, steps=self.steps, seed=subject.seed, batch_size=subject.batch_size)

        def importance_maps(network: nn.Module) -> dict[str, Tensor]:
            maps = attributions(network, self.maps, images, targets, cam_layer(subject), effort)
            return {name: importance(name, values) for name, values in maps.items()}

        original = importance_maps(subject.network)
        stages, correlations = {"original": original}, {}
        randomized = copy_module(subject.network)
        groups = cascade(subject.network, images[:1], subject.layers)
        for i, (stage, modules) in enumerate(groups.items()):
            randomize(randomized, modules, subject.seed + i)
            stages[stage] = importance_maps(randomized)
            for name, maps in stages[stage].items():
                correlations[name, stage] = rank_correlation(maps, original[name]).tolist()
        for i, probe in enumerate(probes):
            figure = None
            if probe < self.shown and original:
                figure = self._figure(subject, i, probe, int(targets[i]), stages)
            yield {key: values[i] for key, values in correlations.items()}, figure

    def _figure(
        self, subject: Subject, row: int, probe: int, target: int, stages: dict[str, dict[str, Tensor]]
    ) -> Figure:
        image, tiles = subject.probes.images[probe], []
        side = paint.tile_side(image.shape[-2:])
        for name in stages["original"]:
            tiles.append(paint.resize(paint.picture(image), side))
            for maps in stages.values():
                values = maps[name][row]
                tile = paint.colorize(values / paint.percentile_scale(values), "gray")
                tiles.append(paint.resize(tile, side))
        return Figure(
            key=f"probe-{probe:03d}/{subject.classes[target]}",
            image=paint.grid(tiles, 1 + len(stages)),
            caption=f"probe {probe}, {subject.classes[target]} (predicted); row by row "
            f"{', '.join(stages['original'])}; left to right the image, the original map, and the maps with "
            f"everything random from the logits down to {', '.join(list(stages)[1:])}.",
            probe=probe,
            label=target,
        )


@in_eager_eval_mode
def cascade(network: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, list[str]]:
    """The modules that have parameters of their own, in groups from the logits down to the pixels.

    Args:
        network, images: one forward pass gives the order in which modules finish.
        layers: shallow to deep; a module belongs to the first of them that finishes after it, or after its
            own parameters are first used: a class token that passes through all blocks is below them.

    Returns:
        "head" (after the last layer), then each layer, deep to shallow -> dotted names of modules. A module
        that is never called itself belongs to the nearest one that contains it; empty groups are left out.
    """
    finished: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: finished.append(name))
        for name, module in network.named_modules()
    ]
    try:
        with torch.no_grad(), _FirstUses(finished) as uses:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    order = {name: i for i, name in enumerate(finished)}
    borders = [(order[layer], layer) for layer in layers]
    groups: dict[str, list[str]] = {"head": [], **{layer: [] for layer in reversed(layers)}}
    for name, module in network.named_modules():
        if not (own := list(module.parameters(recurse=False))):
            continue
        called = name
        while called not in order:
            called = called.rpartition(".")[0]
        place = min([order[called], *(uses.places[id(p)] for p in own if id(p) in uses.places)])
        group = next((layer for i, layer in borders if place <= i), "head")
        groups[group].append(name)
    return {stage: names for stage, names in groups.items() if names}


class _FirstUses(TorchFunctionMode):
    """How many modules had finished when a tensor was first computed from each parameter: `places`, by the
    parameter's id."""

    def __init__(self, finished: Sequence[str]):
        super().__init__()
        self.finished, self.places = finished, dict[int, int]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(value, Tensor) for value in tree_leaves(result)):  # not a shape or a dtype
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, nn.Parameter):
                    self.places.setdefault(id(value), len(self.finished))
        return result


def randomize(network: nn.Module, modules: Sequence[str], seed: int) -> None:
    """Initialise the named modules' own parameters anew, in place, without touching global random state.

    Modules without `reset_parameters` get normal numbers with the mean and standard deviation of their own.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        for name in modules:
            module = module_at(network, name) if name else network
            fresh = copy_module(module).cpu()
            reset = _reset_of(fresh)
            if reset is not None:
                reset()
            else:
                for values in fresh.parameters(recurse=False):
                    deviation = values.detach().std(correction=0)
                    values.data = torch.randn(values.shape).to(values) * deviation + values.detach().mean()
            module.load_state_dict(fresh.state_dict())


def randomized(network: nn.Module, seed: int) -> nn.Module:
    """A copy of the network with all its parameters initialised anew, a function of structure and seed alone:
    parameters that no module can reset (tokens, scales) become normal numbers of deviation 0.02."""
    copied = copy_module(network)
    resettable = []
    for name, module in copied.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        if _reset_of(module) is not None:
            resettable.append(name)
            continue
        for i, values in enumerate(module.parameters(recurse=False)):
            key = torch.tensor([make_key(seed, hash_seed(name.encode()), i)])
            values.data = normal(key, values.numel()).view(values.shape).to(values) * 0.02
    randomize(copied, resettable, seed)
    return copied


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    return getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None))


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of maps [N, ...], equal values sharing their mean rank: [N]; 0 for a
    constant map. (torchmetrics sums ranks in int32, which overflows if a large map has many equal values.)"""
    from scipy.stats import rankdata  # takes a second, and this analysis is off by default

    ranks = [torch.from_numpy(rankdata(x.flatten(1).cpu().numpy(), axis=1)) for x in (a, b)]
    return F.cosine_similarity(*(r - r.mean(1, keepdim=True) for r in ranks)).float()
