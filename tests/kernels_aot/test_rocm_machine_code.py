"""Every Triton kernel compiles for AMD's data-centre GPUs, without spills; none has run there."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.kernels import device
from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.kernels.dual_batch_norm_dx import dual_batch_norm_dx
from entprop_fast.kernels.dual_batch_norm_merge import dual_batch_norm_merge
from entprop_fast.kernels.dual_batch_norm_moments import dual_batch_norm_moments
from entprop_fast.kernels.image_chains import image_chains
from entprop_fast.kernels.loss_and_entropy import loss_and_entropy
from entprop_fast.kernels.prime_chains import prime_chains
from entprop_fast.kernels.select_topk import select_topk
from entprop_fast.norm_half import Half
from entprop_fast.ops.dual_batch_norm_merge import Running
from tests.kernels_aot.compiled import compiled_for

CHANNELS = 160


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _norms(layout: torch.memory_format, residual: bool) -> None:
    x = _empty(128, CHANNELS, 32, 32, dtype=torch.bfloat16).to(memory_format=layout)
    other = x if residual else None
    half, kept = Half(*(_empty(CHANNELS),) * 4), (_empty(2, CHANNELS),) * 2
    both = half, half
    dual_batch_norm(x, other, *both, 64, True)
    wanted = [True, residual, True, True]
    dual_batch_norm_backward(x, x, other, *both, *kept, _empty(0), 64, True, wanted)
    dual_batch_norm_moments(x, 64, True, True)
    sums = _empty(2, 2, CHANNELS), _empty(2)
    dual_batch_norm_dx(x, x, other, *both, *kept, _empty(0), *sums, 64, True)


def _merge() -> None:
    half = Running(_empty(640), _empty(640), _empty(dtype=torch.int64), None)
    dual_batch_norm_merge(_empty(8, 2, 1281), half, Running())


def _loss(score: str) -> None:
    labels = _empty(256, dtype=torch.int64)
    loss_and_entropy(_empty(256, 1000), labels, labels, _empty(), 0.1, score)


def _image_chains() -> None:
    images, codes = (_empty(*s, dtype=torch.uint8) for s in ((64, 3, 32, 32), (64, 3, 1)))
    image_chains(images, codes, _empty(64, 3, 1), _empty(64, 3), _empty(64))


def _prime_chains() -> None:
    given = (
        *(_empty(8, 3, 32, 32), _empty(8, 3, 2, dtype=torch.uint8)),
        *(_empty(8, 3, 2, dtype=torch.int64), _empty(8, 3, 2, 2, dtype=torch.int32)),
        *(_empty(8, 3, 2), _empty(8, 3), _empty(8)),
    )
    prime_chains(*given, 100, 3)


NORM = {"statistics", "_normalize", "_reduce", "_apply", "_write_moments", "_apply_sums"}
LAUNCHES: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "norms, channels_last, residual": (partial(_norms, torch.channels_last, True), NORM),
    "norms, channels_last": (partial(_norms, torch.channels_last, False), NORM),
    "norms, contiguous": (partial(_norms, torch.contiguous_format, False), NORM),
    "merge": (_merge, {"_merge"}),
    "loss and entropy": (partial(_loss, "entropy"), {"_loss_and_entropy"}),
    "loss and margin": (partial(_loss, "margin"), {"_loss_and_entropy"}),
    "top k": (lambda: select_topk(_empty(256), 51), {"_select_topk"}),
    "image chains": (_image_chains, {"prepare", "_apply", "_mix"}),
    "prime chains": (_prime_chains, {"draw_numbers", "draw_modes", "_apply", "_mix"}),
}


@pytest.mark.parametrize("architecture", ["gfx90a", "gfx942"])
@pytest.mark.parametrize("name", LAUNCHES)
def test_compiles_without_spills(
    name: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "OPTIONS", {})  # as where torch is built for ROCm
    launch, names = LAUNCHES[name]
    kernels = compiled_for(architecture, launch, monkeypatch)
    assert {kernel for kernel, _ in kernels} == names
    for kernel, compiled in kernels:
        spilled = re.findall(r"\.[vs]gpr_spill_count:\s*(\d+)", compiled.asm["amdgcn"])
        assert spilled == ["0", "0"], f"{kernel} spills"
