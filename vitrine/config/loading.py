"""Settings: typed defaults, recipes, the command line; merged in that order, checked, and answered kindly.

    python train.py [RECIPE.yaml ...] [key=value ...]

Every setting is declared once, in the dataclass that uses it. What a name chooses (`data.name=folder`,
`objective.name=pgd`) also chooses which settings its section has.
"""

import dataclasses
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitrine.config import trainer_arguments
from vitrine.config.assignment import assign, silence_renames, writable_tree
from vitrine.config.declarations import declared
from vitrine.config.recipes import merge_arguments
from vitrine.config.schema import RunSettings, sections
from vitrine.config.yaml_text import Scalar, UnreadableText, convert
from vitrine.core import atomic
from vitrine.core.garbage import none_while_importing
from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError, check, field_type
from vitrine.runs import run_folders


@dataclass(frozen=True)
class Settings:
    """The resolved settings, one object a section."""

    run: RunSettings
    data: Any
    model: Any
    objective: Any
    optimizer: Any
    trainer: dict[str, Any]
    checkpoint: Any
    validation: Any
    analysis: Any
    logging: Any
    unnamed: bool = False  # run.name was not given, and is from the clock

    @property
    def folder(self) -> Path:
        """The run's directory."""
        return Path(self.run.root) / str(self.run.name)

    def rename(self, name: str) -> None:
        self.run.name = name

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain containers, by section."""
        return {"trainer": self.trainer} | {name: asdict(getattr(self, name)) for name in sections()}

    def to_yaml(self) -> str:
        """All settings as YAML, from which `load` gives the same."""
        return OmegaConf.to_yaml(OmegaConf.create(self.to_dict()))

    def save(self) -> None:
        """Write config.yaml into the run's directory."""
        atomic.write_text(self.folder / "config.yaml", self.to_yaml())


def load(
    arguments: Sequence[str], base: Sequence[Path] = (), meanwhile: Callable[[Settings], None] | None = None
) -> Settings:
    """The settings that recipes and `key=value` arguments give, later ones winning over earlier ones.

    Args:
        arguments: recipe files (.yaml, .yml) and `key=value`, as on the command line.
        base: recipes that come before all of these.
        meanwhile: begins something with them before the seconds of imports, unless these are done already.

    Raises:
        SettingError: names the key, what came, what was expected and the likely intention.
    """
    if "lightning" in sys.modules:
        return _load(arguments, base, sections())
    right = _load(arguments, base, sections(declared))  # what is wrong is said before the seconds of imports
    if meanwhile is not None:
        meanwhile(right)
    with silence_renames(), none_while_importing():  # renames were said just now
        return _load(arguments, base, sections())


def _load(arguments: Sequence[str], base: Sequence[Path], schemas: Mapping[str, Any]) -> Settings:
    raw = merge_arguments(arguments, base)
    _complete_saved(raw, merge_arguments([], base), schemas)
    tree = OmegaConf.create({"trainer": trainer_arguments.DEFAULTS})
    for name, schema in schemas.items():
        if isinstance(schema, type):
            tree[name] = writable_tree(schema)
            continue
        chosen = str(convert(_mapping(raw, name).get("name", schema.default), str))
        try:
            tree[name] = writable_tree(schema(chosen))
        except ValueError as error:
            raise SettingError(f"{name}.name", str(error)) from None
        tree[name].name = chosen
    for key, value in raw.items():
        if key != "trainer":
            assign(tree, key, value, lambda k: _unknown(k, tree, schemas))
    for key, value in _mapping(raw, "trainer").items():
        try:
            tree.trainer[key] = convert(value, trainer_arguments.parameters().get(key, Any))
        except (UnreadableText, OmegaConfBaseException) as error:
            raise SettingError(f"trainer.{key}", str(error).splitlines()[0]) from None
    try:
        OmegaConf.resolve(tree)
        values = {str(name): OmegaConf.to_object(tree[name]) for name in tree}
    except OmegaConfBaseException as error:
        raise SettingError(error.full_key or "settings", str(error.msg or error).splitlines()[0]) from None
    for name in schemas:
        check(values[name], name)
    trainer_arguments.check(values["trainer"])
    unnamed = values["run"].name is None
    if unnamed:
        values["run"].name = run_folders.default_name(values["data"].name, values["model"].name)
    run_folders.check_name(values["run"].name, values["run"].root)
    return Settings(**values, unnamed=unnamed)


def parse_settings(schema: type, arguments: Sequence[str], base: Sequence[Path] = ()) -> Any:
    """One dataclass of settings from recipes (`base` first) and `key=value` arguments, typed and checked as
    those of a section are."""
    tree = writable_tree(schema)

    def unknown(key: str) -> SettingError:
        known = [*dotted_keys(OmegaConf.to_container(tree))]
        close = nearest(key, known)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(map(str, tree))}"
        return SettingError(key, f"there is no such setting here; {hint}")

    for key, value in merge_arguments(arguments, base).items():
        assign(tree, key, value, unknown)
    values = OmegaConf.to_object(tree)
    check(values)
    return values


