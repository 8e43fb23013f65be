"""Say what one op costs a device, by what it has to read and write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from bench.fake_cuda.calls import Call, tensors_of

# The classes of docs/gpu_time.md, in its order.
PRODUCTS, NORMS, ELEMENTWISE = "convolutions and products", "norms", "elementwise and sums"
COPIES, OPTIMISER, OURS = "copies and casts", "optimiser", "loss, selection, attack"
KINDS = (PRODUCTS, NORMS, ELEMENTWISE, COPIES, OPTIMISER, OURS)

_COPIES = {f"aten.{name}" for name in ("_to_copy", "copy_", "clone", "cat", "_foreach_copy_")}
# What they change they do not read.
_OVERWRITE = {
    f"aten.{name}"
    for name in (
        "copy_",
        "fill_",
        "zero_",
        "normal_",
        "uniform_",
        "_foreach_copy_",
        "_foreach_zero_",
    )
}
# They write nothing: memory as it comes, and views that no schema calls one.
_FREE = {
    f"aten.{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("_unsafe_view", "as_strided_", "detach_", "squeeze_", "t_", "transpose_", "unsqueeze_"),
    )
}


@dataclass(frozen=True)
class Op:
    """Hold what one op costs.

    Attributes:
        kind: one of `KINDS`.
        name: "aten.add_".
        dtype: of the first tensor that it reads, in which it multiplies.
        flop: of convolutions and products; other sums are left out, memory bounds them.
        bytes: read and written, each tensor as often as the op has to.
        launches: of kernels.
    """

    kind: str
    name: str
    dtype: str
    flop: int = 0
    bytes: int = 0
    launches: int = 1


def kind_of(call: Call) -> str:
    """Return the class of an op."""
    if call.function in flop_registry:
        return PRODUCTS
    if call.name in _COPIES:
        return COPIES
    if "_batch_norm" in call.name:
        return NORMS
    if call.name.startswith(("aten._foreach_", "aten._fused_")):
        return OPTIMISER
    return OURS if call.name.startswith("entprop_fast.") else ELEMENTWISE


def op_of(call: Call, moved: int, *, flop: int = 0, launches: int = 1) -> Op:
    """Return what a call costs that moves so many bytes."""
    dtype = next((str(t.dtype).removeprefix("torch.") for t in call.read()), "")
    return Op(kind_of(call), call.name, dtype, flop, moved, launches)


def size(*tensors: Any) -> int:
    """Return the bytes of memory in which tensors (or lists of them, or None) lie.

    What is expanded lies there once.
    """
    return sum(map(_size, tensors_of(list(tensors))))


def _size(tensor: Tensor) -> int:
    held = tensor.element_size()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        held *= length if stride or not length else 1
    return held


def plain(call: Call) -> list[Op]:
    """Return what an op costs that reads its tensors and writes its results, each once.

    What it changes in place it reads and writes. Views, and memory that nothing is written to,
    are free.
    """
    changed = [call.values[name] for name in call.written if name in call.values]
    if call.name in _FREE or not (call.fresh or size(*changed)):
        return []
    outputs = [name for name in call.written if name == "out" or call.name in _OVERWRITE]
    read = size(*(value for name, value in call.values.items() if name not in outputs))
    flop = flop_of(call, call.args)
    return [op_of(call, read + size(*changed) + size(*call.fresh), flop=flop)]


def flop_of(call: Call, args: Iterable[Any]) -> int:
    """Return the FLOP of a call with such arguments, by PyTorch's own formulas; 0 of most ops."""
    formula = flop_registry.get(call.function)
    return 0 if formula is None else int(formula(*args, **call.kwargs, out_val=call.result))
