"""Which rows of a batch a dual norm gives to its main and which to its auxiliary half."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeGuard

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from entprop_fast.layers.dual_norm import DualNorm, checkpoint_hook

Target = int | Literal["main", "aux"]

# Modules whose inference may take a norm's weights past its forward, and what keeps them from it.
_FUSING: dict[type[nn.Module], tuple[str, object]] = {
    nn.TransformerEncoderLayer: ("activation_relu_or_gelu", 0),
    nn.TransformerEncoder: ("use_nested_tensor", False),
}
# Batch norms without an auxiliary half that a route to the auxiliary ones holds now.
_held: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


@contextlib.contextmanager
def route(model: nn.Module, target: Target, batch: int | None = None) -> Iterator[None]:
    """Send a model's forward passes through its main norms, its auxiliary ones, or both.

    Inside the ``with`` block, `target` holds for every dual layer of `model`: ``"main"`` (also
    what happens without any route), ``"aux"``, or an integer m, which sends rows ``[0, m)`` to the
    main norms and the rest to the auxiliary ones, in one forward. Routes nest, the innermost wins,
    and leaving the block, by an exception too, restores what was before. A route belongs to one
    model: a copy made inside the block is not routed. Backward may run after the block.

    Under ``"aux"`` (or 0), batch norms of `model` that were not converted (1-d and 3-d ones, say)
    use batch statistics and do not move their running ones.

    Args:
        model: a network that holds at least one dual layer (see `convert_dual_norm`).
        target: ``"main"``, ``"aux"`` or the number m of leading rows for the main norms.
        batch: the batch size, needed with an integer target where a layer's first dimension is not
            the batch (windows or patches folded into it): m is then scaled by rows / batch.

    Raises:
        TypeError: `target` or `batch` is none of the above.
        ValueError: `model` has no dual layer, or `batch` is below 1. At the forward: m is outside
            ``[0, rows]``, or m rows of the batch are not a whole number of rows of the layer.
        RuntimeError: at the end of the block, where `torch.utils.checkpoint` is yet to compute a
            batch norm that was not converted again: its backward belongs inside.
    """
    num_main = _num_main(target)
    if batch is not None and not _is_int(batch):
        raise TypeError(f"batch={batch!r}: expected the batch size, an int, or None")
    if batch is not None and batch < 1:
        raise ValueError(f"batch={batch}: expected the batch size, at least 1")
    layers, plain, fusing = _norms(model)
    before = [(layer.num_main, layer.route_batch) for layer in layers]
    with (
        _plain_norms(plain, held=num_main == 0),
        contextlib.nullcontext() if num_main is None else _unfused(fusing),
    ):
        try:
            for layer in layers:
                layer.set_route(num_main, batch)
            yield
        finally:
            for layer, (old_num_main, old_batch) in zip(layers, before, strict=True):
                layer.set_route(old_num_main, old_batch)


def dual_layers(model: nn.Module) -> list[DualNorm]:
    """All dual layers of `model`, each once.

    Raises:
        ValueError: there is none, or torch's ``convert_sync_batchnorm`` took their routing away.
    """
    return _norms(model)[0]


def lost_routing(module: nn.Module) -> bool:
    """Whether `module` is a batch norm that kept an auxiliary half but not the route to it."""
    return (
        isinstance(module, _BatchNorm)
        and not isinstance(module, DualNorm)
        and isinstance(getattr(module, "aux_bn", None), _BatchNorm)
    )


def _norms(model: nn.Module) -> tuple[list[DualNorm], list[_BatchNorm], list[nn.Module]]:
    """The dual layers of `model`, its batch norms that belong to none of them, what may fuse norms.

    One walk over the modules: a step enters several routes.
    """
    layers: list[DualNorm] = []
    others: list[_BatchNorm] = []
    fusing: list[nn.Module] = []
    kinds = tuple(_FUSING)
    for module in model.modules():
        if isinstance(module, DualNorm):
            layers.append(module)
        elif isinstance(module, _BatchNorm):
            others.append(module)
        elif isinstance(module, kinds):
            fusing.append(module)
    if any(map(lost_routing, others)):
        lost = [name for name, module in model.named_modules() if lost_routing(module)]
        raise ValueError(
            f"model: {', '.join(lost)} lost its routing, as torch's convert_sync_batchnorm does: "
            "call entprop_fast.convert_dual_norm(model) on the converted model to get it back"
        )
    if not layers:
        raise ValueError(
            "model has no dual norm layer: call entprop_fast.convert_dual_norm(model) first, and "
            "make the optimizer after that"
        )
    halves = {id(layer.aux) for layer in layers}
    return layers, [norm for norm in others if id(norm) not in halves], fusing


@contextlib.contextmanager
def frozen_statistics(norms: Iterable[nn.Module]) -> Iterator[None]:
    """Let training-mode batch norms use batch statistics without moving their running ones.

    A backward pass in which `torch.utils.checkpoint` computes them again belongs inside, too: it
    has to find them as the forward did.
    """
    tracking = [m for m in norms if isinstance(m, _BatchNorm) and m.track_running_stats]
    # An eval-mode norm reads its running statistics whatever this flag says.
    for norm in tracking:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in tracking:
            norm.track_running_stats = True


@contextlib.contextmanager
def _unfused(modules: list[nn.Module]) -> Iterator[None]:
    """Let PyTorch's transformer layers call their norms, which fused inference does not."""
    settings = [
        (module, name, value, getattr(module, name))
        for module in modules
        for kind, (name, value) in _FUSING.items()
        if isinstance(module, kind)
    ]
    try:
        for module, name, value, _ in settings:
            setattr(module, name, value)
        yield
    finally:
        for module, name, _, before in settings:
            setattr(module, name, before)


@contextlib.contextmanager
def _plain_norms(norms: list[_BatchNorm], held: bool) -> Iterator[None]:
    """Hold the running statistics of norms that know no routes, or let them move again."""
    before = [norm for norm in norms if norm in _held]
    if held:
        _held.update(norms)
    else:
        _held.difference_update(norms)
    try:
        with _freezing_held() if held and norms else contextlib.nullcontext():
            yield
    finally:
        _held.difference_update(norms)
        _held.update(before)


@contextlib.contextmanager
def _freezing_held() -> Iterator[None]:
    """Freeze what is held while it runs, and no longer: a copy made in between is whole."""
    running: list[contextlib.ExitStack] = []
    checkpoints: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def enter(norm: nn.Module, _: object) -> None:
        if norm in _held:
            running.append(contextlib.ExitStack())
            running[-1].enter_context(frozen_statistics([norm]))
            if norm.training and (hook := checkpoint_hook()):
                checkpoints[hook] = type(norm).__name__

    def leave(norm: nn.Module, *_: object) -> None:
        if norm in _held:
            running.pop().close()

    with (
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave, always_call=True),
    ):
        yield
    if checkpoints:  # their backward is yet to come
        raise RuntimeError(
            f"route: {', '.join(sorted(set(checkpoints.values())))} has no auxiliary half and "
            "torch.utils.checkpoint would compute it again after the route: run backward inside it"
        )


def _num_main(target: object) -> int | None:
    if isinstance(target, str) and target in ("main", "aux"):
        return None if target == "main" else 0
    if _is_int(target):
        return target
    raise TypeError(
        f"target={target!r}: expected 'main', 'aux' or the number of leading rows that are main"
    )


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
