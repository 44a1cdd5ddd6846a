"""Ranks that are threads of one process and exchange values as those of several processes do."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def on_ranks(count: int, work: Callable[[int, Callable[[Any], list[Any]]], Any]) -> list[Any]:
    """`work(rank, all_gather)` on every rank at once: the results in the order of ranks.

    Raises:
        What a rank raised, which the others do not wait for.
    """
    barrier, given, raised = threading.Barrier(count), [None] * count, []

    def run(rank: int) -> Any:
        def all_gather(value: Any) -> list[Any]:
            given[rank] = value
            barrier.wait()
            gathered = list(given)
            barrier.wait()  # nobody gives the next value before all have read this one
            return gathered

        try:
            return work(rank, all_gather)
        except Exception as error:
            raised.append(error)
            barrier.abort()

    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(run, range(count)))
    if raised:
        raise raised[0]
    return results
