"""Check the error for a name that does not exist."""

from __future__ import annotations

from entprop_fast.name_errors import unknown


def test_short_lists_are_given_whole_and_the_nearest_first() -> None:
    error = unknown("score", "Entrpy", ["margin", "entropy", "random"])
    assert isinstance(error, ValueError)
    assert str(error) == "unknown score 'Entrpy'; nearest: entropy; known: margin, entropy, random"


def test_long_lists_are_not() -> None:
    names = [f"model{i}" for i in range(100)]
    assert "model7" in str(unknown("arch", "model7x", names))
    assert "model42" not in str(unknown("arch", "model7x", names))
    assert str(unknown("arch", "zzz", names)) == (
        "unknown arch 'zzz'; none of the 100 known names is near"
    )


def test_values_that_are_no_strings_and_empty_lists() -> None:
    assert str(unknown("kind", 3, iter(["a"]))) == "unknown kind 3; known: a"
    assert str(unknown("kind", "a", [])) == "unknown kind 'a'; known: none"
