"""The sections of the settings: which dataclass declares each, and which depend on the section's `name`."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from vitrine.analyses import ANALYSES
from vitrine.config.declarations import imported
from vitrine.core.settings import setting
from vitrine.datamodules import DATA, source_place
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules import OBJECTIVES
from vitrine.modules.network_names import NETWORKS


@dataclass
class RunSettings:
    name: str | None = setting(None, "folder of the run below run.root; data-model-time unless given")
    root: str = setting("runs", "where runs are kept")
    seed: int = setting(0, "everything random comes from it", least=0, most=2**31 - 1)
    resume: bool = setting(False, "go on with the run of this name from its last good checkpoint")
    test: bool = setting(False, "at the end, measure the best checkpoint on the test split, once")
    requeue: str = setting(
        "auto",
        "auto: a SLURM job that is preempted (SIGTERM, SIGUSR1) is put back into the queue",
        choices=("auto", "never"),
    )


@dataclass
class ModelSettings:
    weights: str | None = setting(
        None, "a file (.pt, .safetensors, .ckpt), a torchvision weights name, or pretrained (timm/, hf/)"
    )
    stem: str = setting(
        "standard", "small: stride 1 and no max-pool first, for small images", choices=("standard", "small")
    )
    head: str = setting(
        "weights",
        "new: start the last layer afresh (weights of other classes)",
        choices=("weights", "new"),
    )
    freeze: Any = setting(
        None,
        "what does not train: all_but_head, or glob patterns of names of parameters or modules",
        hint=str | list[str] | None,
    )
    unfreeze_epoch: int | None = setting(
        None, "epoch, from 0, from which what was frozen trains too; null: none", least=1
    )
    mean: list[float] | None = setting(
        None, "normalisation, per channel of [0, 1] pixels; the weights' own, or the data's, unless given"
    )
    std: list[float] | None = setting(None, "goes with mean")
    compile: bool = setting(
        False, "torch.compile the network: a minute or so for each size of batch, then faster steps"
    )
    channels_last: bool = setting(
        False, "train and validate with channels innermost in memory: faster convolutions, other rounding"
    )
    options: dict[str, Any] = setting({}, "handed to the network's builder, e.g. {width: 32}")


def _section_by_name(
    kind: Callable[[str], type], names: Iterable[str], default: str, meaning: str, others: str = ""
) -> Any:
    """A section whose settings depend on its `name`: the class that `kind(name)` gives, with `name` added.

    `others`: which names there are beside `names`, for `--help`.
    """

    @functools.cache
    def schema(name: str) -> type:
        base = kind(name)
        field = ("name", str, setting(default, meaning))
        frozen = base.__dataclass_params__.frozen
        return dataclasses.make_dataclass(base.__name__, [field], bases=(base,), frozen=frozen)

    schema.names, schema.default, schema.others = names, default, others
    return schema


def sections(read: Callable[[str], Any] = imported) -> dict[str, Any]:
    """Section -> its dataclass, or a function from the section's `name` to it.

    Args:
        read: the class at a "module:attribute"; `declarations.declared` is enough for what a setting is
            called, holds and means.
    """
    places = tuple((name, ANALYSES.places[name]) for name in ANALYSES)  # more may be registered at any time
    return _sections(places, read)


@functools.cache
def _sections(analyses: tuple[tuple[str, Any], ...], read: Callable[[str], Any]) -> dict[str, Any]:
    def registered(place: Any) -> Any:
        return read(place) if isinstance(place, str) else place

    def network(name: str) -> type:
        NETWORKS.check(name)
        return ModelSettings

    def objective(name: str) -> type:
        OBJECTIVES.check(name)
        return registered(OBJECTIVES.places[name])

    analyses = tuple((name, registered(place)) for name, place in analyses)
    wandb_settings = read("vitrine.reporting.wandb_run:WandbSettings")
    techniques = [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in analyses]
    return {
        "run": RunSettings,
        "data": _section_by_name(
            lambda n: registered(source_place(n)).Settings,
            DATA,
            "signs",
            "where images come from",
            others="a LightningDataModule of your own, package.module:Class or path/to/file.py:Class, with "
            "data.options={...} for its constructor, data.classes=[...] and data.mean, data.std where it "
            "does not say them itself",
        ),
        "model": _section_by_name(
            network,
            NETWORKS,
            "convnet",
            "the network; any torchvision classifier too",
            others="your own, package.module:Class or path/to/file.py:Class (model.options go to it, and "
            "the number of classes as num_classes, n_classes, classes or num_labels, if it takes one); "
            "timm/NAME of timm.list_models(); hf/FOLDER_OR_ID of transformers",
        ),
        "objective": _section_by_name(objective, OBJECTIVES, "standard", "what is minimised"),
        "optimizer": read("vitrine.modules.optimizers:OptimizerSettings"),
        "checkpoint": read("vitrine.callbacks.checkpoints:CheckpointSettings"),
        "validation": read("vitrine.callbacks.robust_validation:ValidationSettings"),
        "analysis": dataclasses.make_dataclass("Analyses", techniques, bases=(AnalysisSettings,)),
        "logging": dataclasses.make_dataclass(
            "LoggingSettings",
            [
                ("wandb", wandb_settings, dataclasses.field(default_factory=wandb_settings)),
                ("tensorboard", bool, setting(False, "log to TensorBoard too, into the run's folder")),
                (
                    "class_curves",
                    int,
                    setting(20, "classes with curves: all, or half as many worst and best by rank", least=0),
                ),
            ],
        ),
    }
