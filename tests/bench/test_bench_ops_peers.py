"""bench/ops/peers.py and targets.py: norms of others, as far as this machine can show them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import rows
from bench.ops import contenders, peers, table, targets
from bench.ops.agreement import disagreement
from bench.ops.cases import Case
from bench.ops.contenders import Place
from bench.timing import Comparison, Contender
from tests.bench.conftest import WHERE

SHAPE = (32, 16, 8, 9)


class AsOnCuda(Place):
    """What a GPU would have beside it, on the CPU."""

    has_peers = True


HALF = AsOnCuda("cpu", torch.float16)
NORMS: dict[str, Callable[..., dict[str, Contender]]] = {
    "norm": partial(contenders.one_group, residual=False),
    "norm + add": partial(contenders.one_group, residual=True),
    "two groups": contenders.two_groups,
}


@pytest.fixture
def on_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every norm is taken for cuDNN's."""
    has = peers._has_node
    monkeypatch.setattr(peers, "_has_node", lambda y, name: has(y, "BatchNorm"))


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> None:
    """apex's norm as its interface has it: NHWC, a second input to add, ReLU."""

    class BatchNorm2d_NHWC(nn.BatchNorm2d):  # its own name
        def __init__(self, num_features: int, fuse_relu: bool = False) -> None:
            super().__init__(num_features)
            assert fuse_relu

        def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
            assert x.is_contiguous() and x.shape == (32, 8, 9, 16)
            y = super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return F.relu(y if z is None else y + z)

    name = "apex.contrib.groupbn.batch_norm"
    for parent in ("apex", "apex.contrib", "apex.contrib.groupbn"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    module: Any = ModuleType(name)
    module.BatchNorm2d_NHWC = BatchNorm2d_NHWC
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("op", NORMS)
def test_peers_that_are_there_compute_the_same(op: str, on_cudnn: None, apex: None) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(1)
    built = NORMS[op](SHAPE, "channels_last", HALF)
    assert built.keys() == {"ours", "eager", *peers.EXPECTED[op]}
    assert disagreement(built, torch.float16) is None


def test_those_that_are_not_there_are_said_and_the_rest_goes_on() -> None:
    with pytest.warns(RuntimeWarning) as caught:
        built = contenders.one_group(SHAPE, "channels_last", HALF, residual=False)
    assert built.keys() == {"ours", "eager"}
    said = " ".join(str(one.message) for one in caught)
    assert "without cudnn: RuntimeError: PyTorch takes another norm" in said
    assert "without apex: ModuleNotFoundError" in said


def test_a_peer_that_computes_something_else_is_left_out(
    on_cudnn: None, apex: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "relu", lambda y: y * (y > 0) if y.shape[1] == 16 else y.abs())
    with pytest.warns(RuntimeWarning, match="without apex: result 0 of apex is not eager's"):
        built = contenders.one_group(SHAPE, "channels_last", HALF, residual=False)
    assert built.keys() == {"ours", "eager", "cudnn"}


def test_eager_in_float16_is_without_cudnn() -> None:
    seen = []

    def forward() -> Tensor:
        seen.append(torch.backends.cudnn.enabled)
        return torch.ones(1)

    peers.native(forward)()
    forward()
    assert seen == [False, True]


def test_a_node_is_found_below_others() -> None:
    x = torch.randn(4, 3, 2, 2, requires_grad=True)
    mean, var = torch.zeros(3), torch.ones(3)
    y = F.relu(torch.cat([F.batch_norm(x, mean, var, training=True), x]) + 1)
    assert peers._has_node(y, "NativeBatchNorm") and not peers._has_node(y, "Cudnn")


def test_other_cases_have_no_peers() -> None:
    assert not Place("cpu", torch.float16).has_peers
    assert not Place("cuda", torch.bfloat16).has_peers and Place("cuda", torch.bfloat16).compiled
    assert Place("cuda", torch.float16).has_peers and not Place("cuda", torch.float16).compiled


def row(op: str, dtype: torch.dtype, shape: tuple[int, ...], **seconds: float) -> rows.Row:
    """A cold row of 1 GB that has to move, at 1 TB/s of copying."""
    case = Case(op, "channels_last", shape, dtype, None, 10**9, dict)
    measured = table.Measured(case, "cold", False, Comparison(seconds))
    return table.row_of(measured, bandwidth=1e12) | WHERE


def test_who_should_have_been_there_is_named(kept: dict[str, list[rows.Row]]) -> None:
    with_cudnn = row("norm", torch.float16, SHAPE, ours=1.0, eager=2.0, cudnn=1.5)
    assert with_cudnn["absent"] == ["apex"]
    assert row("norm", torch.bfloat16, SHAPE, ours=1.0, eager=2.0)["absent"] == []
    kept["ops_cuda"] = [with_cudnn]
    shown = table.section("ops_cuda", Path("docs/x.md"))
    assert "| 1.50 cudnn |" in shown and "not able to: apex. a machine" in shown
    kept["ops_cuda"] = [with_cudnn | {"absent": []}]
    assert "not able to" not in table.section("ops_cuda", Path("docs/x.md"))


def test_every_target_of_a_gpu_is_printed(kept: dict[str, list[rows.Row]]) -> None:
    nothing = table.section("ops_cuda", Path("docs/x.md"))
    assert nothing.startswith("Not measured yet: `pytest bench/ops`")
    lines = list(targets.aims())
    assert nothing.count("| unmeasured |") == len(lines) == 3 + 2 + 3 + 2
    large = (256, 256, 56, 56)
    kept["ops_cuda"] = [
        row("norm", torch.bfloat16, large, ours=1 / 960, eager=0.01, compile=0.003),
        row("norm", torch.bfloat16, (128, 64, 112, 112), ours=1 / 940, eager=0.01),
        row("norm", torch.float16, large, ours=1.0, eager=0.01),  # aims are for bfloat16
    ]
    shown = table.section("ops_cuda", Path("docs/x.md"))
    assert "256x256x56x56: share of copy | 95% | 96% | reached |" in shown
    assert "128x64x112x112: share of copy | 95% | 94% | missed |" in shown
    assert "norm, channels_last, all shapes: times the best of all others | 1.30 | " in shown
    assert shown.count("| unmeasured |") == len(lines) - 3


def test_tensors_beyond_20_megabytes_have_a_target_64_channels_included() -> None:
    shapes = [aim.where["shape"] for aim in targets.aims() if aim.at_least == 0.95]
    assert [128, 64, 112, 112] in shapes and [128, 160, 32, 32] in shapes
    assert [128, 64, 32, 32] not in shapes  # 17 MB
