"""One image in the style of another, as a network sees both.

    python analyze.py style RUN content=FILE style=FILE     the last checkpoint of a run
    python analyze.py style model.name=squeezenet1_0 model.weights=FILE content=FILE style=FILE steps=200

The last needs no data set: the classes are those of the weights. `model.*` is as in training.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine.analyses.style import Style, transfer
from vitrine.cli import images
from vitrine.cli.arguments import add_technique_settings
from vitrine.config.errors import as_setting_error
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.file_settings import FileSettings

MAX_SIZE = 384  # default limit of the longer side, in pixels
LAYERS = ("content_layers", "style_layers")
TECHNIQUE_SETTINGS = ("content_weight", "style_weight", "variation_weight", "start", "optimizer", "steps")


@dataclass(frozen=True)
class OwnSettings:
    content: str | None = setting(None, "image whose content is kept (JPEG, PNG, ...)")
    style: str | None = setting(None, "image whose style is taken")
    size: int | None = setting(
        None, f"pixels of the longer side of both; their own, at most {MAX_SIZE}, unless given", least=16
    )
    out: str | None = setting(None, "PNG to write; unless given CONTENT-as-STYLE.png, in RUN/style or here")
    seed: int = setting(0, "of the noise that start=noise starts from", least=0, most=2**63 - 1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


Settings = add_technique_settings(
    add_technique_settings(OwnSettings, FileSettings, images.FILE_SETTINGS),
    Style,
    [*LAYERS, *TECHNIQUE_SETTINGS],
)


def main(words: list[str], settings: Any) -> None:
    started = time.monotonic()
    for key in ("content", "style"):
        if getattr(settings, key) is None:
            raise SettingError(key, f"expected {key}=FILE, an image")

    # not at the top: seconds of imports, which a mistyped setting need not wait for
    from vitrine.cli.network import find_layers, find_network
    from vitrine.examination.subject import progress_bar

    source = find_network(words, settings.device)
    content, style = (
        images.read_image(key, file, source.channels, settings.size, MAX_SIZE, settings).to(source.device)
        for key, file in (("content", settings.content), ("style", settings.style))
    )
    shown = find_layers(source.network, "content_layers", [], content)
    shallow = shown[:-1] or shown
    chosen = {  # checked below: each has maps of its image
        "content_layers": settings.content_layers or shallow[-1:],
        "style_layers": settings.style_layers or shallow,
    }
    for key, image in zip(LAYERS, (content, style)):
        find_layers(source.network, key, chosen[key], image)
    name = f"{Path(settings.content).stem}-as-{Path(settings.style).stem}.png"
    default = source.run / "style" / name if source.run else Path(name)
    file = images.output_file(settings.out, default, [settings.content, settings.style])
    with as_setting_error("style"):
        result = transfer(
            source.network,
            content,
            style,
            seed=settings.seed,
            progress=progress_bar,
            **chosen,
            **{key: getattr(settings, key) for key in TECHNIQUE_SETTINGS},
        )
    images.write_image(file, result[0], settings.show)
    size = images.describe_size(result[0], started)
    print(f"{settings.content} in the style of {settings.style} by {source.name}, {size}")
    print(f"the picture: {file}")
