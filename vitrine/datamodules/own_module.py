"""A LightningDataModule of somebody's own from its reference and the arguments of its constructor."""

from typing import Any

from lightning.pytorch import LightningDataModule

from vitrine.core.own_code import check_arguments
from vitrine.core.references import absolute_reference, raised_by, resolve
from vitrine.core.settings import SettingError

_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device")
_EXPECTED = "expected a LightningDataModule with train_dataloader and val_dataloader"


def make_module(settings: Any) -> LightningDataModule:
    """The data module that `settings.name` refers to, made with `settings.options`.

    A path in the name becomes absolute, so that a run's data are found from any folder.

    Raises:
        SettingError: it cannot be found, imported or made, has other arguments, is of another kind, or has
            hooks that are not called here.
    """
    settings.name = absolute_reference(settings.name)
    name, options = settings.name, settings.options
    try:
        kind = resolve(name)
    except ValueError as error:
        raise SettingError("data.name", str(error)) from None
    try:
        check_arguments(name, kind, options, "data.options")
    except ValueError as error:
        raise SettingError("data.options", str(error)) from None
    try:
        module = kind(**options)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        problem = f"{name}({given}) raised {raised_by(error)}"
        raise SettingError("data.options" if given else "data.name", problem) from error
    if not isinstance(module, LightningDataModule):
        raise SettingError("data.name", f"{name} gave a {type(module).__name__}, {_EXPECTED}")
    for method in ("train_dataloader", "val_dataloader"):
        if not overridden(module, method):
            raise SettingError("data.name", f"{name} has no {method}, {_EXPECTED}")
    for hook in _HOOKS:
        if overridden(module, hook):
            problem = f"{name} has {hook}, which is not called here"
            raise SettingError("data.name", f"{problem}: expected all of it in the data set's transforms")
    return module


def overridden(module: LightningDataModule, method: str) -> bool:
    """Whether a data module defines a method itself."""
    return getattr(type(module), method) is not getattr(LightningDataModule, method)
