"""Every Triton kernel's machine code for sm_80, sm_90 and sm_100: no spills, wide accesses."""

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.kernels.loss_and_entropy import MAX_CLASSES, loss_and_entropy
from entprop_fast.kernels.select_topk import select_topk
from entprop_fast.norm_half import Half
from tests.kernels_aot.compiled import Compiled, compile_launches

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
ARCHITECTURES = (80, 90, 100)
NORM_ARCHITECTURES = (80, 86, 89, 90, 100, 120)
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# Two programs of 8 warps share a multiprocessor even then.
MAX_REGISTERS = 128


def _empty(*shape: int, dtype: torch.dtype = F32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _norm(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str,
    residual: bool = False,
    training: bool = True,
    relu: bool = True,
    wanted: tuple[bool, bool, bool, bool] = (True, False, True, True),
    again: bool = False,
    sums: bool = False,
) -> Callable[[], Any]:
    """Forward and backward, two groups; `again` of two readers, `sums` with an addend."""
    x = _empty(*shape, dtype=dtype).to(memory_format=LAYOUTS[layout])
    other = torch.empty_like(x) if residual else None
    counter = _empty(dtype=torch.int64)
    half = Half(*(_empty(shape[1]),) * 4, training=training, num_batches=counter)
    statistics = _empty(2, shape[1])

    def launch() -> None:
        added, twice = (torch.empty_like(x) if wants else None for wants in (sums, again))
        dual_batch_norm(x, other, half, half, shape[0] // 2, relu, added)
        dual_batch_norm_backward(
            x, x, other, half, half, statistics, statistics, _empty(0), shape[0] // 2, relu,
            list(wanted), twice, added,
        )  # fmt: skip

    return launch


def _assert_lean(kernels: list[Compiled]) -> None:
    assert kernels
    for kernel in kernels:
        assert (kernel.stack, kernel.local) == (0, 0), f"{kernel.name} spills"
        assert kernel.count("LDL") == kernel.count("STL") == 0, f"{kernel.name} spills"
        assert kernel.registers <= MAX_REGISTERS, f"{kernel.name}: {kernel.registers} registers"


@pytest.mark.parametrize(
    ("dtype", "arch", "residual"),
    [*product([BF16], NORM_ARCHITECTURES, [True, False]), (F32, 90, True), (F16, 90, True)],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_moves_sixteen_bytes(
    layout: str, dtype: torch.dtype, arch: int, residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = _norm(
        (128, 160, 32, 32), dtype, layout, residual=residual, wanted=(True, residual, True, True)
    )
    kernels = compile_launches(launch, arch, monkeypatch)
    assert [k.name for k in kernels] == ["statistics", "_normalize", "_reduce", "_apply"]
    _assert_lean(kernels)
    # Tile loads of the first launches: x twice (shift, then sums); grad, x and residual.
    statistics, normalize, reduce, apply = kernels
    assert statistics.count("LDG.E.128") >= 4
    whole = 4 if layout == "channels_last" else 2  # a tile of twice the bytes
    half = 2 if residual else whole
    assert normalize.count("LDG.E.128") >= whole * (1 + residual)
    assert normalize.count("STG.E.128") == whole
    assert reduce.count("LDG.E.128") >= (6 if residual else 2 * whole)
    assert reduce.count("STG.E.128") == (2 if residual else 0)
    assert apply.count("LDG.E.128") >= 2 * half and apply.count("STG.E.128") == half
    for kernel in kernels:
        narrow = kernel.count("LDG.E.U16") + kernel.count("STG.E.U16")
        assert narrow == 0, f"{kernel.name} reads or writes single elements"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(128, 640, 8, 8)])
def test_norm_without_residual(
    shape: tuple[int, ...], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = compile_launches(_norm(shape, BF16, layout), 90, monkeypatch)
    _assert_lean(kernels)
    tensors = {"statistics": 2, "_normalize": 1, "_reduce": 2, "_apply": 2}
    for kernel in kernels:
        assert kernel.count("LDG.E.128") >= 2 * tensors[kernel.name], kernel.name


@pytest.mark.parametrize(("arch", "dtype"), [(80, BF16), (90, BF16), (100, F32)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_in_the_norm_compile_lean(
    layout: str, residual: bool, arch: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second gradient; without a residual, as in a WRN, the sum before the norm as well."""
    launch = _norm(
        (128, 160, 32, 32), dtype, layout, residual, wanted=(True, residual, True, True),
        again=True, sums=not residual,
    )  # fmt: skip
    kernels = compile_launches(launch, arch, monkeypatch)
    assert [k.name for k in kernels] == ["statistics", "_normalize", "_reduce", "_apply"]
    _assert_lean(kernels)
    for kernel in kernels:
        assert kernel.count("LDG.E.128") >= 2 and kernel.count("LDG.E.U16") == 0, kernel.name


@pytest.mark.parametrize(
    ("shape", "dtype", "arch"),
    [
        ((32, 3, 224, 224), F32, 80),
        ((128, 33, 7, 7), BF16, 90),
        ((128, 512, 7, 7), BF16, 100),
        ((2, 1, 3, 3), F16, 90),
        ((128, 640, 1, 1), BF16, 90),  # sizes equal to 1 become constants
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_of_any_size_compiles_lean(
    shape: tuple[int, ...],
    layout: str,
    dtype: torch.dtype,
    arch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch = _norm(shape, dtype, layout, residual=True, wanted=(True,) * 4)
    _assert_lean(compile_launches(launch, arch, monkeypatch))


def test_norm_launches_only_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(**settings: Any) -> list[str]:
        launch = _norm((64, 64, 8, 8), BF16, "channels_last", **settings)
        kernels = compile_launches(launch, 90, monkeypatch)
        _assert_lean(kernels)
        return [kernel.name for kernel in kernels]

    dx, dresidual = (True, False, False, False), (False, True, False, False)
    forward = ["statistics", "_normalize"]
    assert names(wanted=dx) == [*forward, "_reduce", "_apply"]
    assert names(wanted=dresidual, residual=True) == [*forward, "_apply"]
    assert names(wanted=(False,) * 4) == forward
    assert names(training=False, wanted=dx) == ["_normalize", "_apply"]


def test_frozen_gradient_without_relu_reads_only_the_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch = _norm(
        (64, 64, 8, 8), BF16, "contiguous", training=False, relu=False,
        wanted=(True, False, False, False),
    )  # fmt: skip
    apply = compile_launches(launch, 90, monkeypatch)[-1]
    assert apply.count("LDG.E.128") == apply.count("STG.E.128") == 2


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("classes", "dtype"), [(1000, BF16), (1000, F32), (100, F32)])
@pytest.mark.parametrize("score", ["entropy", "margin"])
def test_loss_moves_sixteen_bytes(
    score: str, classes: int, dtype: torch.dtype, arch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = _empty(256, dtype=torch.int64)
    logits = _empty(256, classes, dtype=dtype)
    kernels = compile_launches(
        lambda: loss_and_entropy(logits, labels, labels, _empty(), 0.1, score), arch, monkeypatch
    )
    _assert_lean(kernels)
    (kernel,) = kernels  # one launch
    assert kernel.count("LDG.E.128") == kernel.count("STG.E.128") > 0


@pytest.mark.parametrize(("classes", "dtype"), [(MAX_CLASSES, BF16), (10, F16), (7, F32), (1, F32)])
def test_loss_of_any_size_compiles_lean(
    classes: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = _empty(4, dtype=torch.int64)
    logits = _empty(4, classes, dtype=dtype)
    launch = lambda: loss_and_entropy(logits, labels, labels, _empty(), 0.0, "cross_entropy")  # noqa: E731
    _assert_lean(compile_launches(launch, 90, monkeypatch))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_select_topk_is_one_lean_launch(arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = compile_launches(lambda: select_topk(_empty(256), 51), arch, monkeypatch)
    _assert_lean(kernels)
    assert len(kernels) == 1


def test_a_new_batch_or_split_does_not_recompile(monkeypatch: pytest.MonkeyPatch) -> None:
    def sass(images: int) -> list[str]:
        launch = _norm((images, 64, 8, 8), BF16, "channels_last")
        return [kernel.sass for kernel in compile_launches(launch, 90, monkeypatch)]

    assert sass(128) == sass(67) == sass(2000)


def test_offsets_past_32_bits_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = _norm((4096, 640, 32, 32), BF16, "channels_last")  # 2.7e9 elements
    _assert_lean(compile_launches(launch, 90, monkeypatch))


def test_import_asks_no_driver() -> None:
    program = (
        "import triton.runtime, entprop_fast.kernels.dual_batch_norm_backward, "
        "entprop_fast.kernels.loss_and_entropy, entprop_fast.kernels.select_topk; "
        "assert triton.runtime.driver._active is None"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
