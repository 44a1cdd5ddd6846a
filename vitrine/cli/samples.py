"""The training images that speak for what a network says of an image of your own, and against it.

    python analyze.py samples RUN image=FILE                    the last checkpoint of a run
    python analyze.py samples RUN image=FILE checkpoint=best    another: best, or a step
    python analyze.py samples CKPT image=FILE label=stop        a checkpoint; the class that the image is of
    python analyze.py samples RUN image=FILE samples.shown=16   with other settings of the technique than the
                                                                run's (`python train.py --help analysis`)

One picture for each score, as the run's page has them of its own images. The run's training images are read
once for each of its checkpoints up to that one, as TracIn is a sum over the training; the output says which.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from vitrine.core.settings import SettingError, setting

NAME = "samples"  # of the technique
SECTIONS = (NAME, "analysis", "data")  # whose settings win over the run's


@dataclass(frozen=True)
class Settings:
    image: str | None = setting(None, "the image (JPEG, PNG, ...)")
    label: str | None = setting(
        None, "the class that it is of (name or index); what the network says unless given"
    )
    checkpoint: str = setting("last", "of a run: last, best (the last where none is marked), or a step")
    fit: str | None = setting(
        None,
        "how it becomes a square: crop (its middle), letterbox, stretch; null: as the run's images do",
        choices=("crop", "letterbox", "stretch"),
    )
    out: str | None = setting(None, "folder for the pictures; RUN/samples unless given")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")


def main(words: list[str], settings: Settings) -> None:
    started = time.monotonic()
    if settings.image is None:
        raise SettingError("image", "expected image=FILE")
    if not Path(settings.image).is_file():
        raise SettingError("image", f"there is no file {settings.image}")
    if settings.out is not None and Path(settings.out).exists() and not Path(settings.out).is_dir():
        raise SettingError("out", f"is {settings.out}, expected a folder")

    # not at the top: seconds of imports, which a mistyped setting need not wait for
    import torch

    from vitrine import assembly
    from vitrine.analyses.base import Probes
    from vitrine.analyses.samples import ProbesAlone, TracInAlone
    from vitrine.analyses.threat_model import class_index
    from vitrine.cli.images import output_file, prepare_image, write_picture
    from vitrine.cli.network import choose_checkpoint, find_network
    from vitrine.config import load_saved, recipes
    from vitrine.config.errors import as_setting_error
    from vitrine.core.class_names import refuse_other_classes
    from vitrine.examination.own_image import explain_images
    from vitrine.modules.network_record import record_of
    from vitrine.runs.checkpoint_files import checkpoint_files, read_step
    from vitrine.runs.store import Store

    given = [word for word in words if recipes.is_override(word)]
    if model := [word.partition("=")[0] for word in given if word.startswith("model.")]:
        raise SettingError(model[0], "is the run's, which says itself which network it holds")
    places = [word for word in words if word not in given]
    words, file = choose_checkpoint(places, settings.checkpoint, default="last")
    source = find_network(words, settings.device)  # says what is wrong with the words
    if source.run is None or file is None:
        raise SettingError(words[0], "is in no run, whose training images would be known (no config.yaml)")
    saved = load_saved(source.run, [f"analysis.{a}" if a.startswith(f"{NAME}.") else a for a in given])
    data = assembly.build_data(saved)
    refuse_other_classes(data.classes, record_of(source.network).classes, file)
    image = prepare_image("image", settings.image, data, settings.fit).to(source.device)
    with torch.no_grad():
        said = source.network(image).softmax(1)[0]
    with as_setting_error("label"):
        label = int(said.argmax()) if settings.label is None else class_index(settings.label, data.classes)
    probes = Probes(image, torch.tensor([label], device=source.device), torch.tensor([-1]))
    if (last := read_step(file)) is None:
        raise SettingError(str(file), "cannot be read")
    every = dict(checkpoint_files(source.run / "checkpoints"))
    checkpoints = {step: every[step] for step in sorted(every) if step < last} | {last: file}
    analysis = replace(getattr(saved.analysis, NAME), enabled=True)
    saved.analysis.device = str(source.device)
    with as_setting_error(NAME):  # a checkpoint that cannot be read
        load, store = assembly.checkpoint_loader(saved), Store(source.run)
        how = load, data, saved.analysis, store, source.device
        own = {field.name: getattr(analysis, field.name) for field in fields(analysis)}
        result = explain_images(NAME, ProbesAlone(**own), TracInAlone(**own), probes, checkpoints, *how)

    folder = source.run / NAME if settings.out is None else Path(settings.out)
    stem, written = Path(settings.image).stem, []
    for figure in (figure for figure in result.figures if figure.probe is not None):
        kind = figure.key.rpartition("/")[2]
        written.append(output_file(None, folder / f"{stem}-{kind}.png", [settings.image]))
        write_picture(written[-1], figure.image)
        print(f"{kind}: {figure.caption}")
    if not written:
        reason = next(iter(result.files.values()), "there is nothing to say of this network")
        raise SettingError(NAME, reason.strip())
    steps = ", ".join(f"{step:,}" for step in checkpoints)
    share, took = said.max().item(), time.monotonic() - started
    print(
        f"{source.name} says {data.classes[int(said.argmax())]} {share:.0%} of {settings.image}; "
        f"went through step {steps} in {took:.0f} s"
    )
    print(f"the pictures: {', '.join(map(str, written))}")
