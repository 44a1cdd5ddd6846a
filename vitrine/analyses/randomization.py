"""Do the maps depend on what was learned? The network is made random from the top, and its maps compared."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.attribution import TECHNIQUES, Effort, attributions, cam_layer, strength, technique
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.hooks import module_at
from vitrine.analyses.probe_saliency import bright, tile_side
from vitrine.analyses.traits import Traits
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.settings import setting


@dataclass(frozen=True)
class Randomization(Analysis):
    """The probes' maps as ever more of the network, from the logits down, is made random (Adebayo 2018).

    Scalars: "rank_correlation/<map>/<layer>", with the original map, everything above the layer and the layer
    itself being random; a map that keeps a high one tells little about what was learned.
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
    steps: int = setting(16, "integrated gradients: points on the way", least=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            technique(name)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        probes = range(min(self.probes, len(subject.probes)))
        made = subject.map_sharded(probes, partial(self._made, subject))
        for name, stage in made[0][0]:
            correlation = torch.tensor([found[name, stage] for found, _ in made]).mean().item()
            layer = stage if stage in subject.units else None
            yield Scalar(f"rank_correlation/{name}/{stage}", correlation, layer)
        yield from (figure for _, figure in made if figure is not None)

    def _made(
        self, subject: Subject, probes: Sequence[int]
    ) -> Iterator[tuple[dict[tuple[str, str], float], Figure | None]]:
        """Of each of these probes the rank correlations by map and stage, and the picture, where shown."""
        images = subject.probes.images[list(probes)]
        with torch.no_grad():
            targets = subject.network(images).argmax(1)
        effort = Effort(self.copies, steps=self.steps, seed=subject.seed)

        def strengths(network: nn.Module) -> dict[str, Tensor]:
            found = attributions(network, self.maps, images, targets, cam_layer(subject), effort)
            return {name: strength(name, maps) for name, maps in found.items()}

        original = strengths(subject.network)
        stages, correlations = {"original": original}, {}
        random = copy.deepcopy(subject.network)
        groups = cascade(subject.network, images[:1], subject.layers)
        for i, (stage, modules) in enumerate(groups.items()):
            randomize(random, modules, subject.seed + i)
            stages[stage] = strengths(random)
            for name, maps in stages[stage].items():
                correlations[name, stage] = rank_correlation(maps, original[name]).tolist()
        for i, probe in enumerate(probes):
            shown = probe < self.shown
            picture = self._picture(subject, i, probe, images[i], int(targets[i]), stages) if shown else None
            yield {key: values[i] for key, values in correlations.items()}, picture

    def _picture(
        self,
        subject: Subject,
        row: int,
        probe: int,
        image: Tensor,
        target: int,
        stages: dict[str, dict[str, Tensor]],
    ) -> Figure:
        side, tiles = tile_side(image.shape[-2:]), []
        for name in stages["original"]:
            tiles.append(paint.resize(paint.picture(image), side))
            for maps in stages.values():
                values = maps[name][row]
                tiles.append(paint.resize(paint.colorize(values / bright(values), "gray"), side))
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
        network, images: one forward pass tells the order in which modules are done.
        layers: shallow to deep; each is the border between what belongs to it and what is above.

    Returns:
        "head" (what comes after the last layer), then each layer, deep to shallow -> dotted names of modules.
        A module that is never called itself belongs to the nearest one around it that is; an empty group is
        left out.
    """
    done: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: done.append(name))
        for name, module in network.named_modules()
    ]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    when = {name: at for at, name in enumerate(done)}
    borders = [(when[layer], layer) for layer in layers]
    groups: dict[str, list[str]] = {"head": [], **{layer: [] for layer in reversed(layers)}}
    for name, module in network.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        called = name
        while called not in when:
            called = called.rpartition(".")[0]
        belongs = next((layer for at, layer in borders if when[called] <= at), "head")
        groups[belongs].append(name)
    return {stage: names for stage, names in groups.items() if names}


def randomize(network: nn.Module, modules: Sequence[str], seed: int) -> None:
    """Initialise the named modules' own parameters anew, in place; no global random state moves.

    Modules that cannot `reset_parameters` are given normal numbers of the trained ones' mean and spread.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs' as well
        for name in modules:
            module = module_at(network, name) if name else network
            fresh = copy.deepcopy(module).cpu()
            reset = getattr(fresh, "reset_parameters", getattr(fresh, "_reset_parameters", None))
            if reset is not None:
                reset()
            else:
                for values in fresh.parameters(recurse=False):
                    spread = values.detach().std(correction=0)
                    values.data = torch.randn(values.shape).to(values) * spread + values.detach().mean()
            module.load_state_dict(fresh.state_dict())


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of maps [N, ...], equal values sharing a rank: [N]; 0 for a flat map."""
    a, b = _ranks(a.flatten(1)), _ranks(b.flatten(1))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm = a.norm(dim=1) * b.norm(dim=1)
    return ((a * b).sum(1) / norm.where(norm > 0, torch.ones_like(norm))).float()


def _ranks(values: Tensor) -> Tensor:
    ordered = values.sort(1).values
    first = torch.searchsorted(ordered, values, side="left")
    after = torch.searchsorted(ordered, values, side="right")
    return (first + after).double() / 2
