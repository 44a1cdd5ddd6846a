"""How many cores there are for this process."""

import os


def available_cores() -> int:
    """How many cores this process may run on: those of its job on a cluster, where the system knows them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