def _complete_saved(raw: dict[str, Any], saved: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    """Add what a run saved by an earlier version did where it had no setting for it yet (`before`)."""
    for section, schema in schemas.items():
        own, now = _mapping(saved, section), _mapping(raw, section)
        if not own:
            continue
        if not isinstance(schema, type):
            named, chosen = (str(convert(of.get("name", schema.default), str)) for of in (own, now))
            if named != chosen or named not in schema.names:
                continue
            schema = schema(named)
        for field in dataclasses.fields(schema):
            before = field.metadata.get("before", dataclasses.MISSING)
            if before is not dataclasses.MISSING and field.name not in {*own, *now}:
                raw[section][field.name] = before


def _mapping(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    value = value.value if isinstance(value, Scalar) else value
    if value is not None and not isinstance(value, dict):
        raise SettingError(key, f"is {value!r}, expected settings below it, e.g. {key}.name=...")
    return value or {}


def _unknown(key: str, tree: DictConfig, schemas: Mapping[str, Any]) -> SettingError:
    """The error for a setting that does not exist: where it does exist, or what was probably meant."""
    section, _, rest = key.partition(".")
    schema = schemas.get(section)
    if rest and schema and not isinstance(schema, type):
        owners = [name for name in schema.names if _has_setting(schema(name), rest.split("."))]
        if owners:
            chosen, some = tree[section].name, ", ".join(owners[:12])
            return SettingError(key, f"is a setting of {section}.name={some}, not of {section}.name={chosen}")
    known = [*dotted_keys(OmegaConf.to_container(tree))]
    known += [f"trainer.{name}" for name in trainer_arguments.parameters()]
    last = key.split(".")[-1]
    same = [k for k in known if k.endswith(f".{last}")]
    close = difflib.get_close_matches(key, known, n=2, cutoff=0.75)
    tail = difflib.get_close_matches(last, [k.split(".")[-1] for k in known], n=1, cutoff=0.75)
    if section == "analysis" and rest in ("enable", "enabled", "disable", "disabled", "on", "off"):
        close = ["analysis.mode=off"]
    above, siblings = key.rpartition(".")[0], []
    if "." in rest and isinstance(node := OmegaConf.select(tree, above), DictConfig):
        siblings = [str(name) for name in node]  # the long key resembles each of them
        close = [f"{above}.{name}" for name in difflib.get_close_matches(last, siblings, n=2)]
    close = close or same[:3]
    if not close and not siblings:
        close = [k for k in known if tail and k.endswith(f".{tail[0]}")][:3]
    hint = f"{above} has {', '.join(siblings)}" if siblings else "`--help` lists them all"
    hint = f"did you mean {' or '.join(close)}?" if close else hint
    return SettingError(key, f"there is no such setting; {hint}")


def _has_setting(schema: type, path: Sequence[str]) -> bool:
    """Whether a dataclass of settings, and those nested in it, have what a dotted path leads to."""
    if not dataclasses.is_dataclass(schema) or path[0] not in {f.name for f in dataclasses.fields(schema)}:
        return False
    return len(path) == 1 or _has_setting(field_type(schema, path[0]), path[1:])


def dotted_keys(settings: Mapping[Any, Any], path: str = "") -> Iterator[str]:
    """Every dotted key of settings as plain containers."""
    for key, value in settings.items():
        inner = f"{path}.{key}" if path else str(key)
        yield inner
        if isinstance(value, Mapping):
            yield from dotted_keys(value, inner)


def load_saved(folder: Path, arguments: Sequence[str]) -> Settings:
    """The settings of the run in `folder`; recipes and `key=value` arguments win over what it has saved."""
    own = [f"run.root={folder.parent}", f"run.name={folder.name}"]
    return load([*arguments, *own], base=[folder / "config.yaml"])


def load_run(
    arguments: Sequence[str],
    is_global_zero: bool = True,
    meanwhile: Callable[[Settings], None] | None = None,
) -> Settings:
    """The settings of a run that is to start or to be resumed.

    With `run.resume`, the run's own config.yaml comes before all other settings; a run that does not exist
    yet starts, so that one command serves for both. `meanwhile`: as for `load`, with settings that those of a
    run to be resumed may differ from.

    Raises:
        SettingError: as `load`; the run exists already (on rank 0); or no run is named to resume.
    """
    settings = load(arguments, meanwhile=meanwhile)
    if not settings.run.resume:
        if is_global_zero and settings.folder.exists() and not settings.unnamed:
            problem = f"{settings.folder} is there already; run.resume=true goes on with it"
            raise SettingError("run.name", f"{problem}, another name starts another")
        return settings
    if settings.unnamed:
        known = run_folders.describe_runs(settings.run.root)
        raise SettingError("run.resume", f"needs run.name=NAME; {known}")
    saved = settings.folder / "config.yaml"
    if not saved.exists():
        return settings
    # it may have been moved or copied since: it goes on where it was found
    return load([*arguments, f"run.root={settings.run.root}"], base=[saved])
