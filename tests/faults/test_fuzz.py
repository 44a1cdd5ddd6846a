"""Random input of every kind; `python tests/faults/fuzz.py` tries more cases than the suite has time for."""

import pytest

pytestmark = pytest.mark.slow

fuzz = pytest.importorskip("fuzz")


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("settings", 200, {"refused", "possible"}),
        ("runs", 10, {"refused before the first step", "trained to the end"}),
        ("folders", 100, {"refused by name", "read"}),
        ("images", 200, {"as stored", "refused by name", "damaged and readable"}),
        ("networks", 20, {"as the plain network", "refused in one line"}),
        ("interrupts", 5, {"as if it had not come"}),
    ],
)
def test_random_input_of_every_kind(tmp_path, kind, count, expected):
    tally = fuzz.run(kind, count, 1, tmp_path)
    assert tally.total() >= count // 2 and set(tally) == expected
