"""Random cases, drawn by hypothesis, and what a case does where it hangs."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # where it is run as a program
    sys.path.insert(0, str(ROOT))


class Hang(BaseException):  # nothing that contains failures contains it
    """A case took longer than it may."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise Hang in the block after so many seconds."""

    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_cases(count: int, start: int, strategy: Any, check: Callable[[Any], str]) -> Counter:
    """Check so many cases, and count what each is said to be. Raises for one that fails, made small."""
    tally: Counter = Counter()

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def one(case: Any) -> None:
        failed = None
        try:
            outcome = check(case)
        except (Exception, Hang):
            failed = traceback.format_exc()[-5000:]
        if failed:  # raised out of the handler: some have more causes than hypothesis can follow
            raise AssertionError(failed)
        tally[outcome] += 1

    one()
    return tally
