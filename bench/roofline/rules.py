"""Say what those ops cost that do not read and write each of their tensors once.

The passes of our own ops are those of docs/kernels (dual_batch_norm_gpu.md, perturb_gpu.md);
tests/bench/test_roofline.py holds them against these pages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from bench.fake_cuda.calls import Call, tensors_of
from bench.roofline.op import Op, flop_of, op_of, plain, size

# ATen's multi_tensor_apply (ATen/native/cuda/MultiTensorApply.cuh): the elements of a chunk, and by
# the number of lists how many tensors and chunks one launch takes.
CHUNK, MOST_CHUNKS = 65536, 320
MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}


def costs(call: Call) -> list[Op]:
    """Return what a call costs, one entry for each of its kernels that has its own work."""
    if call.name.startswith(("aten._foreach_", "aten._fused_")):
        return _lists(call)
    return RULES.get(call.name, plain)(call)


def _convolution_backward(call: Call) -> list[Op]:
    """The gradients of images, weights and bias are kernels of their own."""
    grad, x, weight, *settings, mask = call.args
    found = []
    for number, reads in enumerate(((grad, weight), (grad, x), (grad,))):
        if mask[number]:
            only = [place == number for place in range(3)]
            flop = flop_of(call, (grad, x, weight, *settings, only))
            found.append(op_of(call, size(*reads, call.result[number]), flop=flop))
    return found


def _norm(call: Call) -> list[Op]:
    """Every tensor once, and in training the images again for the statistics: two launches."""
    v = call.values
    x = v["x"] if "x" in v else v["input"]
    again = size(x) if _trains(v) else 0
    changed = [v.get(name) for name in call.written]
    moved = size(*v.values()) + size(*call.fresh) + size(*changed) + again
    return [op_of(call, moved, launches=2 if again else 1)]


def _trains(v: dict[str, Any]) -> bool:
    """Return whether a group that has rows trains; a norm of PyTorch's has one."""
    if "num_main" not in v:
        return bool(v.get("training", v.get("train", True)))
    rows, main = len(v["x"]), v["num_main"]
    return bool((v["training"] and main > 0) or (v["aux_training"] and main < rows))


def _norm_backward(call: Call) -> list[Op]:
    """Return the cost of `dual_batch_norm_backward`: of its launches for sums and for images.

    The first reads the images, the gradient and, for the ReLU's sign, the residual; it writes the
    masked gradient as the residual's. The second reads that, or all of them, and writes dx. Where
    the op takes a second gradient (`again`) or the sum's own (`dtotal`), these are read along.
    """
    v = call.values
    dx, dresidual, *sums = v["wanted"]
    residual = v["residual"] if v["relu"] else None
    gradients = (v["grad"], v.get("again"), residual)
    summed = any(sums) or (dx and _trains(v))
    launches = 1 if any(v["wanted"]) else 0
    moved = size(*call.fresh)
    if summed:
        launches += 1
        moved += size(*gradients, v["x"])
        if dx:
            moved += size(v["x"], *([call.result[1]] if dresidual else gradients))
    elif dx or dresidual:
        moved += size(*gradients, v["x"] if v["relu"] else None)
    if dx:
        moved += size(v.get("dtotal"))
    return [op_of(call, moved, launches=launches)] if launches else []


def _torch_norm_backward(call: Call) -> list[Op]:
    """Gradient and images twice, in two launches."""
    first, second = call.args[:2]
    return [op_of(call, size(*call.read()) + size(first, second, *call.fresh), launches=2)]


def _rows(call: Call) -> list[Op]:
    """Read as much as is written, and the index."""
    index = [value for name, value in call.values.items() if name in ("index", "indices")]
    return [op_of(call, 2 * size(*call.fresh) + size(*index))]


def _padded(call: Call) -> list[Op]:
    """Zeros, and then the gradient copied into its place."""
    return [op_of(call, size(*call.fresh) + 2 * size(*call.read()), launches=2)]


def _gather_perturb(call: Call) -> list[Op]:
    """Three passes of the chosen rows, wherever the result goes."""
    v = call.values
    small = (v[name] for name in ("index", "alpha", "eps", "lo", "hi"))
    return [op_of(call, 3 * size(v.get("out"), *call.fresh) + size(*small))]


def _perturb(call: Call) -> list[Op]:
    """Four passes of the chosen rows."""
    v = call.values
    small = (v[name] for name in ("index", "alpha", "eps", "lo", "hi"))
    return [op_of(call, 4 * size(v["x_adv"]) + size(*small))]


def _lists(call: Call) -> list[Op]:
    """A few launches for all tensors of several lists."""
    lists = [found for found in (*map(_tensors, call.values.values()), call.fresh) if found]
    if not lists:
        return []
    moved = plain(call)[0].bytes
    if call.values.get("grad_scale") is None and "grads" in call.written:
        moved -= size(call.values["grads"])  # which only an unscaling would change
    numels = [tensor.numel() for tensor in lists[0]]
    return [op_of(call, moved, launches=multi_tensor_launches(numels, len(lists)))]


def _tensors(value: Any) -> list[Tensor]:
    return list(tensors_of(value)) if isinstance(value, list | tuple) else []


def multi_tensor_launches(numels: Iterable[int], lists: int) -> int:
    """Return how many launches `multi_tensor_apply` takes for tensors of so many elements."""
    most, launches, tensors, chunks = MOST_TENSORS[min(lists, 5)], 0, 0, 0
    for numel in numels:
        tensors += 1
        for left in range(math.ceil(numel / CHUNK) - 1, -1, -1):
            chunks += 1
            if chunks == MOST_CHUNKS or (tensors == most and not left):
                launches, chunks, tensors = launches + 1, 0, 1 if left else 0
    return launches + (chunks > 0)


RULES: dict[str, Callable[[Call], list[Op]]] = {
    "aten.convolution_backward": _convolution_backward,
    "entprop_fast.dual_batch_norm": _norm,
    "entprop_fast.dual_batch_norm_backward": _norm_backward,
    "entprop_fast.gather_perturb": _gather_perturb,
    "entprop_fast.perturb_": _perturb,
    **dict.fromkeys(("aten.index", "aten.index_select", "aten.gather"), _rows),
    **dict.fromkeys(("aten.slice_backward", "aten.select_backward"), _padded),
    **dict.fromkeys(("aten.native_batch_norm", "aten.cudnn_batch_norm"), _norm),
    **dict.fromkeys(
        ("aten.native_batch_norm_backward", "aten.cudnn_batch_norm_backward"), _torch_norm_backward
    ),
}
