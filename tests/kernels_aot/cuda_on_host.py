"""Run csrc/cuda/perturb.cu on the CPU: the same source, its threads one after another.

What this shows: arithmetic, indices, tails, the choice of access width. What it cannot: alignment
faults, races (there are none to have: no thread reads what another writes) and speed.
"""

import ctypes
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).parents[2] / "csrc" / "cuda"

PRELUDE = """
#include <cuda_runtime_api.h>
#include <cmath>
#undef __global__
#define __global__
#undef __device__
#define __device__
#undef __launch_bounds__
#define __launch_bounds__(...)
static dim3 blockIdx, threadIdx;
#define cudaGetLastError() cudaSuccess  // no function: torch's own runtime would be called
template <class Kernel, class... Arguments>
void launch_on_host(Kernel kernel, long blocks, int threads, Arguments... arguments) {
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(arguments...);
}
"""
ENTRY = """
extern "C" int step(int onward, int type, void* out, const void* grad, const void* x,
                    const long* index, long stride, const void* alpha, const void* eps,
                    const void* lo, const void* hi, long rows, long available, long channels,
                    long pixels, int channels_last) {
  using namespace entprop::cuda;
  return (onward ? perturb : gather_perturb)(
      Type(type), out, grad, x, Rows{index, stride}, Bounds{alpha, eps, lo, hi},
      Images{rows, available, channels, pixels, channels_last != 0}, nullptr);
}
"""
TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


def host_source(source: str) -> str:
    """Return the .cu file as plain C++: the launch becomes two loops."""
    launch = re.compile(r"(perturb_rows<[^>]*>)\s*<<<([^,]*),\s*([^,]*),[^>]*>>>\(")
    translated, launches = launch.subn(r"launch_on_host(\1, \2, \3, ", source)
    assert launches == 1, "perturb.cu has another launch syntax than this expects"
    # Half-precision headers must see the real __device__, so they come before the prelude.
    return "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n" + PRELUDE + translated + ENTRY


def build(source: str, folder: Path) -> SimpleNamespace:
    """Compile the translated source and wrap it in the ops' signatures."""
    code, library = folder / "perturb_on_host.cpp", folder / "perturb_on_host.so"
    code.write_text(host_source(source))
    # As a C++ compiler: it knows where the toolkit's headers are.
    subprocess.run(
        ["nvcc", "-x", "c++", "-std=c++17", "-O1", "-w", "--cudart=none", "-shared",
         "-Xcompiler=-fPIC", f"-I{SOURCE}", str(code), "-o", str(library)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    step = ctypes.CDLL(str(library)).step
    pointer, number, flag = ctypes.c_void_p, ctypes.c_long, ctypes.c_int
    step.argtypes = [flag, flag, *[pointer] * 4, number, *[pointer] * 4, *[number] * 4, flag]

    def run(
        onward: bool, out: Tensor, grad: Tensor, x: Tensor, index: Tensor, *bounds: Any
    ) -> None:
        rows, channels, pixels = len(index), x.shape[1], x[0, 0].numel()
        error = step(
            onward, TYPES[x.dtype], out.data_ptr(), grad.data_ptr(), x.data_ptr(),
            index.data_ptr(), index.stride(0), *(b.data_ptr() for b in bounds), rows, x.shape[0],
            channels, pixels, not x.is_contiguous(),
        )  # fmt: skip
        assert error == 0

    def gather_perturb(x: Tensor, grad: Tensor, index: Tensor, *bounds: Tensor) -> Tensor:
        out = torch.empty_like(x[: len(index)])
        run(False, out, grad, x, index, *bounds)
        return out

    def gather_perturb_out(
        x: Tensor, grad: Tensor, index: Tensor, *bounds: Tensor, out: Tensor
    ) -> None:
        run(False, out, grad, x, index, *bounds)

    def perturb_(x_adv: Tensor, grad: Tensor, x: Tensor, index: Tensor, *bounds: Tensor) -> None:
        run(True, x_adv, grad, x, index, *bounds)

    return SimpleNamespace(
        gather_perturb=gather_perturb, gather_perturb_out=gather_perturb_out, perturb_=perturb_
    )
