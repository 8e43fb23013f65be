"""Norms that keep something in plain attributes: named, and copied where `also` asks for it."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, route


class RunNorm(nn.Module):
    """Running means in an attribute that is no buffer."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.run = state

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            holder = self.run["mean"] if isinstance(self.run, dict) else self.run
            holder[0] += float(x.mean())
        return x * self.weight[:, None, None]


class CachingNorm(nn.GroupNorm):
    """A norm of torch's with a cache."""

    def __init__(self) -> None:
        super().__init__(2, 4)
        self.run: dict[str, list[float]] = {"mean": [0.0]}

    def forward(self, input: Tensor) -> Tensor:
        self.run["mean"][0] += float(input.mean())
        return super().forward(input)


class Act(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.run = [0.0]

    def forward(self, x: Tensor) -> Tensor:
        self.run[0] += float(x.mean())
        return x


class ActingNorm(RunNorm):
    def __init__(self) -> None:
        super().__init__(None)
        self.act = Act()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x * self.weight[:, None, None])
        return y


KEEPING: dict[str, Any] = {
    "a tensor": lambda: RunNorm(torch.zeros(4)),
    "a list": lambda: RunNorm([0.0]),
    "an array": lambda: RunNorm(np.zeros(1)),
    "a list in a dict": lambda: RunNorm({"mean": [0.0]}),
    "a subclass of torch's": CachingNorm,
    "an activation": ActingNorm,
}


def kept(norm: Any) -> float:
    run = norm.act.run if hasattr(norm, "act") else norm.run
    return float((run["mean"] if isinstance(run, dict) else run)[0])


@pytest.mark.parametrize("name", KEEPING)
def test_it_is_left_and_named(name: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), KEEPING[name]())
    with pytest.warns(UserWarning, match=f"{type(model[1]).__name__} (that may keep|with layers)"):
        convert_dual_norm(model)
    assert type(model[1]) is type(KEEPING[name]())


@pytest.mark.parametrize("name", KEEPING)
def test_halves_share_none_of_it(name: str) -> None:
    norm = KEEPING[name]()
    plain = copy.deepcopy(norm)
    model: Any = convert_dual_norm(nn.Sequential(norm), also=type(norm))
    x = torch.ones(3, 4, 2, 2) + torch.arange(4).view(1, 4, 1, 1)
    with route(model, "aux"):
        model(x)
    assert kept(model[0]) == 0.0 and kept(model[0].aux_norm) != 0.0
    plain(x)
    assert kept(model[0].aux_norm) == kept(plain)
    model(x)
    assert kept(model[0]) == kept(plain) == kept(model[0].aux_norm)


def test_settings_are_no_state() -> None:
    """Numbers, tuples, functions, modules of others; and what torch's own forward never reads."""
    own, torchs = RunNorm(None), nn.GroupNorm(2, 4)
    own.eval()
    settings = {"shape": (4, 2), "rule": torch.relu, "dtype": torch.float32, "run": 1.0}
    own.__dict__.update(settings)
    torchs.__dict__.update(name=["a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model: Any = convert_dual_norm(nn.Sequential(own, torchs))
    assert {k: vars(model[0].aux_norm)[k] for k in settings} == settings
    half = model[1].aux_norm
    assert half.name == ["a"] and half.name is not torchs.name


def test_what_cannot_be_copied_is_named() -> None:
    norm = RunNorm([0.0])
    norm.__dict__["lines"] = (line for line in "ab")
    model = nn.Sequential(nn.BatchNorm2d(1), norm)
    with pytest.raises(TypeError, match=r"RunNorm\.lines"):
        convert_dual_norm(model, also=RunNorm)
    assert [type(one) for one in model] == [nn.BatchNorm2d, RunNorm]  # nothing is half done
