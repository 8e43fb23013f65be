"""Profile every kernel at a training step's sizes: `python -m bench.gpu_profile`.

With `--once` each call runs once more after its warm-up and nothing is printed: for ncu.
"""

import sys
from collections.abc import Callable

import torch

from bench.ops.contenders import FORMATS, Place, gather, loss, perturb
from bench.timing import require_cuda
from entprop_fast.ops import Half, dual_batch_norm

Call = Callable[[], object]
REPEATS = 20
NORMS = ((128, 160, 32, 32), (128, 640, 8, 8), (26, 640, 8, 8), (64, 256, 56, 56))


def _norm(shape: tuple[int, ...], layout: torch.memory_format, residual: bool) -> Call:
    """Run forward and backward of two groups, bfloat16."""
    images = (torch.randn(shape, device="cuda").bfloat16() for _ in range(3))
    x, added, grad = (image.to(memory_format=layout) for image in images)
    weight, bias = torch.ones(2, shape[1], device="cuda").requires_grad_().unbind()
    leaves = [x.requires_grad_(), weight, bias, *([added.requires_grad_()] if residual else [])]

    def call() -> object:
        y = dual_batch_norm(
            x,
            Half(weight, bias),
            num_main=shape[0] * 4 // 5,
            residual=added if residual else None,
            relu=True,
        )
        return torch.autograd.grad(y, leaves, grad)

    return call


def calls() -> dict[str, Call]:
    """Return what is profiled, by name."""
    found: dict[str, Call] = {}
    for shape in NORMS:
        for name, layout in FORMATS.items():
            for residual in (False, True):
                key = f"norm{' + add' if residual else ''} {'x'.join(map(str, shape))} {name}"
                found[key] = _norm(shape, layout, residual)
    place = Place("cuda", torch.float32)
    for rows, classes in ((128, 100), (256, 1000)):
        called = f"loss and its top fifth {rows}x{classes}"
        found[called] = loss((rows, classes), place, autograd=False)["ours"]
    for size, rows in ((32, 128), (224, 256)):
        shape = rows, 3, size, size
        found[f"gather_perturb {size} px"] = gather(shape, place)["ours"]
        found[f"perturb_ {size} px"] = perturb(shape, place)["ours"]
    return found


def main() -> None:
    """Print a table of kernels for each call, or run each call once."""
    require_cuda()
    for name, call in calls().items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        if "--once" in sys.argv:
            call()
            torch.cuda.synchronize()
            continue
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(REPEATS):
                call()
            torch.cuda.synchronize()
        print(name)
        for event in sorted(profiler.key_averages(), key=lambda e: -e.device_time_total):
            if event.device_time_total > 0:
                launches, total = event.count / REPEATS, event.device_time_total / REPEATS
                print(f"  {total:9.2f} us  {launches:4.1f} launches  {event.key[:90]}")


if __name__ == "__main__":
    main()
