"""Define batch norms whose statistics are those of the rows of all processes."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from entprop_fast.layers.batch_norm_op import batch_norm, finish
from entprop_fast.layers.batch_norms import AuxBatchNorm, FusedBatchNorm, check_estimated
from entprop_fast.layers.derived import derive
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.synchronised_norm import processes, synchronised_batch_norm
from entprop_fast.layers.torch_quirks import averages_cumulatively, has_hooks
from entprop_fast.norm_half import Normed
from entprop_fast.ops.backend import exporting
from entprop_fast.torch_internals import BatchNormBase


class Synchronised(BatchNormBase):
    """Mark a batch norm, dual or not, that is synchronised in training.

    In eval mode, in a process alone and without a process group it is the norm it was made from, to
    the bit.

    Attributes:
        plain: the class it was made from, None where that is synchronised itself.
        process_group: whose rows it sees; None for the default group, looked up at each call.
    """

    plain: ClassVar[type[BatchNormBase] | None] = None
    process_group: Any = None

    def synchronises(self) -> bool:
        """Return whether a forward of this mode now asks other processes."""
        return self.training and not exporting() and processes(self.process_group) > 1


class SynchronisedHalf(Synchronised):
    """Go in front of the class of a batch norm without halves, or of a half."""

    def forward(
        self, input: Tensor, residual: Tensor | None = None, *, relu: bool = False
    ) -> Tensor:
        """Compute ``relu?(norm(input) + residual?)`` by the rows of all processes.

        Args:
            input: of the shape that the plain norm takes; the number of rows may differ.
            residual: shape and dtype of `input`.
            relu: apply ReLU last.
        """
        if self.synchronises():
            return synchronised_batch_norm(
                input, self, residual=residual, relu=relu, group=self.process_group
            )
        fused = (relu or residual is not None) and not averages_cumulatively(self, input)
        if fused and not exporting():
            return batch_norm(input, self, residual=residual, relu=relu)
        # Not the forward of `nn.SyncBatchNorm`, which refuses the CPU wherever there is a group.
        return finish(BatchNormBase.forward(self, input), residual, relu)


class SynchronisedDual(FusedBatchNorm, Synchronised):
    """Go in front of the class of a dual batch norm: both halves share their collectives."""

    def synchronises(self) -> bool:
        """Return whether a forward of this mode now asks other processes."""
        trains = self.training or self.aux_bn.training
        return trains and not exporting() and processes(self.process_group) > 1

    def normalise_outputs(
        self,
        x: Tensor,
        num_main: int | None,
        residual: Tensor | None = None,
        relu: bool = False,
        addend: Tensor | None = None,
        twice: bool = False,
    ) -> Normed:
        """Normalise ``x + addend?`` by the rows of all processes.

        Whichever rows this process has, it takes part in the same collectives.
        """
        if not self.synchronises():
            return super().normalise_outputs(x, num_main, residual, relu, addend, twice)
        total = x if addend is None else x + addend
        y = self._synchronised(total, num_main, residual, relu)
        return Normed(y, y, total)

    def _synchronised(
        self, x: Tensor, num_main: int | None, residual: Tensor | None, relu: bool
    ) -> Tensor:
        if num_main is not None:
            check_estimated(self.aux_bn)
        group = self.process_group
        if not has_hooks(self.aux_bn):
            return synchronised_batch_norm(
                x, self, self.aux_bn, num_main, residual=residual, relu=relu, group=group
            )
        if num_main is None:
            return synchronised_batch_norm(x, self, residual=residual, relu=relu, group=group)
        # By itself, and both whatever the number: the others may have rows of either half.
        main, aux = x.split_with_sizes([num_main, x.shape[0] - num_main])
        y = torch.cat((synchronised_batch_norm(main, self, group=group), self.aux_bn(aux)))
        return finish(y, residual, relu)


class AuxSyncBatchNorm(SynchronisedHalf, AuxBatchNorm, nn.SyncBatchNorm):
    """Be the auxiliary half of a `DualSyncBatchNorm`."""


class DualSyncBatchNorm(SynchronisedDual, nn.SyncBatchNorm):
    """Extend `nn.SyncBatchNorm` by an auxiliary one as ``aux_bn``, in the same process group.

    Made by `convert_dual_norm` from `nn.SyncBatchNorm`, also from what torch's
    ``convert_sync_batchnorm`` leaves of a `DualBatchNorm2d`. Both halves share one collective
    forward and one backward; unlike torch's it runs on every device.
    """

    dimensions = (2, 3, 4, 5)
    plain_class = norm_class = nn.SyncBatchNorm
    half_class = AuxSyncBatchNorm

    def forward_main(self, x: Tensor) -> Tensor:
        """Normalise all of `x` with the main half, in a process alone."""
        return BatchNormBase.forward(self, x)


def is_synchronised_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm, ours or torch's, that asks other processes."""
    return isinstance(module, Synchronised | nn.SyncBatchNorm)


def is_synchronised(model: nn.Module) -> bool:
    """Return whether a forward of `model` in training may ask other processes."""
    return any(map(is_synchronised_norm, model.modules()))


@functools.cache
def synchronised_class(cls: Any) -> Any:
    """Return the class that synchronises a `cls`: a dual batch norm, a half, or a plain one."""
    if issubclass(cls, Synchronised):
        return cls
    name = cls.__name__
    head, tail = ("Dual", name[4:]) if issubclass(cls, DualNorm) else ("", name)
    members: dict[str, Any] = {"plain": cls}
    mixin: Any = SynchronisedHalf
    if issubclass(cls, DualNorm):
        mixin, members["half_class"] = SynchronisedDual, synchronised_class(cls.half_class)
    # A pickle finds no class that is derived itself.
    derived = vars(cls).get("recipe")
    make, arguments = (_synchronised_from, derived) if derived else (synchronised_class, (cls,))
    return derive(f"{head}Sync{tail}", (mixin, cls), members, make, arguments)


def _synchronised_from(make: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return synchronised_class(make(*arguments))
