"""What `prime_chains` compiles to for GPUs that are not there."""

import pytest
import torch

from entprop_fast.kernels.prime_chains import prime_chains
from tests.kernels_aot.compiled import compile_launches


@pytest.mark.parametrize(
    ("arch", "dtype"), [(80, torch.float32), (90, torch.uint8), (100, torch.float32)], ids=str
)
def test_launches_are_lean(arch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three launches a slot and one to mix; nothing spills."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    given = (
        *(empty(8, 3, 32, 32, dtype=dtype), empty(8, 3, 2, dtype=torch.uint8)),
        *(empty(8, 3, 2, dtype=torch.int64), empty(8, 3, 2, 2, dtype=torch.int32)),
        *(empty(8, 3, 2), empty(8, 3), empty(8)),
    )
    kernels = compile_launches(lambda: prime_chains(*given, 100, 3), arch, monkeypatch)
    names = ["draw_numbers", "draw_modes", "_apply"]
    assert [kernel.name for kernel in kernels] == [*names * 2, "_mix"]
    for kernel in kernels:
        assert kernel.local == kernel.stack == 0
        assert kernel.registers <= 128
