"""Devices by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitrine.core.settings import SettingError

if TYPE_CHECKING:
    import torch


def find_device(name: str, key: str) -> torch.device:
    """The device of a name, tried.

    Raises:
        SettingError: of `key`, there is none such here.
    """
    import torch  # settings are read, and mistakes in them answered, without it

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(key, f"{name} cannot be used: {str(error).splitlines()[0]}") from None
    return device
