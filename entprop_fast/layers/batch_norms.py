"""Define batch norms with a main and an auxiliary half (the paper's MBN and ABN)."""

import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from entprop_fast.layers.batch_norm_op import batch_norm_outputs, finish
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import make_auxiliary
from entprop_fast.layers.torch_quirks import (
    Routed,
    averages_cumulatively,
    cumulative_batch_norm,
    has_hooks,
)
from entprop_fast.norm_half import Normed
from entprop_fast.ops.backend import exporting
from entprop_fast.torch_internals import BatchNormBase

_TINY = 16384


class AuxBatchNorm(Routed, BatchNormBase):
    """Keep a batch norm's running statistics while its owner is routed past it.

    ``torch.optim.swa_utils.update_bn`` resets every batch norm that it finds in a model and then
    runs the model along one route: without this, the other halves would be left reset.
    """

    transient = ("resting",)
    resting = False  # inside a route that leaves this half out

    def reset_running_stats(self) -> None:
        """Reset the running statistics, but for a route that leaves this half out."""
        if not self.resting:
            super().reset_running_stats()

    def reset_parameters(self) -> None:
        """Reset everything, as for a fresh norm."""
        super().reset_parameters()
        self.__dict__.pop("unestimated", None)

    def _load_from_state_dict(self, *args: Any) -> None:
        self.__dict__.pop("unestimated", None)
        super()._load_from_state_dict(*args)


class AuxBatchNorm1d(AuxBatchNorm, nn.BatchNorm1d):
    """Be the auxiliary half of a `DualBatchNorm1d`."""


class AuxBatchNorm2d(AuxBatchNorm, nn.BatchNorm2d):
    """Be the auxiliary half of a `DualBatchNorm2d`."""


class AuxBatchNorm3d(AuxBatchNorm, nn.BatchNorm3d):
    """Be the auxiliary half of a `DualBatchNorm3d`."""


class _DualBatchNorm(DualNorm):
    """Share between batch norms, synchronised ones too, what moves and resets statistics."""

    aux_name = "aux_bn"
    aux_bn: BatchNormBase

    def set_route(self, num_main: int | None, batch: int | None, inside: bool) -> None:
        """Choose the route of the coming forwards, and which half's statistics may be reset."""
        super().set_route(num_main, batch, inside)
        self.aux.__dict__["resting"] = inside and num_main is None

    def forward_main(self, x: Tensor) -> Tensor:
        if averages_cumulatively(self, x):
            return cumulative_batch_norm(self, x)  # type: ignore[arg-type]
        return super().forward_main(x)

    def forward_aux(self, x: Tensor) -> Tensor:
        if averages_cumulatively(self.aux_bn, x) and not has_hooks(self.aux_bn):
            return cumulative_batch_norm(self.aux_bn, x)
        return super().forward_aux(x)

    def normalise(self, x: Tensor, num_main: int | None) -> Tensor:
        if num_main is not None:
            check_estimated(self.aux_bn)
        return super().normalise(x, num_main)

    def reset_running_stats(self) -> None:
        """Reset the running statistics of both halves, inside a route of the routed ones alone.

        Whatever then runs without a route estimates the main ones: `entprop_fast.update_bn`
        estimates both, torch's inside ``route(model, "aux")`` the auxiliary ones.
        """
        if not (self.inside and self.num_main == 0):
            super().reset_running_stats()  # type: ignore[misc]
        if hasattr(self, "aux_bn"):  # not yet while the base class is being built
            self.aux_bn.reset_running_stats()
            if not self.inside:  # what runs next does so through the main half alone
                self.aux_bn.__dict__["unestimated"] = True

    def reset_parameters(self) -> None:
        """Reset the running statistics and the affine parameters of both halves."""
        super().reset_parameters()  # type: ignore[misc]
        if hasattr(self, "aux_bn"):
            self.aux_bn.reset_parameters()


def check_estimated(half: BatchNormBase) -> None:
    """Warn, once, where running statistics that nothing has moved since a reset are used."""
    if half.training or "unestimated" not in half.__dict__ or torch.compiler.is_compiling():
        return
    half.__dict__.pop("unestimated", None)
    if half.num_batches_tracked is not None and not half.num_batches_tracked.any():
        warnings.warn(
            "aux_bn: the running statistics were reset with the main ones and have seen no batch "
            "since; entprop_fast.update_bn(loader, model) estimates both, and torch's update_bn "
            "inside route(model, 'aux') these alone",
            stacklevel=2,
        )


def _pays_natively(norm: BatchNormBase, x: Tensor, dimensions: tuple[int, ...]) -> bool:
    """Return whether PyTorch's own batch norm is faster: a call of the op costs the host more.

    On two cores a forward and backward takes the op 1.6 to 2.4 times as long with 2048 to 16384
    numbers, 1.3 times with 32768, 0.7 with 65536; float32 on the CPU is what was measured. A
    compiler, which guards what Python compares, gets one graph for all sizes. What does not fit is
    for the op to refuse, in the same words at every size.
    """
    return (
        not torch.compiler.is_compiling()
        and x.numel() <= _TINY
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() in dimensions
        and x.shape[1] == norm.num_features
        and norm.eps > 0
    )


