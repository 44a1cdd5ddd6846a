"""The folders of runs: their names, their creation, and how command lines refer to them."""

import datetime
import itertools
import os
import re
from collections.abc import Collection
from pathlib import Path

from vitrine.core.home import expand_home
from vitrine.core.settings import SettingError

EXPECTED = "expected the folder of a run, a checkpoint of one, or model.name=... model.weights=..."


def default_name(data: str, model: str) -> str:
    """The name of a run that was given none: data, model and the current time.

    In a W&B sweep, whose agents may start in the same second, the id of the W&B run is appended.
    """
    # path/to/file.py:Class, timm/NAME, hf/FOLDER
    data, model = (re.split(r"[/:]", name.rstrip("/"))[-1] for name in (data, model))
    name = f"{data}-{model}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    if os.environ.get("WANDB_SWEEP_ID") and os.environ.get("WANDB_RUN_ID"):
        name += f"-{os.environ['WANDB_RUN_ID']}"
    return name


def check_name(name: str, root: str) -> None:
    """Raise SettingError unless `name` is a folder inside `root`."""
    base = Path(root).resolve()
    try:
        folder = (base / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingError("run.name", f"is {name!r}, which is no folder name: {error}") from None
    if not name.strip() or folder == base or base not in folder.parents:
        raise SettingError("run.name", f"is {name!r}, expected a folder inside run.root={root!r}")
    if len(name.encode()) > 200 or any(ord(c) < 32 for c in name):
        raise SettingError("run.name", "is too long or holds control characters, expected a folder name")


def claim(folder: Path, resume: bool, unnamed: bool = False) -> Path:
    """Create and return the folder of a run, which must not exist unless the run is resumed.

    Args:
        unnamed: the name is a `default_name`. If a run that started in the same second has it, the next free
            one is taken: NAME-2, NAME-3, ...

    Raises:
        SettingError: another run has it, or it cannot be created.
    """
    candidate = folder
    for number in itertools.count(2):
        try:
            candidate.mkdir(parents=True, exist_ok=resume)  # succeeds for one process of many
            break
        except FileExistsError:
            if not unnamed:
                raise SettingError("run.name", f"{folder} was made by another run just now") from None
        except OSError as error:
            raise SettingError("run.root", f"{folder} cannot be made: {error.strerror}") from None
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def claim_examination(folder: Path, resume: bool, taken: Collection[Path] = ()) -> Path:
    """Create a folder for the pictures of a training that is not ours: the next free name if another's
    pictures are in it (NAME-2, NAME-3, ...), unless that training is resumed, and if it is `taken`.

    Raises:
        OSError: it cannot be created.
    """
    candidate, number = folder, 1
    while candidate in taken or (not resume and (candidate / "analysis").exists()):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    candidate.mkdir(parents=True, exist_ok=True)
    return candidate


def find_run(word: str) -> Path:
    """The folder of the run that `word` names on a command line: by its folder or by a checkpoint in it.

    Raises:
        SettingError: it is neither.
    """
    path = Path(expand_home(word))
    folder = path if path.is_dir() else path.parent.parent
    if not path.exists():
        known = describe_runs(str(path.parent if path.parent.is_dir() else "runs"))
        raise SettingError(word, f"is not there; {known}")
    if not (folder / "config.yaml").is_file():
        problem = f"is not a run, nor a checkpoint in one (no config.yaml); {EXPECTED}"
        raise SettingError(word, problem)
    return folder.resolve()


def describe_runs(root: str) -> str:
    """The names of the runs in a folder, as part of a message."""
    names = sorted(p.parent.name for p in Path(root).glob("*/config.yaml"))
    return f"runs in {root}: {', '.join(names)}" if names else f"there are no runs in {root}"
