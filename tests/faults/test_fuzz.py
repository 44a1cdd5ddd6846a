"""Malformed settings; `python tests/faults/fuzz.py --cases 10000` is what the suite has no time for."""

import pytest

pytestmark = pytest.mark.slow

fuzz = pytest.importorskip("fuzz")


def test_whatever_is_said_is_answered_in_one_message_or_possible(tmp_path):
    tally = fuzz.run(200, 1, tmp_path)
    assert tally["refused"] > 100
