"""An object whose texture makes the network see another class in it, from all sides (Athalye 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses import paint, picture_table
from vitrine.analyses.base import Analysis, Figure, File, Scalar, Subject
from vitrine.analyses.threat_model import class_index
from vitrine.analyses.traits import Traits
from vitrine.attacks.lab import lab_distance
from vitrine.attacks.textures import TEXELS, TextureAttack, held_out_views, look_at, predict_views
from vitrine.attacks.threat import eps_setting
from vitrine.core.settings import setting
from vitrine.objects import shapes
from vitrine.objects.mesh import Mesh
from vitrine.objects.obj_files import obj_contents
from vitrine.objects.textures import CLASSES, class_textures
from vitrine.objects.views import turntable

CLEAN, ONE_VIEW, EOT = "clean", "one view", "all views"  # rows


@dataclass(frozen=True)
class AttackedObject:
    """A mesh with its textures, [3, T, T]: as it is, attacked from one view, and attacked from all."""

    mesh: Mesh
    textures: dict[str, Tensor]
    label: int  # what the network mostly sees in it as it is
    target: int
    size: int  # pixels a side of the views
    shares: dict[str, Tensor]  # of held-out views that are seen as each class, [K]
    views: int  # held out


def attack_object(
    network: nn.Module,
    mesh: Mesh,
    texture: Tensor,
    target: int | None,
    attack: TextureAttack,
    size: int,
    views: int,
    progress: Callable = iter,
) -> AttackedObject:
    """Attack an object from all views and, as a control, from one; and see how often each holds on others.

    Args:
        texture: [3, T, T] in [0, 1].
        target: None for the class after the one that the network mostly sees in it.
        size: pixels a side of the views.
        views: how many are held out.
    """
    held_out = held_out_views(views, attack.views, attack.seed)

    def shares_of_classes(some: Sequence[Tensor]) -> list[Tensor]:
        predicted = predict_views(network, mesh, some, held_out, size)
        counts = (of.argmax(1).bincount(minlength=of.shape[1]) for of in predicted)
        return [count.float().cpu() / views for count in counts]

    (clean,) = shares_of_classes([texture])
    label = int(clean.argmax())
    target = (label + 1) % len(clean) if target is None else target
    found = [
        replace(attack, one_view=one_view)(network, mesh, texture, target, size, progress)
        for one_view in (True, False)
    ]
    rows = (CLEAN, ONE_VIEW, EOT)
    textures = dict(zip(rows, [texture, *found]))
    shares = dict(zip(rows, [clean, *shares_of_classes(found)]))
    return AttackedObject(mesh, textures, label, target, size, shares, views)


def figures(
    network: nn.Module,
    attacked: AttackedObject,
    classes: Sequence[str],
    attack: TextureAttack,
    thing: str,
    wanted: str,
    shown: int,
) -> Iterator[Figure | Scalar]:
    """A turntable with the verdict under each of `shown` views (red: the target), the textures beside each
    other, and the shares of held-out views that are seen as the target.

    Args:
        thing: what the mesh is called.
        wanted: what the texture was to look like, in words that are the same at every checkpoint.
    """
    views, side = turntable(shown), paint.tile_side((attacked.size, attacked.size))
    rows, captions, highlighted = [], [], []
    textures = list(attacked.textures.values())
    for pictures, probabilities in look_at(network, attacked.mesh, textures, views, attacked.size):
        verdicts = probabilities.argmax(1).tolist()
        rows.append([paint.resize(paint.picture(picture), side) for picture in pictures])
        captions.append([f"{classes[c]} {probabilities[i, c]:.0%}" for i, c in enumerate(verdicts)])
        highlighted.append([c == attacked.target for c in verdicts])
    degrees = [f"{360 * i / shown:.3g}°" for i in range(shown)]
    picture, turned = picture_table.turntable(rows, degrees, list(attacked.textures), captions, highlighted)
    hits = {row: share[attacked.target].item() for row, share in attacked.shares.items()}
    yield Figure(
        f"{thing}/{wanted}",
        picture,
        f"{thing}: {describe(attacked, classes, attack)}",
        label=attacked.target,
        values=hits,
        turntable=turned,
    )
    for row, share in hits.items():
        yield Scalar(f"hit/{row}", share)


def object_files(mesh: Mesh, texture: Tensor) -> Iterator[File]:
    """The object with an attacked texture [3, T, T], to open in any viewer and to print."""
    for name, content in obj_contents("object", mesh, texture):
        yield File(name, content)


def describe(attacked: AttackedObject, classes: Sequence[str], attack: TextureAttack) -> str:
    """What was attacked and how often it held, as a line."""
    name, target = classes[attacked.label], classes[attacked.target]
    away = lab_distance(attacked.textures[EOT], attacked.textures[CLEAN]).item()
    changed = f"a change of its texture by CIELAB {away:.1f}"
    if attack.norm == "linf":
        changed += f" within Linf {attack.eps * 255:.3g}/255"
    hits = ", ".join(f"{row} {share[attacked.target]:.1%}" for row, share in attacked.shares.items())
    return (
        f"{name}, to be taken for {target} (red) from any side, {changed}. "
        f"Taken for {target} in {attacked.views} other views: {hits}; as it is, "
        f"{attacked.shares[CLEAN][attacked.label]:.1%} are {name}."
    )


@dataclass(frozen=True)
class AdversarialObject(Analysis):
    """An object with the texture of a class, attacked so that it is taken for another from all sides (EOT)
    and, as a control, from one view: a turntable with the verdict under each view.

    Scalars: "hit/clean", "hit/one view" and "hit/all views", the shares of held-out views seen as the target.
    """

    traits: ClassVar[Traits] = Traits(section="Adversarial", title="Adversarial object", budget_priority=20)
    enabled: bool = setting(
        False, "make these pictures at every checkpoint (about a minute; data.name=objects)"
    )
    mesh: str = setting("turtle", f"shape: {', '.join(shapes.SHAPES)}")
    pattern: str = setting("dots", f"of its texture: {', '.join(CLASSES)}")
    target: str | None = setting(
        None, "class (name or index) to be taken for; null: the one after what it is mostly seen as"
    )
    norm: str = setting(
        "linf", "of the change of the texture: linf, or lab (root mean square)", choices=("linf", "lab")
    )
    eps: float = eps_setting(
        64 / 255, "largest change of the texture, of [0, 1] texels, or in CIELAB", above=0, advice=TEXELS
    )
    steps: int = setting(150, "of the attack", least=1)
    draws: int = setting(24, "random views a step", least=1)
    views: int = setting(200, "held-out views that are counted", least=1)
    shown: int = setting(12, "views of the turntable", least=1)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar | File]:
        channels, size = subject.probes.images.shape[1], subject.probes.images.shape[-1]
        if channels != 3:
            raise ValueError(f"images: have {channels} channels, expected 3: objects have colours")
        texture = pattern_texture(self.pattern, subject.seed).to(subject.device)
        target = None if self.target is None else class_index(self.target, subject.classes)
        attack = TextureAttack(
            norm=self.norm, eps=self.eps, steps=self.steps, draws=self.draws, seed=subject.seed
        )
        attacked = attack_object(
            subject.network,
            shapes.make(self.mesh),
            texture,
            target,
            attack,
            size,
            self.views,
            lambda steps: subject.progress(steps, "adversarial object"),
        )
        wanted = f"{self.pattern} as {self.target or 'the next class'}"
        yield from figures(subject.network, attacked, subject.classes, attack, self.mesh, wanted, self.shown)
        yield from object_files(attacked.mesh, attacked.textures[EOT])


def pattern_texture(pattern: str, seed: int) -> Tensor:
    """A texture [3, T, T] of a class of the data set `objects`; UnknownName where it has none such."""
    label = class_index(pattern, CLASSES)
    return class_textures(torch.tensor([seed]), torch.tensor([label]))[0]
