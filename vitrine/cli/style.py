"""One image in the style of another, as a network sees both.

    python analyze.py style RUN content=FILE style=FILE     the last checkpoint of a run
    python analyze.py style model.name=squeezenet1_0 model.weights=FILE content=FILE style=FILE steps=200

The last needs no data set: the classes are those of the weights. `model.*` is as in training.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from vitrine import config
from vitrine.analyses.style import Style, transfer
from vitrine.cli import arguments as said
from vitrine.cli import image as images
from vitrine.config.errors import blaming
from vitrine.core.settings import SettingError, setting

LARGEST = 384  # pixels of the longer side, where nobody says
LAYERS = ("content_layers", "style_layers")
TAKEN = ("content_weight", "style_weight", "variation_weight", "start", "optimizer", "steps")


@dataclass(frozen=True)
class Asked:
    content: str | None = setting(None, "image whose content is kept (JPEG, PNG, ...)")
    style: str | None = setting(None, "image whose style is taken")
    size: int | None = setting(
        None, f"pixels of the longer side of both; their own, at most {LARGEST}, unless given", least=16
    )
    out: str | None = setting(None, "PNG to write; unless given CONTENT-as-STYLE.png, in RUN/style or here")
    seed: int = setting(0, "of the noise that start=noise starts from", least=0)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


Settings = said.joined(Asked, Style, [*LAYERS, *TAKEN])


def main(arguments: list[str]) -> None:
    if said.helped(arguments, __doc__, Settings):
        return
    started = time.monotonic()
    words, model, own = said.parted(arguments)
    settings = config.filled(Settings, own)
    for key in ("content", "style"):
        if getattr(settings, key) is None:
            raise SettingError(key, f"expected {key}=FILE, an image")

    from vitrine.cli.network import find, layers_of
    from vitrine.examination.subject import (
        bar,  # seconds of imports, which a mistyped setting need not wait for
    )

    found = find(words, model, settings.device)
    content, style = (
        images.read(key, getattr(settings, key), found.channels, settings.size, LARGEST).to(found.device)
        for key in ("content", "style")
    )
    shown = layers_of(found.network, "content_layers", [], content)
    shallow = shown[:-1] or shown
    chosen = {  # each has maps of the image that it is asked about
        "content_layers": settings.content_layers or shallow[-1:],
        "style_layers": settings.style_layers or shallow,
    }
    for key, image in zip(LAYERS, (content, style)):
        layers_of(found.network, key, chosen[key], image)
    name = f"{Path(settings.content).stem}-as-{Path(settings.style).stem}.png"
    default = found.run / "style" / name if found.run else Path(name)
    file = images.place(settings.out, default, [settings.content, settings.style])
    with blaming("style"):
        result = transfer(
            found.network,
            content,
            style,
            seed=settings.seed,
            progress=bar,
            **chosen,
            **{key: getattr(settings, key) for key in TAKEN},
        )
    images.write(file, result[0])
    told = images.told(result[0], started)
    print(f"{settings.content} in the style of {settings.style} by {found.name}, {told}")
    print(f"the picture: {file}")
