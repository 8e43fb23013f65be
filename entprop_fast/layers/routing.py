"""Route rows of a batch to the main or to the auxiliary half of every dual norm."""

import contextlib
from collections.abc import Iterator
from typing import Literal, TypeGuard

from torch import nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.frozen_statistics import frozen_statistics, plain_norms
from entprop_fast.layers.torch_quirks import FUSING, unfused
from entprop_fast.torch_internals import BatchNormBase, children_of

__all__ = ["Target", "dual_layers", "frozen_statistics", "lost_routing", "route"]

Target = int | Literal["main", "aux"]


@contextlib.contextmanager
def route(model: nn.Module, target: Target, batch: int | None = None) -> Iterator[None]:
    """Send a model's forward passes through its main norms, its auxiliary ones, or both.

    Inside the ``with`` block, `target` holds for every dual layer of `model`: ``"main"`` (also
    what happens without any route), ``"aux"``, or an integer m, which sends rows ``[0, m)`` to the
    main norms and the rest to the auxiliary ones, in one forward. Routes nest, the innermost wins,
    and leaving the block, by an exception too, restores what was before. A route belongs to one
    model: a copy made inside the block is not routed, and other models, copies too, may be routed
    in other threads meanwhile. Backward may run after the block.

    An integer counts rows of a layer's first dimension: in a network whose activations are
    ``[time, batch, channels]`` it would split the time; route such a one by name alone.

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
    before = [(layer.num_main, layer.route_batch, layer.inside) for layer in layers]
    with (
        plain_norms(plain, held=num_main == 0),
        contextlib.nullcontext() if num_main is None else unfused(fusing),
    ):
        try:
            for layer in layers:
                layer.set_route(num_main, batch, True)
            yield
        finally:
            for layer, old in zip(layers, before, strict=True):
                layer.set_route(*old)


def dual_layers(model: nn.Module) -> list[DualNorm]:
    """Return all dual layers of `model`, each once.

    Raises:
        ValueError: there is none, or torch's ``convert_sync_batchnorm`` took their routing away.
    """
    return _norms(model)[0]


def lost_routing(module: nn.Module) -> bool:
    """Return whether a batch norm kept an auxiliary half but not the route to it."""
    return (
        isinstance(module, BatchNormBase)
        and not isinstance(module, DualNorm)
        and isinstance(getattr(module, "aux_bn", None), BatchNormBase)
    )


def _norms(model: nn.Module) -> tuple[list[DualNorm], list[BatchNormBase], list[nn.Module]]:
    """Return the dual layers of `model`, its batch norms outside of them, what may fuse norms.

    One walk over the modules: a step enters several routes.
    """
    layers: list[DualNorm] = []
    others: list[BatchNormBase] = []
    fusing: list[nn.Module] = []
    kinds = tuple(FUSING)
    # By hand: Module.modules() makes the names of all, too, and an auxiliary half routes nothing.
    seen: set[nn.Module] = set()
    coming: list[nn.Module | None] = [model]
    while coming:
        module = coming.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        children = children_of(module)
        if isinstance(module, DualNorm):
            layers.append(module)
            children = {k: child for k, child in children.items() if k != module.aux_name}
        elif isinstance(module, BatchNormBase):
            others.append(module)
        elif isinstance(module, kinds):
            fusing.append(module)
        coming.extend(reversed(children.values()))
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
    if others:  # a half may have a second place in the model
        halves = {id(layer.aux) for layer in layers}
        others = [norm for norm in others if id(norm) not in halves]
    return layers, others, fusing


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
