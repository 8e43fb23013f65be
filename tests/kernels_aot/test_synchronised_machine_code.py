"""Machine code of what a synchronised norm launches: how many launches, no spills, wide loads."""

from itertools import product

import pytest
import torch
from torch import Tensor

from entprop_fast.kernels.dual_batch_norm_dx import dual_batch_norm_dx
from entprop_fast.kernels.dual_batch_norm_merge import dual_batch_norm_merge
from entprop_fast.kernels.dual_batch_norm_moments import dual_batch_norm_moments
from entprop_fast.norm_half import Half
from entprop_fast.ops.dual_batch_norm_merge import Running
from tests.kernels_aot.compiled import compile_launches

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
SHAPE = (128, 160, 32, 32)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("layout", "arch", "residual"),
    [
        *product(["channels_last"], [80, 86, 89, 90, 100, 120], [True, False]),
        *product(["contiguous"], [80, 90, 120], [True]),
        ("contiguous", 86, False),
    ],
)
def test_images_are_read_sixteen_bytes_at_a_time(
    layout: str, arch: int, residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = _empty(*SHAPE, dtype=torch.bfloat16).to(memory_format=LAYOUTS[layout])
    half, statistics = Half(*(_empty(SHAPE[1]),) * 4), _empty(2, SHAPE[1])

    def launch() -> None:
        dual_batch_norm_moments(x, 64, True, True)
        dual_batch_norm_dx(
            x, x, x if residual else None, half, half, statistics, statistics, _empty(0),
            _empty(2, 2, SHAPE[1]), _empty(2), 64, True,
        )  # fmt: skip

    kernels = compile_launches(launch, arch, monkeypatch)
    assert [k.name for k in kernels] == ["statistics", "_write_moments", "_apply_sums"]
    for kernel in kernels:
        assert (kernel.stack, kernel.local, kernel.count("LDL")) == (0, 0, 0), kernel.name
        assert kernel.registers <= 128, f"{kernel.name}: {kernel.registers} registers"
        assert kernel.count("LDG.E.U16") + kernel.count("STG.E.U16") == 0, kernel.name
    assert kernels[0].count("LDG.E.128") >= 4
    assert kernels[2].count("LDG.E.128") >= 2 * (2 + residual)
    assert kernels[2].count("STG.E.128") >= 2


@pytest.mark.parametrize(("momentum", "arch"), [(0.1, 80), (None, 86), (0.1, 90), (None, 120)])
def test_the_merge_is_one_launch(
    momentum: float | None, arch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Running(_empty(640), _empty(640), _empty(dtype=torch.int64), momentum)

    def launch() -> None:
        dual_batch_norm_merge(_empty(8, 2, 1281), half, half)
        dual_batch_norm_merge(_empty(8, 2, 1281), half, Running())

    kernels = compile_launches(launch, arch, monkeypatch)
    assert {k.name for k in kernels} == {"_merge"}
    for kernel in kernels:
        assert (kernel.stack, kernel.local, kernel.count("LDL")) == (0, 0, 0)
        assert kernel.registers <= 128
