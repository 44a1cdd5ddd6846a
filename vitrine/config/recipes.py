"""Recipe files and `key=value` arguments as nested dicts, merged in their order."""

import difflib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from vitrine.config import yaml_text
from vitrine.core.home import expand_home
from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError

KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*")
MAX_DEPTH = 32  # of nested settings; those of ours are 4 deep
MAX_VALUES = 100_000  # of a recipe, aliases counted as often as they occur


def merge_arguments(arguments: Sequence[str], base: Sequence[Path] = ()) -> dict[str, Any]:
    """All recipes (`base` first) and then all overrides, merged into nested dicts, unchecked.

    Values are as `yaml_text.load` gives them.
    """
    overrides = [a for a in arguments if is_override(a)]
    files = [*base, *(Path(expand_home(a)) for a in arguments if a not in overrides)]
    raw: dict[str, Any] = {}
    for source in [*map(_read_recipe, files), *map(_parse_override, overrides)]:
        _merge(raw, source)
    return raw


def is_override(argument: str) -> bool:
    """Whether an argument is key=value, and not a file with such a name (step=500.ckpt)."""
    try:
        return "=" in argument and not Path(argument).exists()
    except (OSError, ValueError):  # too long for a file, or with characters that none has
        return True


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with the program, by name: of the package, or of `configs/` in a clone."""
    package = Path(__file__).resolve().parents[1]
    folder = next(f for f in (package / "configs", package.parent / "configs") if f.is_dir())
    # sweep.yaml is for `wandb sweep`
    return {file.stem: file for file in sorted(folder.glob("*.yaml")) if file.stem != "sweep"}


def _find_recipe(path: Path) -> Path:
    """`path` if there is such a file, else the shipped recipe of that name, if any."""
    # os.path: a name that no file can have is no file, where Path.is_file raises
    if not os.path.isfile(path) and path.parent in (Path(), Path("configs")):
        return shipped_recipes().get(path.stem, path)
    return path


def _read_recipe(path: Path) -> dict[str, Any]:
    file = _find_recipe(path)
    if file.suffix not in (".yaml", ".yml"):
        close = nearest(str(path), shipped_recipes())
        hint = f"; did you mean {path}=...?" if KEY.fullmatch(str(path)) else ""
        hint = f"; did you mean {' or '.join(close)}?" if close else hint
        raise SettingError(str(path), f"is neither a recipe (.yaml) nor key=value{hint}")
    try:
        loaded = yaml_text.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        others = sorted({*map(str, path.parent.glob("*.yaml")), *shipped_recipes()})
        close = difflib.get_close_matches(str(path), others, n=1) or nearest(path.stem, [*others])[:1]
        hint = f"; did you mean {close[0]}?" if close else f"; recipes: {', '.join(others)}"
        raise SettingError(str(path), f"there is no such recipe{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(str(path), f"cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingError(str(path), f"is not YAML: {' '.join(str(error).split())}") from None
    _refuse_excessive(str(path), loaded)
    if loaded is not None and not isinstance(loaded, dict):
        raise SettingError(str(path), f"holds a {type(loaded).__name__}, expected sections such as `data:`")
    return loaded or {}


def _parse_override(argument: str) -> dict[str, Any]:
    key, _, text = argument.partition("=")
    if not KEY.fullmatch(key):
        hint = f"; write {key.lstrip('-')}=... without dashes" if key.startswith("-") else ""
        raise SettingError(argument, f"is not of the form key=value, e.g. data.batch_size=64{hint}")
    value = yaml_text.load_argument(text)
    for part in reversed(key.split(".")):
        value = {part: value}
    _refuse_excessive(argument, value)
    return value


def _refuse_excessive(source: str, tree: Any) -> None:
    """Raise SettingError for a tree too deep, or repeated by too many aliases (`[*a, *a]`), to be handled."""
    level, total = [(tree, 1)], 0
    for _ in range(MAX_DEPTH + 1):
        inner: dict[int, tuple[Any, int]] = {}  # each object once, with the number of times it occurs
        for node, times in level:
            for child in _children(node):
                inner[id(child)] = child, inner.get(id(child), (child, 0))[1] + times
        level = list(inner.values())
        total += sum(times for _, times in level)
        if total > MAX_VALUES:
            break
    if level:
        raise SettingError(source, f"is nested more than {MAX_DEPTH} deep or repeats itself too often")


def _children(node: Any) -> Collection[Any]:
    node = node.value if isinstance(node, yaml_text.Scalar) else node
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _merge(into: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
