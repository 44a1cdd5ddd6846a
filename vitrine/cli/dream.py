"""A photograph as a layer of a network dreams it, or a dream from noise.

    python analyze.py dream RUN image=FILE                    the last checkpoint of a run
    python analyze.py dream CKPT image=FILE layer=features.3  a checkpoint, a layer
    python analyze.py dream RUN from_noise=true unit=7        one channel of the layer, from nothing
    python analyze.py dream model.name=squeezenet1_0 model.weights=FILE image=FILE layer=features.7

The last needs no data set: the classes are those of the weights. `model.*` is as in training.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine.analyses.dream import Dream, dream, noise
from vitrine.analyses.objectives import channel
from vitrine.cli import images
from vitrine.cli.arguments import add_technique_settings
from vitrine.config.errors import as_setting_error
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.file_settings import FileSettings, check_shown

MAX_SIZE = 512  # default limit of the longer side, in pixels
TECHNIQUE_SETTINGS = ("octaves", "ratio", "steps", "step_size", "jitter")


@dataclass(frozen=True)
class OwnSettings:
    image: str | None = setting(None, "photograph to dream of (JPEG, PNG, ...)")
    from_noise: bool = setting(False, "dream from noise, without an image")
    layer: str | None = setting(
        None, "the layer that dreams; the last but one of those that analyses show unless given"
    )
    unit: int | None = setting(None, "a channel of the layer, in place of all of it", least=0)
    size: int | None = setting(
        None, f"pixels of the longer side; the image's own, at most {MAX_SIZE}, unless given", least=16
    )
    out: str | None = setting(None, "PNG to write; unless given RUN/dream/IMAGE.png, or IMAGE-dream.png here")
    seed: int = setting(0, "of the noise and of how the image is rolled", least=0, most=2**63 - 1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


Settings = add_technique_settings(
    add_technique_settings(OwnSettings, FileSettings, images.FILE_SETTINGS), Dream, TECHNIQUE_SETTINGS
)


def main(words: list[str], settings: Any) -> None:
    started = time.monotonic()
    if (settings.image is None) != settings.from_noise:
        raise SettingError("image", "expected image=FILE, or from_noise=true without it")

    # not at the top: seconds of imports, which a mistyped setting need not wait for
    from vitrine.cli.network import find_layers, find_network
    from vitrine.examination.subject import progress_bar

    source = find_network(words, settings.device)
    check_shown(settings.show, source.channels)
    if settings.from_noise:
        image, stem = noise(1, settings.size or MAX_SIZE // 2, source.channels, settings.seed), "noise"
    else:
        image = images.read_image("image", settings.image, source.channels, settings.size, MAX_SIZE, settings)
        stem = Path(settings.image).stem
    image = image.to(source.device)
    layer = find_layers(source.network, "layer", [settings.layer] if settings.layer else [], image)[-2:][0]
    default = source.run / "dream" / f"{stem}.png" if source.run else Path(f"{stem}-dream.png")
    file = images.output_file(settings.out, default, [settings.image])
    with as_setting_error("dream"):
        result = dream(
            source.network,
            image,
            layer if settings.unit is None else channel(layer, settings.unit),
            seed=settings.seed,
            progress=progress_bar,
            **{key: getattr(settings, key) for key in TECHNIQUE_SETTINGS},
        )
    images.write_image(file, result[0], settings.show)
    dreamer = layer if settings.unit is None else f"unit {settings.unit} of {layer}"
    print(f"{stem} as {dreamer} of {source.name} dreams it, {images.describe_size(result[0], started)}")
    print(f"the picture: {file}")
