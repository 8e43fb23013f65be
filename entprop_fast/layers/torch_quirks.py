"""Gather what dual norms do for the sake of PyTorch's features, a section for each feature.

The idea itself, in dual_norm.py, needs none of it. Private names are in torch_internals.py.
"""

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional as F

from entprop_fast.torch_internals import (
    BatchNormBase,
    buffers_of,
    call_hooks_of,
    check_dimensions,
    loading_hooks_of,
    saved_tensor_hooks,
)

Route = tuple[int | None, int | None]  # num_main, route_batch
# Modules whose inference may take a norm's weights past its forward, and what keeps them from it.
FUSING: dict[type[nn.Module], tuple[str, object]] = {
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
    nn.TransformerEncoder: ("use_nested_tensor", False),
}


# copy.deepcopy and pickle.


class Routed(nn.Module):
    """Keep those attributes of a module that belong to a route from its copies and pickles."""

    transient: ClassVar[tuple[str, ...]]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the route behind."""
        return {key: value for key, value in self.__dict__.items() if key not in self.transient}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Leave the route behind; a parametrised module copies itself by this, or not at all."""
        twin = self.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(Routed.__getstate__(self), memo))
        return twin


# torch.fx.


def trace_as_leaf(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Proxy | None:
    """Record a call of `module` as one node, as for torch's own norms; None outside of tracing."""
    x = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(x, Proxy):
        return None
    tracer: Any = x.tracer

    def record(*args: Any, **kwargs: Any) -> Proxy:
        proxy: Proxy = tracer.create_proxy(
            "call_module", tracer.path_of_module(module), args, kwargs
        )
        return proxy

    # A tracer asks whether the class is torch's; by its own way in, it still notes where this is.
    proxy: Proxy = tracer.call_module(module, record, args, kwargs)
    return proxy


# torch.utils.checkpoint, whose second forward runs inside the backward pass, after the route.


class PendingRoutes:
    """Remember along which routes checkpoints will compute a layer again."""

    def __init__(self) -> None:
        self._routes: weakref.WeakKeyDictionary[Callable[..., Any], set[Route]]
        self._routes = weakref.WeakKeyDictionary()

    def add(self, region: Callable[..., Any], route: Route) -> None:
        """Keep a route for as long as the region of a checkpoint lives."""
        self._routes.setdefault(region, set()).add(route)

    def the_only_one(self, layer: str) -> Route:
        """Return the route along which a layer is computed again.

        Raises:
            RuntimeError: none is known, or several are.
        """
        routes = set().union(*self._routes.values())
        if len(routes) != 1:
            known = "no route is known" if not routes else f"{len(routes)} routes are pending"
            raise RuntimeError(
                f"{layer} is run again inside a backward pass and {known} for it: "
                "with torch.utils.checkpoint use use_reentrant=False and run backward after each "
                "routed forward, before the next one"
            )
        return routes.pop()


def checkpoint_region() -> Callable[..., Any] | None:
    """Return what identifies the `torch.utils.checkpoint` region that runs now, None outside.

    The tensors that the region saved hold it: it lives until backward has freed them, or the graph
    is gone.
    """
    if torch.compiler.is_compiling():  # the compiler splits what is checkpointed by itself
        return None
    hooks = saved_tensor_hooks()
    of_checkpoint = torch.utils.checkpoint.__name__
    if hooks is None or getattr(hooks[1], "__module__", None) != of_checkpoint:
        return None
    return hooks[1]


@contextlib.contextmanager
def scratch_buffers(*norms: nn.Module) -> Iterator[None]:
    """Let a recomputation move clones: the forward has moved the running statistics already.

    Not passing any to it would save fewer tensors than the forward did, which checkpoint refuses.
    """
    before = [(buffers_of(norm), dict(buffers_of(norm))) for norm in norms]
    for registry, buffers in before:
        registry.update({k: v if v is None else v.clone() for k, v in buffers.items()})
    try:
        yield
    finally:
        for registry, buffers in before:
            registry.update(buffers)


# Fused inference of transformers.


@contextlib.contextmanager
def unfused(modules: list[nn.Module]) -> Iterator[None]:
    """Let PyTorch's transformer layers call their norms, which fused inference does not."""
    settings = [
        (module, name, value, getattr(module, name))
        for module in modules
        for kind, (name, value) in FUSING.items()
        if isinstance(module, kind)
    ]
    try:
        for module, name, value, _ in settings:
            setattr(module, name, value)
        yield
    finally:
        for module, name, _, before in settings:
            setattr(module, name, before)


# Hooks, and momentum=None.


def has_hooks(module: nn.Module) -> bool:
    """Return whether anything of the user's runs when `module` does."""
    return any(call_hooks_of(module))


def averages_cumulatively(norm: nn.Module, x: Tensor) -> bool:
    """Return whether torch would read ``num_batches_tracked`` on the host, a wait."""
    return (
        isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        and norm.momentum is None
        and norm.training
        and norm.track_running_stats
        and norm.num_batches_tracked is not None
        and x.device.type != "cpu"
    )


def cumulative_batch_norm(norm: BatchNormBase, x: Tensor) -> Tensor:
    """Apply a training batch norm of ``momentum=None`` with its counter read on the device.

    Args:
        norm: tracks running statistics; they become the mean over all batches seen.
        x: ``[N, C, ...]``.
    """
    check_dimensions(norm, x)
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None and norm.running_var is not None
    norm.num_batches_tracked.add_(1)
    # momentum=1 leaves this batch's own statistics in the two; an empty one leaves them alone.
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    y = F.batch_norm(x, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
    share = norm.num_batches_tracked.to(mean.dtype).reciprocal()
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
    return y


# Damaged checkpoints: load_state_dict shows a layer its own entries alone.


def watch_loading(model: nn.Module) -> None:
    """Have `model` list what a checkpoint with some auxiliary entries lacks of the others."""
    if not any(map(_is_ours, loading_hooks_of(model).values())):
        model.register_load_state_dict_pre_hook(_report_partial)


def unwatch_loading(module: nn.Module) -> None:
    """Undo `watch_loading`."""
    hooks = loading_hooks_of(module)
    for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
        del hooks[key]


def _is_ours(hook: Any) -> bool:
    return getattr(hook, "hook", None) is _report_partial


def _report_partial(
    model: nn.Module,
    state: dict[str, Any],
    prefix: str,
    metadata: Any,
    strict: bool,
    missing: list[str],
    *_: Any,
) -> None:
    """List as missing what a damaged dual checkpoint lacks.

    Each layer on its own would fill an absent auxiliary half from the main one; right for a plain
    checkpoint, wrong for a damaged dual one, which only the whole model can tell apart. A layer
    leaves alone what is listed here.
    """
    wanted = [
        f"{prefix}{name}{'.' if name else ''}{module.aux_name}.{key}"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Routed) and hasattr(module, "aux_name")
        for key in module.get_submodule(str(module.aux_name)).state_dict()
    ]
    absent = [key for key in wanted if key not in state]
    if len(absent) < len(wanted):
        missing.extend(key for key in absent if key not in missing)
