"""The machine code of `image_chains`: two launches an operation and one to mix, nothing fused."""

import pytest
import torch
from torch import Tensor

from entprop_fast.kernels.image_chains import image_chains
from tests.kernels_aot.compiled import Compiled, compile_launches

MAX_REGISTERS = 128  # two programs of 8 warps share a multiprocessor


def _compiled(shape: tuple[int, ...], arch: int, monkeypatch: pytest.MonkeyPatch) -> list[Compiled]:
    def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(sizes, dtype=dtype, device="meta")

    images = empty(*shape, dtype=torch.uint8)
    codes = empty(shape[0], 3, 1, dtype=torch.uint8)
    given = (images, codes, empty(shape[0], 3, 1), empty(shape[0], 3), empty(shape[0]))
    return compile_launches(lambda: image_chains(*given), arch, monkeypatch)


@pytest.mark.parametrize(("shape", "arch"), [((64, 3, 32, 32), 90), ((5, 1, 7, 5), 100)])
def test_launches_are_lean(
    shape: tuple[int, ...], arch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = _compiled(shape, arch, monkeypatch)
    assert [kernel.name for kernel in kernels] == ["prepare", "_apply", "_mix"]
    prepare, *others = kernels
    assert prepare.registers <= MAX_REGISTERS  # sine and cosine of float64 keep a table
    for kernel in others:
        assert (kernel.stack, kernel.local) == (0, 0), f"{kernel.name} spills"
        assert kernel.registers <= MAX_REGISTERS, f"{kernel.name}: {kernel.registers} registers"
        # A blend and a mixture round a product and a sum each.
        assert kernel.count("FFMA") == 0, f"{kernel.name} fuses"
