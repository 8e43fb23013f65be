"""Options: one field says everything about one."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from entprop_fast.options import create, option, options_of, signature, valid


@dataclass(frozen=True, kw_only=True)
class Attack:
    eps: float | None = option(None, "Radius.", low=0, open_low=True, high=1, unit="image units")
    steps: int = option(1, "Steps.", low=1)
    loss: Literal["ce", "cw"] = option("ce", "What is climbed.")
    start: bool = option(False, "Start at random.")
    plain: int = 3


def test_a_field_says_everything() -> None:
    about = options_of(Attack)
    assert list(about) == ["eps", "steps", "loss", "start"]
    assert about["eps"].optional and about["eps"].type is float and about["eps"].default is None
    assert about["loss"].choices == ("ce", "cw")
    assert valid(about["eps"]) == "a number in (0, 1] (image units), or None"
    parameters = signature(Attack).parameters
    assert parameters["steps"].default == 1
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters.values())


def test_valid_values_keep_their_meaning() -> None:
    made = create(Attack, {"eps": 1, "steps": 2, "loss": "cw", "start": True})
    assert made == Attack(eps=1.0, steps=2, loss="cw", start=True) and type(made.eps) is float
    assert create(Attack, {"eps": None}) == Attack()


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
        ("start", 1, TypeError),
        ("step", 1, TypeError),
    ],
)
def test_refused(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"\b{name}\b"):
        create(Attack, {name: value})
