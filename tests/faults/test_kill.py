"""kill -9 at random moments; `python tests/faults/kill.py --kills 20` is what the suite has no time for."""

import pytest

pytestmark = pytest.mark.slow

kill = pytest.importorskip("kill")


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path):
    assert sum(kill.loop(4, seed=1, folder=tmp_path).values()) == 4
