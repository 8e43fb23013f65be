"""FOUND C17: steps on a device that has no float64, as Apple's and some of Intel's.

The CPU stands in for it: plain PyTorch behind every op, and a mode under which whatever makes a
float64 tensor fails.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from entprop_fast import devices
from entprop_fast.lab.corruptions.ten_kinds import CORRUPTIONS, corrupt
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics
from entprop_fast.lab.training.meter import Meter
from entprop_fast.ops import backend
from tests.methods import support as s

OF_FLOAT32: list[tuple[str, dict[str, Any]]] = [
    ("entprop", {"amp": "bf16", "score": "cross_entropy"}),
    ("entprop", {"norms": "shared"}),
]


class NoFloat64(TorchDispatchMode):
    """Refuses float64 tensors, as the device does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in pytree.tree_leaves(found):
            if isinstance(value, Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{func}: Cannot convert a MPS Tensor to float64 dtype")
        return found


@pytest.fixture(autouse=True)
def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without kernels, said to have no float64; `NoFloat64` takes it."""
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cpu", "mps"})
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())


def test_the_mode_refuses() -> None:
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.zeros(2).double()


@pytest.mark.parametrize(("name", "options"), s.EVERY + OF_FLOAT32, ids=str)
def test_steps(name: str, options: dict[str, Any]) -> None:
    """FOUND C17: every method, two steps each (the second with waiting rows)."""
    shared = name in s.ONE_NORM or options.get("norms") == "shared"
    model = (s.plain_network if shared else s.dual_network)(dtype=torch.float32)
    method = s.make(name, model=model, generator=s.generator(), **options)
    images, labels = s.batch_for(method, dtype=torch.float32)
    meter = Meter()
    with NoFloat64():
        for step in range(2):
            meter.add(step, len(images), method(images, labels))
        meter.read()
    assert math.isfinite(meter.mean("loss"))


def test_evaluation(without_float64: None) -> None:
    """A neighbour of C17: what evaluates makes none either, and counts the same."""
    logits, labels = torch.randn(40, 5, generator=s.generator()), torch.arange(40) % 5
    images = torch.rand(2, 3, 16, 16, generator=s.generator())
    with NoFloat64():
        metrics = RunningMetrics(40, torch.device("cpu"))
        metrics.add(0, logits, labels)
        assert metrics.correct == int((logits.argmax(1) == labels).sum()) and 0 <= metrics.ece <= 1
        for kind in CORRUPTIONS:
            corrupt(images, kind, 3)


def test_common_corruptions_are_made_where_float64_is() -> None:
    """A neighbour of C17: their sums are float64, so they are made on the CPU for such a device."""
    assert devices.with_float64(torch.device("mps")) == torch.device("cpu")
    assert devices.with_float64(torch.device("cuda:1")) == torch.device("cuda:1")
