"""Wrappers of a strategy's saving chain, and end in any order."""

import itertools

import pytest

from vitrine.callbacks.noting_save import NotingSave


class Strategy:
    def __init__(self):
        self.saved = []

    def save_checkpoint(self, checkpoint, filepath, storage_options=None):
        self.saved.append((checkpoint, filepath, storage_options))


def wrap(strategy, noted, name):
    return NotingSave(strategy, lambda *given: noted.append((name, *given)))


@pytest.mark.parametrize("order", itertools.permutations(range(3)), ids=str)
def test_each_notes_until_it_ends_and_at_last_the_strategy_has_its_own_method(order):
    strategy, noted = Strategy(), []
    wrappers = [wrap(strategy, noted, name) for name in range(3)]
    left = {0, 1, 2}
    for number in order:
        wrappers[number].end()
        left.remove(number)
        noted.clear()
        strategy.save_checkpoint({}, "file", storage_options="some")
        assert {name for name, *_ in noted} == left and len(noted) == len(left)
    assert vars(strategy) == {"saved": [({}, "file", "some")] * 3}


def test_somebody_elses_wrapper_stays_and_what_ended_within_it_notes_nothing():
    strategy, noted = Strategy(), []
    first = wrap(strategy, noted, "first")
    inner = strategy.save_checkpoint
    strategy.save_checkpoint = theirs = lambda *given: inner(*given)
    second = wrap(strategy, noted, "second")
    first.end()
    second.end()
    assert strategy.save_checkpoint is theirs
    strategy.save_checkpoint({}, "file")
    assert len(strategy.saved) == 1 and not noted
