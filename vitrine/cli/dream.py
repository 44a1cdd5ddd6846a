"""A photograph as a layer of a network dreams it, or a dream from noise.

    python analyze.py dream RUN image=FILE                    the last checkpoint of a run
    python analyze.py dream CKPT image=FILE layer=features.3  a checkpoint, a layer
    python analyze.py dream RUN from_noise=true unit=7        one channel of the layer, from nothing
    python analyze.py dream model.name=squeezenet1_0 model.weights=FILE image=FILE layer=features.7

The last needs no data set: the classes are those of the weights. `model.*` is as in training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vitrine import config
from vitrine.analyses.dream import Dream, dream, noise
from vitrine.analyses.objectives import channel
from vitrine.cli import arguments as said
from vitrine.cli import image as images
from vitrine.config.errors import blaming
from vitrine.core.settings import SettingError, setting

LARGEST = 512  # pixels of the longer side, where nobody says
TAKEN = ("octaves", "ratio", "steps", "step_size", "jitter")


@dataclass(frozen=True)
class Asked:
    image: str | None = setting(None, "photograph to dream of (JPEG, PNG, ...)")
    from_noise: bool = setting(False, "dream from noise, without an image")
    layer: str | None = setting(None, "that dreams; the last but one that is looked at unless given")
    unit: int | None = setting(None, "a channel of the layer, in place of all of it", least=0)
    size: int | None = setting(
        None, f"pixels of the longer side; the image's own, at most {LARGEST}, unless given", least=16
    )
    out: str | None = setting(None, "PNG to write; unless given RUN/dream/IMAGE.png, or IMAGE-dream.png here")
    seed: int = setting(0, "of the noise and of how the image is rolled", least=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


Settings = said.joined(Asked, Dream, TAKEN)


def main(arguments: list[str]) -> None:
    if said.helped(arguments, __doc__, Settings):
        return
    started = time.monotonic()
    words, model, own = said.parted(arguments)
    settings = config.filled(Settings, own)
    if (settings.image is None) != settings.from_noise:
        raise SettingError("image", "expected image=FILE, or from_noise=true without it")

    from vitrine.cli.network import find, layers_of
    from vitrine.examination.subject import (
        bar,  # seconds of imports, which a mistyped setting need not wait for
    )

    found = find(words, model, settings.device)
    if settings.from_noise:
        image, stem = noise(1, settings.size or LARGEST // 2, found.channels, settings.seed), "noise"
    else:
        image = images.read("image", settings.image, found.channels, settings.size, LARGEST)
        stem = Path(settings.image).stem
    image = image.to(found.device)
    layer = layers_of(found.network, "layer", [settings.layer] if settings.layer else [], image)[-2:][0]
    default = found.run / "dream" / f"{stem}.png" if found.run else Path(f"{stem}-dream.png")
    file = images.place(settings.out, default, [settings.image])
    with blaming("dream"):
        dreamt = dream(
            found.network,
            image,
            layer if settings.unit is None else channel(layer, settings.unit),
            seed=settings.seed,
            progress=bar,
            **{key: getattr(settings, key) for key in TAKEN},
        )
    images.write(file, dreamt[0])
    seen = layer if settings.unit is None else f"unit {settings.unit} of {layer}"
    print(f"{stem} as {seen} of {found.name} dreams it, {images.told(dreamt[0], started)}")
    print(f"the picture: {file}")
