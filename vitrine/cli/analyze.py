"""Look inside networks that exist already: the same pictures as training gives for the same weights.

    python analyze.py RUN                            whatever is missing at the checkpoints of a run
    python analyze.py CKPT [CKPT ...]                these checkpoints only
    python analyze.py RUN follow=true                while it trains with analysis.mode=follow, elsewhere
    python analyze.py RUN test=true                  its best checkpoint on the test split, once
    python analyze.py RUN features.steps=512         with other settings (analysis.features.steps)
    python analyze.py model.name=squeezenet1_0 model.weights=FILE data.name=folder data.root=DIR
                                                     a network that was never trained here

Beside that, commands of their own; `python analyze.py COMMAND --help` tells more of each:

    python analyze.py dream RUN image=FILE           a photograph as a layer dreams it
    python analyze.py style RUN content=FILE style=FILE
                                                     one image in the style of another
    python analyze.py samples RUN image=FILE         the training images that speak for what it says of one
    python analyze.py export RUN format=onnx         its network for other programs
    python analyze.py compare RUN RUN ...            several runs beside each other on one page
    python analyze.py report RUN [RUN ...]           a workspace and a report on Weights & Biases
    python analyze.py sync RUN [RUN ...]             upload what was logged there offline

`--help` lists every setting, `--help SECTION` some.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrine import config
from vitrine.analyses import ANALYSES
from vitrine.cli import COMMANDS, follow, measure_test
from vitrine.cli.arguments import run_command
from vitrine.cli.help import print_help_if_asked
from vitrine.config import recipes
from vitrine.core.home import expand_home
from vitrine.core.settings import SettingError
from vitrine.distributed.processes import launched
from vitrine.runs import run_folders

if TYPE_CHECKING:
    from torch import nn


def main(arguments: list[str]) -> None:
    first = next((i for i, a in enumerate(arguments) if a not in ("-h", "--help")), None)
    if first is not None and arguments[first] in COMMANDS:
        run_command(arguments[first], arguments[:first] + arguments[first + 1 :])
        return
    if print_help_if_asked(arguments, __doc__):
        return
    start = time.monotonic()
    arguments = [_with_section(expand_home(a)) for a in arguments]
    paths = [a for a in arguments if not recipes.is_override(a) and Path(a).suffix not in (".yaml", ".yml")]
    follow_settings, overrides = follow.split_arguments([a for a in arguments if a not in paths])
    if follow_settings:
        if len(paths) != 1:
            raise SettingError("follow", f"{len(paths)} runs came, expected one")
        follow.follow(paths[0], follow_settings, overrides)
        return
    _refuse_several_processes()
    test, overrides = measure_test.split_arguments(overrides)
    if test:
        measure_test.main(paths, test, overrides)
        return
    if not paths:
        analyze_weights(overrides, start)
    chosen: dict[Path, list[Path]] = {}
    for path in paths:
        files = chosen.setdefault(run_folders.find_run(path), [])
        files += [Path(path).resolve()] if Path(path).is_file() else []
    for folder, files in chosen.items():
        analyze_run(folder, files, overrides, start)


def analyze_run(folder: Path, files: list[Path], overrides: list[str], start: float) -> None:
    """Run the analyses that are missing at a run's checkpoints: those in `files`; all, if it is empty."""
    settings = config.load_saved(folder, overrides)

    from vitrine.runs.checkpoint_files import checkpoint_files, read_step

    checkpoints = list(checkpoint_files(folder / "checkpoints"))
    chosen = [(step, file) for step, file in checkpoints if not files or file.resolve() in files]
    known = {file.resolve() for _, file in chosen}
    # last.ckpt, best.ckpt, a copy: the same step under another name
    chosen += [(step, file) for file in files if file not in known and (step := read_step(file)) is not None]
    if not chosen:
        raise SettingError(str(folder), "has no checkpoint")
    _analyze(settings, _load_checkpoints(settings, chosen), start)


def analyze_weights(overrides: list[str], start: float) -> None:
    """Analyze the network that `model` describes, as step 0 of a run of its own."""
    settings = config.load(overrides)
    if settings.model.weights is None:
        raise SettingError("model.weights", f"nothing to analyze; {run_folders.EXPECTED}")
    if any((settings.folder / left).exists() for left in ("checkpoints", "run.json")):
        problem = f"{settings.folder} is a run that was trained, whose settings would be lost"
        raise SettingError("run.name", f"{problem}; expected another name")
    given = recipes.merge_arguments(overrides).get("data", {})
    if getattr(settings.data, "val_fraction", 0) and "val_fraction" not in given:
        settings.data.val_fraction = 1.0  # nothing was trained on a part of them

    from vitrine import assembly

    assembly.check_network(settings)
    data = assembly.build_data(settings)
    network = assembly.build_network(settings, data)
    run_folders.claim(settings.folder, resume=True)
    settings.save()
    _analyze(settings, [(0, network)], start, data)


def _analyze(
    settings: config.Settings, networks: Iterable[tuple[int, nn.Module]], start: float, data: Any = None
) -> None:
    from vitrine import assembly
    from vitrine.examination.summary import summarize
    from vitrine.reporting.page import PageSink

    examiner, logs = None, None
    for step, network in networks:
        if examiner is None:
            data = data or assembly.build_data(settings)
            examiner = assembly.build_examiner(settings, network, data, retry=True)
        if not examiner.missing(network, step):
            continue
        if logs is None:
            logs = assembly.open_logs(settings, data.classes)
            examiner.sinks = logs.sinks
        examiner.examine(network, step)
    if logs is None:
        PageSink(settings.folder).close()
    else:
        logs.close()
        print(*(note for note in logs.notes if note), sep="\n")
    summary = summarize(examiner.reports) if examiner.reports else "nothing was missing"
    print(f"{summary} ({time.monotonic() - start:.0f} s in all)")
    print(f"the page: {settings.folder / 'index.html'}")


def _load_checkpoints(
    settings: config.Settings, files: list[tuple[int, Path]]
) -> Iterator[tuple[int, nn.Module]]:
    from vitrine import assembly
    from vitrine.config.errors import as_setting_error

    for step, file in files:
        with as_setting_error(str(file)):
            network = assembly.checkpoint_loader(settings)(file)
        yield step, network


def _refuse_several_processes() -> None:
    processes = launched()
    if processes.world_size == 1:
        return
    if not processes.is_global_zero:
        raise SystemExit(2)  # rank 0 says why
    expected = "several processes divide a run's checkpoints with follow=true; else start one"
    raise SettingError("analyze.py", f"was started as {processes.world_size} processes: {expected}")


def _with_section(argument: str) -> str:
    """`cam.enabled=false` is short for `analysis.cam.enabled=false`."""
    first = argument.split("=")[0].split(".")[0]
    return f"analysis.{argument}" if first in ANALYSES and recipes.is_override(argument) else argument
