import gc
import weakref

import pytest

from vitrine.core.garbage import none_while_importing


class Cycle:
    def __init__(self):
        self.own = self


@pytest.fixture(autouse=True)
def thaw():
    yield
    gc.unfreeze()


def test_garbage_is_looked_for_after_imports_as_before():
    with none_while_importing():
        assert not gc.isenabled()
        kept = Cycle()
    assert gc.isenabled() and gc.get_freeze_count() > 0
    assert kept.own is kept
    made = weakref.ref(Cycle())
    gc.collect()
    assert made() is None


def test_who_looks_for_none_is_left_alone():
    gc.disable()
    try:
        with none_while_importing():
            pass
        assert not gc.isenabled() and gc.get_freeze_count() == 0
    finally:
        gc.enable()


def test_imports_that_fail_turn_it_on_again():
    with pytest.raises(ImportError), none_while_importing():
        raise ImportError
    assert gc.isenabled()