class FusedBatchNorm(_DualBatchNorm):
    """Share between batch norms of 1, 2 and 3 dimensions the one pass for both halves."""

    dimensions: ClassVar[tuple[int, ...]]  # of the input

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_features,
            eps,
            momentum,
            affine,
            track_running_stats,
            device=device,
            dtype=dtype,
            **kwargs,
        )
        half = make_auxiliary(self, self.half_class)
        assert isinstance(half, BatchNormBase)
        self.aux_bn = half

    def forward(
        self, input: Tensor, residual: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:
        """Compute ``relu?(norm(input) + residual?)`` along the current route, in one pass.

        Args:
            input: of the shape that the plain norm takes.
            residual: shape and dtype of `input`.
            relu: apply ReLU last.
        """
        return self.along_route(self.normalise, input, residual, relu)

    def outputs(
        self,
        input: Tensor,
        residual: Tensor | None = None,
        *,
        relu: bool = False,
        addend: Tensor | None = None,
        twice: bool = False,
    ) -> Normed:
        """Compute ``relu?(norm(input + addend?) + residual?)`` with the sums around it.

        Past the hooks of this module. Other arguments are `forward`'s.

        Args:
            input: of the shape that the plain norm takes.
            residual: shape and dtype of `input`.
            relu: apply ReLU last.
            addend: shape and dtype of `input`.
            twice: whether two will read the result: one ``y``, the other ``again``.
        """
        return self.along_route(self.normalise_outputs, input, residual, relu, addend, twice)

    def normalise(
        self, x: Tensor, num_main: int | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """Normalise rows ``[0, num_main)`` by the main half, the rest by the auxiliary one."""
        return self.normalise_outputs(x, num_main, residual, relu).y

    def normalise_outputs(
        self,
        x: Tensor,
        num_main: int | None,
        residual: Tensor | None = None,
        relu: bool = False,
        addend: Tensor | None = None,
        twice: bool = False,
    ) -> Normed:
        """Normalise ``x + addend?`` as `normalise` does `x`, which is made of it."""
        if (
            num_main is None
            and not (relu or twice)
            and residual is None
            and addend is None
            and _pays_natively(self, x, self.dimensions)  # type: ignore[arg-type]
        ):
            y = self.forward_main(x)
            return Normed(y, y, x)
        rows = x.shape[0] if x.ndim else 0
        only_aux = num_main == 0
        main = None if only_aux else self
        aux = None if num_main is None or (num_main == rows and not only_aux) else self.aux_bn
        if aux is not None:
            check_estimated(aux)
        by_itself = (
            exporting()
            or (rows == 0 and only_aux)  # of nothing, the op cannot tell whose it is
            or (aux is not None and has_hooks(aux))
            or any(half is not None and averages_cumulatively(half, x) for half in (main, aux))
        )
        if by_itself:
            total = x if addend is None else x + addend
            y = finish(super().normalise(total, num_main), residual, relu)
            return Normed(y, y, total)
        return batch_norm_outputs(
            x, main, aux, num_main, residual=residual, relu=relu, addend=addend, twice=twice  # type: ignore[arg-type]
        )  # fmt: skip


class DualBatchNorm2d(FusedBatchNorm, nn.BatchNorm2d):
    """Extend `nn.BatchNorm2d` by an auxiliary batch norm as its child ``aux_bn``.

    Without a route it is `nn.BatchNorm2d`: same arguments, values, gradients and state dict keys.
    Inside ``with entprop_fast.route(model, "aux")`` the auxiliary batch norm, with affine
    parameters and running statistics of its own, takes its place; with an integer route each of
    the two normalises its rows of the batch with their own statistics (the paper's MBN and ABN;
    docs/algorithm.md). A plain checkpoint loads with ``strict=True``: it fills both.

    Args:
        num_features: C of the input ``[N, C, H, W]``.
        eps: added to the variance. Like `momentum` it belongs to each half afterwards.
        momentum: of the running statistics; None for a cumulative average, whose counter is read
            on the device.
        affine: learn a scale and a shift for each half.
        track_running_stats: keep running statistics for each half.
        device: where the parameters and buffers live.
        dtype: their dtype.
        **kwargs: what this version of `nn.BatchNorm2d` takes besides (``bias`` from torch 2.13).
    """

    dimensions = (4,)
    plain_class: ClassVar[type[nn.Module]] = nn.BatchNorm2d
    norm_class: ClassVar[type[nn.Module]] = nn.BatchNorm2d
    half_class: ClassVar[type[nn.Module]] = AuxBatchNorm2d


class DualBatchNorm1d(FusedBatchNorm, nn.BatchNorm1d):
    """Extend `nn.BatchNorm1d`, over ``[N, C]`` or ``[N, C, L]``, as `DualBatchNorm2d` does."""

    dimensions = (2, 3)
    plain_class = norm_class = nn.BatchNorm1d
    half_class = AuxBatchNorm1d


class DualBatchNorm3d(FusedBatchNorm, nn.BatchNorm3d):
    """Extend `nn.BatchNorm3d`, over ``[N, C, D, H, W]``, as `DualBatchNorm2d` does."""

    dimensions = (5,)
    plain_class = norm_class = nn.BatchNorm3d
    half_class = AuxBatchNorm3d
