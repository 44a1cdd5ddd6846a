import pytest

from vitrine.core.registry import Registry, UnknownName, nearest

COLOURS = Registry("colour", {"scarlet": "math:pi", "crimson": "math:e", "navy_blue": "math:tau"})


def test_a_name_gives_the_object_at_its_place():
    import math

    assert COLOURS["scarlet"] == math.pi


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known():
    with pytest.raises(UnknownName, match=r"unknown colour 'scarlett': did you mean scarlet\?.*crimson"):
        COLOURS["scarlett"]


def test_a_name_like_nothing_known_is_answered_with_what_is_known():
    with pytest.raises(UnknownName, match=r"unknown colour 'zzz': known: scarlet, crimson, navy_blue"):
        COLOURS.check("zzz")


@pytest.mark.parametrize(
    ("typed", "meant"), [("SCARLET", "scarlet"), ("crimsn", "crimson"), ("blue", "navy_blue")]
)
def test_nearest_looks_past_case_spelling_and_missing_parts(typed, meant):
    assert nearest(typed, COLOURS)[0] == meant


def test_what_is_registered_is_a_thing_or_the_place_of_one():
    import math

    colours = Registry("colour", {"scarlet": "math:pi"})
    colours.register("teal", "math:e")
    colours.register("ochre", 3)
    assert list(colours) == ["scarlet", "teal", "ochre"]
    assert (colours["teal"], colours["ochre"]) == (math.e, 3)
    with pytest.raises(ValueError, match="colour 'teal' is registered already, as 'math:e'"):
        colours.register("teal", 4)


def test_a_thing_is_found_by_what_it_is_and_not_imported_for_that():
    from fractions import Fraction

    numbers = Registry(
        "number", {"broken": "no.such.module:Thing", "ratio": "fractions:Fraction", "whole": int}
    )
    assert (numbers.name_of(Fraction), numbers.name_of(int)) == ("ratio", "whole")
    with pytest.raises(UnknownName, match="unknown number 'builtins:float'"):
        numbers.name_of(float)
