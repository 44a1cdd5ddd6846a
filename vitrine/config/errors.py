"""Errors of the objects that settings build, as errors of the settings."""

from collections.abc import Iterator
from contextlib import contextmanager

from vitrine.core.settings import SettingError


@contextmanager
def as_setting_error(key: str) -> Iterator[None]:
    """Raise errors within the scope that wrong settings cause as SettingError of `key`."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except SettingError:
        raise
    except (ValueError, TypeError, FileNotFoundError, NotADirectoryError, MisconfigurationException) as error:
        raise SettingError(key, " ".join(str(error).split())) from error
