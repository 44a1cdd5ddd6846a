"""Measure a run on its test split, once.

    python analyze.py RUN test=true                      its best checkpoint: best.ckpt, or the most accurate
    python analyze.py RUN/checkpoints/FILE test=true     this checkpoint
    python analyze.py RUN test=true again=true           though these weights were measured already

Nothing else reads the test split. Its metrics are in RUN/test.json, on the page in a section of their own,
and in the summary on W&B as test/...; `run.test=true` measures at the end of training.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine import config
from vitrine.config import recipes
from vitrine.core.settings import SettingError, setting
from vitrine.runs import held_out, run_folders


@dataclass(frozen=True)
class TestArguments:
    test: bool = setting(False, "measure the run on its test split, once")
    again: bool = setting(False, "measure though these weights were measured already")


def split_arguments(arguments: list[str]) -> tuple[TestArguments | None, list[str]]:
    """What `test=...` and `again=...` say, None unless test=true; and the other arguments."""
    own = [a for a in arguments if recipes.is_override(a) and a.partition("=")[0] in ("test", "again")]
    parsed = config.parse_settings(TestArguments, own)
    if parsed.again and not parsed.test:
        raise SettingError("again", "is true, which goes with test=true")
    return (parsed if parsed.test else None), [a for a in arguments if a not in own]


def main(paths: list[str], test: TestArguments, overrides: list[str]) -> None:
    """Measure the run, or the checkpoint, that the only path names; print and store what comes out.

    Raises:
        SettingError: there is no test split, no checkpoint, or not one run.
    """
    if len(paths) != 1:
        raise SettingError("test", f"{len(paths)} runs came; expected one run, or one of its checkpoints")
    folder = run_folders.find_run(paths[0])
    settings = config.load_saved(folder, overrides)

    from vitrine.datamodules.splitting import refuse_other_splits

    refuse_other_splits(settings.data, config.load_saved(folder, []).data)

    from vitrine import assembly
    from vitrine.runs.checkpoint_files import best_checkpoint, read_step

    if Path(paths[0]).is_file():
        file, chosen = Path(paths[0]), "named"
        step = read_step(file)
    else:
        found = best_checkpoint(folder)
        if found is None:
            raise SettingError(str(folder), "has no checkpoint")
        step, file, chosen = found
    network = _load(settings, file)
    if not test.again and (known := measured_already(settings, network)):
        print(f"measured already: {held_out.describe(known)}")
        print("again=true measures once more")
        return
    data = assembly.build_data(settings)
    if not data.has_test:
        raise SettingError("test", held_out.NO_TEST_SPLIT)
    arguments = {**settings.trainer, "devices": 1, "num_nodes": 1, "strategy": "auto"}
    measurement = measure(settings, data, network, arguments) | _origin(file, chosen, step)
    held_out.add(folder, measurement)
    logs = assembly.open_logs(settings, data.classes)
    logs.close()
    print(*(note for note in logs.notes if note), sep="\n")
    print(held_out.describe(measurement))
    print(f"the page: {folder / 'index.html'}")


def measure_trained(
    settings: config.Settings, data: Any, trainer: Any, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The measurement of a run that has just been trained; all ranks call this, rank 0 stores it.

    Args:
        data: its data module, which has a test split.
        trainer: that has trained it.
        arguments: of a Trainer on the same devices.
    """
    from vitrine.runs.checkpoint_files import best_checkpoint

    found = best_checkpoint(settings.folder) if trainer.is_global_zero else None
    known = None
    if found is not None:
        known = measured_already(settings, _load(settings, found[1]))
    found, known = trainer.strategy.broadcast((found, known))
    if found is None or known is not None:
        return known
    step, file, chosen = found
    measurement = measure(settings, data, _load(settings, file), arguments) | _origin(file, chosen, step)
    if trainer.is_global_zero:
        held_out.add(settings.folder, measurement)
    return measurement


def measured_already(settings: config.Settings, network: Any) -> dict[str, Any] | None:
    """The measurement of these weights, if there is one."""
    from vitrine.examination.examiner import weights_hash

    return held_out.find(settings.folder, weights_hash(network))


def measure(
    settings: config.Settings, data: Any, network: Any, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The metrics of a network on the test split, measured as in validation, with the hash of its weights."""
    from vitrine import assembly
    from vitrine.examination.examiner import weights_hash
    from vitrine.modules.validation_metrics import is_of_class

    weights = weights_hash(network)
    module = assembly.build_test_module(settings, data, network)
    assembly.build_test_trainer(settings, arguments).test(module, datamodule=data, verbose=False)
    counts, recalls = module.metrics.confusion.sum(1).tolist(), module.metrics.recalls()
    metrics = {name: value for name, value in module.test_metrics.items() if not is_of_class(name)}
    classes = [
        {"name": name, "images": count, "accuracy": recalls[name]}
        for name, count in zip(module.metrics.names, counts)
        if count
    ]
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    measured = {"images": sum(counts), "metrics": metrics, "classes": classes, "measured": now}
    return {"weights_hash": weights, **measured}


def _origin(file: Path, chosen: str, step: int | None) -> dict[str, Any]:
    return {"checkpoint": file.name, "chosen": chosen, "step": step}


def _load(settings: config.Settings, file: Path) -> Any:
    from vitrine import assembly
    from vitrine.config.errors import as_setting_error
    from vitrine.core.network_scopes import full_isolation

    with as_setting_error(str(file)), full_isolation():  # building a network draws random numbers
        return assembly.checkpoint_loader(settings)(file)
