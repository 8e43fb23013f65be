"""Find the norms of others that only some dtypes, devices and installations have.

PyTorch takes cuDNN's norm for CUDA tensors in float16 or float32 whose parameters are float32, if
`torch.backends.cudnn.enabled` says so, and its own kernels for bfloat16 (ATen's
`_select_batch_norm_backend`); of a channels_last tensor in training that is cuDNN's persistent one.
Nothing promises it, so it is read off the graph of each result. apex's `groupbn` takes float16 in
NHWC, where it was built with it.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.ops.agreement import disagreement
from bench.timing import Contender

Forward = Callable[[], Tensor]
CUDNN, APEX = "cudnn", "apex"
# Which an op in float16 and channels_last should have beside it; a row without says so.
EXPECTED = {"norm": (CUDNN, APEX), "norm + add": (CUDNN, APEX), "two groups": (CUDNN, "timm")}


def native(forward: Forward) -> Forward:
    """Run a forward on PyTorch's own kernels, whatever cuDNN would take."""

    def call() -> Tensor:
        with torch.backends.cudnn.flags(enabled=False):
            return forward()

    return call


def of_cudnn(forward: Forward) -> Forward:
    """Return a forward that cuDNN takes.

    Raises:
        RuntimeError: PyTorch gives it to other kernels.
    """
    if not _has_node(forward(), "Cudnn"):
        raise RuntimeError("PyTorch takes another norm than cuDNN's here")
    return forward


def _has_node(y: Tensor, name: str) -> bool:
    """Return whether a node of a result's graph is called so."""
    nodes = [y.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None:
            if name in node.name():
                return True
            nodes += [previous for previous, _ in node.next_functions]
    return False


def of_apex(x: Tensor, added: Tensor | None) -> tuple[Forward, list[Tensor]]:
    """Return apex's norm, sum and ReLU, and its weight and bias.

    Raises:
        ImportError: apex was built without it, or is not there.
    """
    from apex.contrib.groupbn.batch_norm import BatchNorm2d_NHWC

    norm: torch.nn.Module = BatchNorm2d_NHWC(x.shape[1], fuse_relu=True).to(x.device)

    def forward() -> Tensor:
        sizes = [t if t is None else t.permute(0, 2, 3, 1) for t in (x, added)]
        y: Tensor = norm(*sizes)
        return y.permute(0, 3, 1, 2)

    return forward, list(norm.parameters())


def usable(
    makers: dict[str, Callable[[], Contender]], eager: Contender, dtype: torch.dtype
) -> dict[str, Contender]:
    """Make those that run here and compute what eager does; warn of every other one."""
    found: dict[str, Contender] = {}
    for name, make in makers.items():
        try:
            wrong = disagreement({"eager": eager, name: (call := make())}, dtype)
        except Exception as error:  # whatever another's installation may do
            wrong = f"{type(error).__name__}: {error}"
        if wrong is None:
            found[name] = call
        else:
            warnings.warn(f"without {name}: {wrong}", RuntimeWarning, stacklevel=2)
    return found


def absent(op: str, layout: str, dtype: str, there: Sequence[str]) -> list[str]:
    """Name those that a case should have had beside it."""
    if (layout, dtype) != ("channels_last", "float16"):
        return []
    return [name for name in EXPECTED.get(op, ()) if name not in there]
