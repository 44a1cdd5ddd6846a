"""SIGTERM in any hook of a run with averaged weights and validations at any interval: resumed, it ends as one
that was not interrupted, with every validation, also one that fell between the interrupt and the resume."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from cases import run_cases
from hypothesis import strategies as st

CALLBACKS = Path(__file__).parents[1] / "callbacks"
if str(CALLBACKS) not in sys.path:
    sys.path.insert(0, str(CALLBACKS))

from test_interrupt_at_every_hook import AVERAGES, EPOCHS, FREQUENCIES, HOOKS, STEPS, check, train  # noqa: E402

from vitrine.callbacks.checkpoints import CheckpointSettings  # noqa: E402

interrupts = st.tuples(
    st.sampled_from(HOOKS),
    st.integers(0, STEPS * (EPOCHS - 1)),  # all hooks come after that
    st.sampled_from(sorted(AVERAGES)),
    st.sampled_from(sorted(FREQUENCIES)),
    st.sampled_from([None, 1, 2, 4]),
)


def run(count: int, seed: int, folder: Path) -> Counter:
    """So many interrupts, all of which end as the whole run."""
    made: dict[Any, Any] = {}
    numbers = iter(range(10**9))

    def whole(*key: Any) -> Any:
        if key not in made:
            average, frequency, every_steps = key
            place = folder / f"whole-{len(made)}"
            settings = CheckpointSettings(every_steps=every_steps)
            made[key] = place, *train(place, average, checkpoints=settings, **FREQUENCIES[frequency])
        return made[key]

    def one(case: tuple[Any, ...]) -> str:
        check(folder / f"run-{next(numbers)}", whole, *case)
        return "as if it had not come"

    return run_cases(count, seed, interrupts, one)
