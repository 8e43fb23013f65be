"""Options: one field says everything about one."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from entprop_fast.options import create, option, options_of, read, signature, valid


@dataclass(frozen=True, kw_only=True)
class Attack:
    eps: float | None = option(None, "Radius.", low=0, open_low=True, high=1, unit="image units")
    steps: int = option(1, "Steps.", low=1)
    loss: Literal["ce", "cw"] = option("ce", "What is climbed.")
    start: bool = option(False, "Start at random.")
    seeds: tuple[int, ...] = option((0,), "Of the draws.", low=0)
    norm: str | None = option(None, "Unit ball.", choices=("inf", "l2"))
    plain: int = 3


def test_a_field_says_everything() -> None:
    about = options_of(Attack)
    assert list(about) == ["eps", "steps", "loss", "start", "seeds", "norm"]
    assert about["eps"].optional and about["eps"].type is float and about["eps"].default is None
    assert about["loss"].choices == ("ce", "cw")
    assert valid(about["eps"]) == "a number in (0, 1] (image units), or None"
    assert valid(about["steps"]) == "an integer of at least 1"
    assert (about["seeds"].many, about["seeds"].type) == (True, int)
    assert about["norm"].choices == ("inf", "l2")
    parameters = signature(Attack).parameters
    assert parameters["steps"].default == 1
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters.values())


def test_valid_values_keep_their_meaning() -> None:
    made = create(Attack, {"eps": 1, "steps": 2, "loss": "cw", "start": True})
    assert made == Attack(eps=1.0, steps=2, loss="cw", start=True) and type(made.eps) is float
    assert create(Attack, {"eps": None, "norm": None}) == Attack()
    assert create(Attack, {"seeds": [1, 2], "norm": "l2"}) == Attack(seeds=(1, 2), norm="l2")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("eps", "4/255", 4 / 255),
        ("eps", "1e-3", 1e-3),
        ("eps", "1", 1.0),
        ("eps", None, None),
        ("steps", "3", 3),
        ("steps", 3, 3),
        ("loss", "cw", "cw"),
        ("start", "True", True),
        ("start", "false", False),
        ("seeds", ["1", "2"], (1, 2)),
    ],
)
def test_read(name: str, text: Any, value: Any) -> None:
    found = read(options_of(Attack)[name], text, words=True)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("name", "text"), [("steps", "3"), ("start", "true"), ("seeds", ["1"])])
def test_a_file_has_types_of_its_own(name: str, text: Any) -> None:
    with pytest.raises(TypeError, match=name):
        read(options_of(Attack)[name], text)
    assert read(options_of(Attack)["eps"], "1/4") == 0.25


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("eps", 0, ValueError),
        ("eps", 1.5, ValueError),
        ("eps", math.nan, ValueError),
        ("eps", True, TypeError),
        ("eps", "4/255", TypeError),
        ("steps", 0, ValueError),
        ("steps", math.inf, TypeError),
        ("steps", 1.0, TypeError),
        ("steps", None, TypeError),
        ("loss", "trades", ValueError),
        ("loss", None, ValueError),
        ("loss", 1, ValueError),
        ("steps", 2**31, ValueError),
        ("seeds", (-1,), ValueError),
        ("seeds", 1, TypeError),
        ("norm", "l1", ValueError),
        ("start", 1, TypeError),
        ("step", 1, TypeError),
    ],
)
def test_refused(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"\b{name}\b"):
        create(Attack, {name: value})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("eps", text) for text in ("a/b", "4/0", "2", "nan", "1e99", 10**400, "")),
        *(("steps", text) for text in ("1.5", "0", "x", str(10**30))),
        *(("seeds", text) for text in (["1", "x"], "1")),
        ("loss", "cx"),
        ("start", "yes"),
    ],
)
def test_what_cannot_be_read(name: str, text: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        read(options_of(Attack)[name], text)
