"""Hold still the running statistics of batch norms that know no routes."""

import contextlib
import copy
import copyreg
import functools
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

from torch import nn

from entprop_fast.layers.recognition import is_frozen_class
from entprop_fast.layers.torch_quirks import checkpoint_region, scratch_buffers
from entprop_fast.torch_internals import BatchNormBase, buffers_of

# The checkpoints in which a held norm ran, of the innermost route that holds it.
_Checkpoints = weakref.WeakKeyDictionary[Any, None]
_checkpoints: "weakref.WeakKeyDictionary[nn.Module, _Checkpoints]" = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def frozen_statistics(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Let training-mode norms normalise as in training without moving their running statistics.

    A backward pass in which `torch.utils.checkpoint` computes them again belongs inside, too: it
    has to find them as the forward did.

    Args:
        norms: batch norms, told to track none; others, such as instance norms, move clones.
    """
    norms = list(norms)
    others = [norm for norm in norms if _moves_others(norm)]
    with untracked(norms), scratch_buffers(*others):
        yield


@contextlib.contextmanager
def untracked(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Tell batch norms to track no running statistics."""
    tracking = [m for m in norms if isinstance(m, BatchNormBase) and m.track_running_stats]
    # An eval-mode norm reads its running statistics whatever this flag says.
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True


@contextlib.contextmanager
def plain_norms(norms: list[BatchNormBase], held: bool) -> Iterator[None]:
    """Hold the running statistics of norms that know no routes, or let them move again.

    Only while the norm runs, and by its class, as dual norms route: hooks of the process would meet
    other models in other threads, a flag would be copied along with the norm.

    Raises:
        RuntimeError: at the end, where a checkpoint is yet to compute one of them again.
    """
    if not norms:
        yield
        return
    before = [(type(norm), _checkpoints.get(norm)) for norm in norms]
    pending = _Checkpoints()
    try:
        for norm in norms:
            cls: Any = _released(type(norm))
            norm.__class__ = _class(cls, held)
            _checkpoints[norm] = pending
        yield
    finally:
        for norm, (former, outer) in zip(norms, before, strict=True):
            norm.__class__ = former
            _checkpoints.pop(norm, None)
            if outer is not None:
                _checkpoints[norm] = outer
    if pending:  # their backward is yet to come
        names = sorted({_released(cls).__name__ for cls, _ in before})
        raise RuntimeError(
            f"route: {', '.join(names)} has no auxiliary half and torch.utils.checkpoint would "
            "compute it again after the route: run backward inside it"
        )


class _Held(BatchNormBase):
    """Go in front of a batch norm's class."""

    released: ClassVar[type[BatchNormBase]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.training and (region := checkpoint_region()):
            _checkpoints.setdefault(self, _Checkpoints())[region] = None
        with untracked([self]):
            return super().forward(*args, **kwargs)

    def reset_running_stats(self) -> None:
        """Leave them, as the forwards of this route do: torch's ``update_bn`` would not return."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with _as_released(self):
            return copy.deepcopy(self, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        with _as_released(self):
            make, *rest = self.__reduce_ex__(protocol)
        # The only callable of which pickle demands that the class still be the module's own.
        return (_new if make is copyreg.__newobj__ else make, *rest)  # type: ignore[attr-defined]


@functools.cache
def _class(cls: Any, held: bool) -> Any:
    """Return `cls` itself, or the class that holds the statistics of a `cls`."""
    if not held:
        return cls

    def body(namespace: dict[str, Any]) -> None:
        namespace.update(released=cls, __module__=cls.__module__, __qualname__=cls.__qualname__)

    return types.new_class(cls.__name__, (_Held, cls), exec_body=body)


def _released(cls: type[BatchNormBase]) -> type[BatchNormBase]:
    return cls.released if issubclass(cls, _Held) else cls


def _moves_others(norm: nn.Module) -> bool:
    """Return whether `norm` may move buffers that `track_running_stats` does not hold."""
    asks = getattr(type(norm), "forward", None) in (BatchNormBase.forward, nn.SyncBatchNorm.forward)
    return norm.training and bool(buffers_of(norm)) and not (asks or is_frozen_class(norm))


def _new(cls: type[BatchNormBase]) -> BatchNormBase:
    return cls.__new__(cls)


@contextlib.contextmanager
def _as_released(norm: _Held) -> Iterator[None]:
    held = type(norm)
    norm.__class__ = held.released  # type: ignore[assignment]
    try:
        yield
    finally:
        norm.__class__ = held
