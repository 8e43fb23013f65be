"""Compute batch norm, sum and ReLU of somebody else's blocks in one pass, where that is exact."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from entprop_fast.layers.batch_norms import DualBatchNorm2d
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.fused_blocks import KEY, Forwards, Fused, fused_class
from entprop_fast.layers.fusion_sites import is_bare
from entprop_fast.layers.fusion_state import Attributes, modules_of
from entprop_fast.layers.fusion_trace import NotTraceable, signatures, trace

_OURS = "entprop_fast.models."


class Fusion(NamedTuple):
    """Tell about one dual batch norm of a model.

    Attributes:
        norm: its name in the model.
        pattern: what it computes in its own pass: ``"relu"``, ``"add+relu"``, ``"activation"``
            (the ReLU is its own, as of timm's ``BatchNormAct2d``), or ``""``: nothing more.
        why: why nothing more, where something is known.
    """

    norm: str
    pattern: str
    why: str = ""


def fuse_norms(model: nn.Module) -> list[Fusion]:
    """Let the dual batch norms of `model` add and apply ReLU themselves, where that is exact.

    Works in place, block by block (`convert_dual_norm` says more), and returns what
    :func:`fused_norms` would.
    """
    unfuse_norms(model)
    return _survey(model, fuse=True)


def unfuse_norms(model: nn.Module) -> None:
    """Undo `fuse_norms`."""
    for module in model.modules():
        if isinstance(module, Fused):
            del module.__dict__[KEY]
            module.__class__ = type(module).fused_from  # type: ignore[assignment]


def fused_norms(model: nn.Module) -> list[Fusion]:
    """Return, for every `DualBatchNorm2d` of `model`, whether sum and ReLU are fused into it.

    Example::

        convert_dual_norm(model, fuse=True)
        for one in fused_norms(model):
            print(one.norm, one.pattern or f"alone: {one.why}")
    """
    return _survey(model, fuse=False)


def _survey(model: nn.Module, *, fuse: bool) -> list[Fusion]:
    patterns: dict[nn.Module, str] = {}
    why: dict[nn.Module, str] = {}
    for block in _blocks(model):
        try:
            forwards = block.__dict__[KEY] if isinstance(block, Fused) else _forwards(block)
        except NotTraceable as error:
            why.update(dict.fromkeys(_norms_below(block), str(error)))
            continue
        if fuse and forwards.patterns:
            block.__dict__[KEY] = forwards
            cls: Any = type(block)
            block.__class__ = fused_class(cls)
        if isinstance(block, Fused):
            patterns.update({block.get_submodule(k): v for k, v in forwards.patterns.items()})
        why.update({block.get_submodule(k): v for k, v in forwards.why.items()})
    return [
        Fusion(name, pattern, "" if pattern else why.get(norm, _alone(norm)))
        for name, norm in model.named_modules()
        if isinstance(norm, DualBatchNorm2d)
        for pattern in [patterns.get(norm) or _own_activation(norm)]
    ]


def _alone(norm: nn.Module) -> str:
    act = getattr(norm, "act", None)
    return f"its activation is {type(act).__name__}" if act is not None else "no block calls it"


def _own_activation(norm: nn.Module) -> str:
    """Return the pattern of a norm with a ReLU of its own, as timm's may have."""
    return "activation" if type(getattr(norm, "act", None)) is nn.ReLU else ""


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that call dual batch norms, as far as their children tell; inner first."""
    for module in reversed(list(model.modules())):
        if not isinstance(module, DualNorm) and (any(_norms(module)) or _inlined(module)):
            yield module


def _norms(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the batch norms among the children that no activation of their own follows."""
    return filter(is_bare, module.children())


def _norms_below(block: nn.Module) -> list[nn.Module]:
    return [norm for module in (block, *_inlined(block)) for norm in _norms(module)]


def _inlined(block: nn.Module) -> list[nn.Module]:
    """Return modules whose forwards belong into the graph of `block`: what follows is the block's.

    A few layers with a dual batch norm, or a sequence that ends in one; none is fused itself.
    """
    found: list[nn.Module] = []
    for child in block.children():
        if isinstance(child, DualNorm | Fused) or _refusal(child):
            continue
        if any(_norms(child)) and not any(map(_has_layers, child.children())):
            found.append(child)
        elif _ends_in_norm(child):
            found += [child, *_inlined(child)]
    return found


def _has_layers(module: nn.Module) -> bool:
    return not isinstance(module, DualNorm) and any(module.children())


def _ends_in_norm(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential) or isinstance(module, Fused) or not len(module):
        return False
    last = module[-1]
    return is_bare(last) or _ends_in_norm(last)


def _refusal(block: nn.Module) -> str | None:
    """Tell what keeps a block from getting another forward."""
    cls = type(block)
    if "forward" in vars(block):
        return "its block has a forward of its own"
    if cls.__module__.startswith(_OURS):
        return "its block fuses it already"
    if (
        isinstance(block, torch.jit.ScriptModule)
        or parametrize.is_parametrized(block)
        or hasattr(cls, "__deepcopy__")
    ):
        return f"a {cls.__name__} cannot be given another forward"
    return None


def _forwards(block: nn.Module) -> Forwards:
    """Trace a block in both modes, for every number of arguments.

    Raises:
        NotTraceable: in one of them it cannot be.
    """
    if why := _refusal(block):
        raise NotTraceable(why)
    inlined = _inlined(block)
    try:
        return _traced(block, inlined)
    except NotTraceable:
        if not inlined:
            raise
        return _traced(block, [])


def _traced(block: nn.Module, inlined: list[nn.Module]) -> Forwards:
    forwards = Forwards()
    traced = [block, *inlined]
    others = [child for module in traced for child in module.children() if _has_own_code(child)]
    for training in (True, False):
        with _mode(list(modules_of(block)), training):
            for given in signatures(block):
                graph, run = trace(block, inlined, given)
                attributes = Attributes(block, inlined, others, run.names, run.asked, ignored=KEY)
                if unknown := attributes.unknown():
                    raise NotTraceable(f"its block may read {unknown}")
                forwards.add((training, len(given)), graph, block, attributes)
                if not forwards.patterns:  # none could be in all modes
                    return forwards
    return forwards


def _has_own_code(child: nn.Module) -> bool:
    """Return whether a child's attributes may be a switch that its block reads."""
    return not isinstance(child, DualNorm) and not type(child).__module__.startswith("torch.nn.")


@contextlib.contextmanager
def _mode(modules: list[nn.Module], training: bool) -> Iterator[None]:
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = training
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode
