"""Look inside networks that exist already: the same pictures as training gives for the same weights.

    python analyze.py RUN                            whatever is missing at the checkpoints of a run
    python analyze.py CKPT [CKPT ...]                these checkpoints only
    python analyze.py RUN follow=true                while it trains with analysis.mode=follow, elsewhere
    python analyze.py RUN features.steps=512         with other settings (analysis.features.steps)
    python analyze.py model.name=squeezenet1_0 model.weights=FILE data.name=folder data.root=DIR
                                                     a network that was never trained here

Beside that, commands of their own; `python analyze.py COMMAND --help` tells more of each:

    python analyze.py dream RUN image=FILE           a photograph as a layer dreams it
    python analyze.py style RUN content=FILE style=FILE
                                                     one image in the style of another
    python analyze.py compare RUN RUN ...            several runs beside each other on one page
    python analyze.py report RUN [RUN ...]           a workspace and a report on Weights & Biases
    python analyze.py sync RUN [RUN ...]             upload what was logged there offline

`--help` lists every setting, `--help SECTION` some.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitrine import config
from vitrine.analyses import ANALYSES
from vitrine.cli import COMMANDS, follow
from vitrine.cli.help import print_help_if_asked
from vitrine.config import recipes
from vitrine.core.settings import SettingError
from vitrine.distributed import processes
from vitrine.runs import run_folders


def main(arguments: list[str]) -> None:
    first = next((i for i, a in enumerate(arguments) if a not in ("-h", "--help")), None)
    if first is not None and arguments[first] in COMMANDS:
        COMMANDS[arguments[first]](arguments[:first] + arguments[first + 1 :])
        return
    if print_help_if_asked(arguments, __doc__):
        return
    started = time.monotonic()
    arguments = [_spelled_out(a) for a in arguments]
    words = [a for a in arguments if not recipes.is_override(a) and Path(a).suffix not in (".yaml", ".yml")]
    how, said = follow.parted([a for a in arguments if a not in words])
    if how:
        if len(words) != 1:
            raise SettingError("follow", f"{len(words)} runs came, expected one")
        follow.follow(words[0], how, said)
        return
    _alone()
    folders = {run_folders.find_run(word): None for word in words}
    if not words:
        look_at_weights(said, started)
    for folder in folders:
        files = [Path(w).resolve() for w in words if Path(w).is_file() and run_folders.find_run(w) == folder]
        look_at_run(folder, files, said, started)


def look_at_run(folder: Path, files: list[Path], said: list[str], started: float) -> None:
    """Make what is missing at a run's checkpoints, or at some of them."""
    placed = [f"run.root={folder.parent}", f"run.name={folder.name}"]
    settings = config.load([*said, *placed], base=[folder / "config.yaml"])

    from vitrine.runs.checkpoint_files import checkpoint_files

    found = list(checkpoint_files(folder / "checkpoints"))
    wanted = [(step, file) for step, file in found if not files or file.resolve() in files]
    known = {file.resolve() for _, file in wanted}
    others = [file for file in files if file not in known]
    if others:  # last.ckpt, best.ckpt, a copy: the same step under another name
        from vitrine.runs.checkpoint_files import read_step

        wanted += [(step, file) for file in others if (step := read_step(file)) is not None]
    if not wanted:
        raise SettingError(str(folder), "has no checkpoint to look at")
    _look(settings, _loaded(wanted), started)


def look_at_weights(said: list[str], started: float) -> None:
    """Look at the network that `model` describes, as step 0 of a run of its own."""
    settings = config.load(said)
    if settings.model.weights is None:
        expected = "expected the folder of a run, a checkpoint of one, or model.name=... model.weights=..."
        raise SettingError("model.weights", f"nothing to look at; {expected}")
    if settings.data.name == "folder" and "val_fraction" not in recipes.merge_arguments(said).get("data", {}):
        settings.data.val_fraction = 1.0  # nothing was trained on a part of them
        settings.tree.data.val_fraction = 1.0

    from vitrine import assembly

    data = assembly.data(settings)
    network = assembly.network(settings, data)
    run_folders.claim(settings.folder, resume=True)
    settings.save()
    _look(settings, [(0, network)], started, data)


def _look(settings: config.Settings, networks: Any, started: float, data: Any = None) -> None:
    from vitrine import assembly
    from vitrine.examination.examine import examine, missing, summary, weights_hash
    from vitrine.examination.subject import make_subject
    from vitrine.reporting.page import PageSink
    from vitrine.runs.store import Store

    store, logs, reports = Store(settings.folder), None, []
    for step, network in networks:
        data = data or assembly.data(settings)
        analyses = assembly.analyses(settings, network, data)
        weights = weights_hash(network)
        if not missing(store, step, analyses, weights, again=True):
            continue
        logs = logs or assembly.logs(settings, data.classes)
        previous, device, strict = store.previous(step), assembly.device(settings), settings.analysis.strict
        subject = make_subject(network, data, settings.analysis, step, previous=previous, device=device)
        reports.append(
            examine(subject, analyses, store, logs.sinks, weights=weights, strict=strict, again=True)
        )
    if logs is None:
        PageSink(settings.folder).close()
    else:
        logs.close()
        print(*(note for note in logs.notes if note), sep="\n")
    made = summary(reports) if reports else "nothing was missing"
    print(f"{made} ({time.monotonic() - started:.0f} s in all)")
    print(f"the page: {settings.folder / 'index.html'}")


def _loaded(wanted: list[tuple[int, Path]]) -> Iterator[tuple[int, Any]]:
    from vitrine.config.errors import as_setting_error
    from vitrine.modules import load_checkpoint

    for step, file in wanted:
        with as_setting_error(str(file)):
            yield step, load_checkpoint(file)


def _alone() -> None:
    """Refuse to be one of several processes, which would all do the same."""
    if (those := processes.started()).count == 1:
        return
    if not those.first:
        raise SystemExit(2)  # the first says why
    divided = "several processes divide a run's checkpoints with follow=true; else start one"
    raise SettingError("analyze.py", f"was started as {those.count} processes: {divided}")


def _spelled_out(argument: str) -> str:
    """`cam.enabled=false` is short for `analysis.cam.enabled=false`."""
    first = argument.split("=")[0].split(".")[0]
    return f"analysis.{argument}" if first in ANALYSES and recipes.is_override(argument) else argument
