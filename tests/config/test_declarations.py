"""What a file declares is the same whether it is read or imported."""

import dataclasses
import inspect
import typing

import pytest
from lightning.pytorch import Trainer

from vitrine.analyses import ANALYSES
from vitrine.config import trainer_arguments
from vitrine.config.declarations import declared, imported
from vitrine.core.settings import field_type, format_type
from vitrine.datamodules import DATA, OWN
from vitrine.modules import OBJECTIVES

SECTIONS = [
    "vitrine.callbacks.checkpoints:CheckpointSettings",
    "vitrine.callbacks.robust_validation:ValidationSettings",
    "vitrine.modules.optimizers:OptimizerSettings",
    "vitrine.reporting.wandb_run:WandbSettings",
]
SOURCES = [*DATA.places.values(), OWN]


def fields(schema):
    """Every field: its name, type, default, and what is declared of it; functions by their names."""
    described = []
    for field in dataclasses.fields(schema):
        hint = field_type(schema, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(hint):
            hint, default = fields(hint), dataclasses.asdict(default)
        limits = {k: v.__name__ if inspect.isfunction(v) else v for k, v in field.metadata.items()}
        described.append((field.name, hint, default, limits))
    return described


@pytest.mark.parametrize("place", [*SECTIONS, *ANALYSES.places.values(), *OBJECTIVES.places.values()])
def test_the_settings_of_a_section_are_those_of_the_class(place):
    assert declared(place) is not imported(place)
    assert fields(declared(place)) == fields(imported(place))


@pytest.mark.parametrize("place", SOURCES)
def test_the_settings_of_a_source_are_those_of_its_class(place):
    assert fields(declared(place).Settings) == fields(imported(place).Settings)


def kinds(hint):
    return set(format_type(hint).split(" or "))  # typing gives a union in the order that it first met it in


def test_the_arguments_of_the_trainer_are_those_of_lightning():
    hints = typing.get_type_hints(Trainer.__init__)
    defaults = {name: p.default for name, p in inspect.signature(Trainer.__init__).parameters.items()}
    names = [name for name in defaults if name not in ("self", *trainer_arguments.RESERVED)]
    ours = trainer_arguments.parameters()
    assert {name: kinds(ours[name]) for name in ours} == {name: kinds(hints[name]) for name in names}
    assert {n: trainer_arguments.default(n) for n in names} == {
        **{n: defaults[n] for n in names},
        **trainer_arguments.DEFAULTS,
    }
