"""Recorded passes add bfloat16 gradients to float32 ones, with the bits of autograd's own sums."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.fake_cuda.calls import Call, Calls
from entprop_fast.capture import autograd_graph, fused_sums, recorded
from entprop_fast.capture.recorded import run_passes
from tests.methods import support as s
from tests.methods.cast_models import CHANGES, EVERY, Change, given, make

ALL: dict[str, Any] = {
    "n": 3,
    "accumulate": "all",
}  # four backward passes
WEIGHTS = 5  # that the network casts


@contextlib.contextmanager
def counted_sums() -> Iterator[Counter[str]]:
    """Count upcasts, sums of two dtypes ("fused") and sums in place of one ("plain")."""
    found: Counter[str] = Counter()

    def seen(call: Call) -> None:
        if call.name == "aten._to_copy":
            dtypes = call.args[0].dtype, call.result.dtype
            found["upcasts"] += dtypes == (torch.bfloat16, torch.float32)
        elif call.name == "aten.add_" and isinstance(call.args[1], Tensor):
            found["plain" if call.args[0].dtype == call.args[1].dtype else "fused"] += 1

    with Calls(seen):
        yield found


def passes(
    name: str, *changes: Change, fused: bool = True, **options: Any
) -> tuple[list[Any], Counter[str]]:
    """All that a method's recorded passes leave, and the sums of the last ones."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr(recorded, "fuse_sums", lambda loss: None)
        method = make(name, *changes, **options)
        method(*given(method, 2))
        for seed in range(2):
            with counted_sums() as sums:
                result, _ = run_passes(method, *given(method, seed), update=True)
    return [list(result.copy()), s.everything(method), s.left(method)], sums


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_every_method(name: str, options: dict[str, Any]) -> None:
    found, sums = passes(name, **options)
    expected, others = passes(name, fused=False, **options)
    s.assert_equal(found, expected)
    assert sums.total() <= others.total() and not others["fused"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [{"n": 3}, ALL], ids=str)
def test_models(change: Change, options: dict[str, Any]) -> None:
    """Casts that passes share, that each has for itself, that no longer are of the weight."""
    found, sums = passes("entprop", change, k=0.5, mixup=0.0, **options)
    assert sums["fused"]
    s.assert_equal(found, passes("entprop", change, k=0.5, mixup=0.0, fused=False, **options)[0])


@pytest.mark.parametrize(
    ("options", "earlier"),
    [({}, 1), ({"n": 5}, 1), (ALL, 3), ({"n": 1, "accumulate": "all"}, 1)],
    ids=str,
)
def test_each_saves_an_upcast(options: dict[str, Any], earlier: int) -> None:
    """Of every pass that adds to an earlier one."""
    _, sums = passes("entprop", **options)
    _, others = passes("entprop", fused=False, **options)
    assert sums["fused"] == WEIGHTS * earlier
    assert others["plain"] - sums["plain"] == WEIGHTS * earlier
    assert others["upcasts"] - sums["upcasts"] == WEIGHTS * earlier


def test_without_casts_nothing_is_fused() -> None:
    assert not passes("entprop", amp=None)[1]["fused"]


def _in_float32(model: nn.Sequential, chosen: range) -> None:
    """Some of the passes use a weight in float32 as well: autograd adds its two gradients first."""
    first, *rest = model
    assert isinstance(first, nn.Conv2d)
    calls = itertools.count()

    def forward(images: Tensor) -> Tensor:
        found = first(images)
        if next(calls) % 4 in chosen:
            with torch.autocast("cpu", enabled=False):
                found = found + F.conv2d(images, first.weight, padding=first.padding)
        return nn.Sequential(*rest)(found)  # type: ignore[no-any-return]

    model.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize("chosen", [range(4), range(1), range(1, 4), range(2, 3)], ids=str)
def test_a_weight_used_in_two_ways(chosen: range) -> None:
    """Also where the cast was watched in a pass that had one way."""

    change = partial(_in_float32, chosen=chosen)
    found, sums = passes("entprop", change, k=0.5, **ALL)
    s.assert_equal(found, passes("entprop", change, k=0.5, fused=False, **ALL)[0])
    ways = sum(1 for number in (1, 2, 3) if number not in chosen)
    assert sums["fused"] == 3 * (WEIGHTS - 1) + ways


def test_a_graph_too_deep_to_walk_through(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, sums = passes("entprop")
    for module in (autograd_graph, fused_sums):
        monkeypatch.setattr(module, "MOST_NODES", 10)
    found, none = passes("entprop")
    assert sums["fused"] and not none["fused"]
    s.assert_equal(found, expected)
