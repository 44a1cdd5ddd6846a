"""When Python looks for garbage."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_while_importing() -> Iterator[None]:
    """A scope of imports, which make a million objects that stay, where Python does not look for garbage.

    It would look a thousand times, a quarter of the time that imports of torch and Lightning take. Nor does
    it look through these objects later on.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            atexit.register(gc.unfreeze)  # else extension modules report at exit what they have leaked
            gc.enable()
