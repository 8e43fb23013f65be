"""Compute batch norm, sum and ReLU of somebody else's blocks in one pass, where that is exact."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.fx import Graph
from torch.nn.utils import parametrize

from entprop_fast.layers.batch_norms import DualBatchNorm2d
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.fusion_sites import find_sites, is_bare, rewrite
from entprop_fast.layers.fusion_trace import Attributes, NotTraceable, signatures, trace
from entprop_fast.ops.backend import exporting

_OURS = "entprop_fast.models."
_KEY = "_fused_forwards"  # in a fused block's attributes
Mode = tuple[bool, int]  # training, number of arguments


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


class _Forwards:
    """Hold the forwards of a block, by mode and number of arguments."""

    def __init__(self) -> None:
        self.of_mode: dict[Mode, tuple[Callable[..., Any], Attributes]] = {}
        self.patterns: dict[str, str] = {}  # by the path of the norm from the block
        self.why: dict[str, str] = {}  # of the norms that are not fused in all of them

    def add(self, mode: Mode, graph: Graph, block: nn.Module, attributes: Attributes) -> None:
        """Fuse what can be in a graph of `block`, and keep its forward."""
        sites, why = find_sites(graph, block)
        for site in sites:
            rewrite(site, block)
        found = {str(s.norm.target): "add+relu" if s.add else "relu" for s in sites}
        for path in why:
            self.patterns.pop(path, None)
        self.patterns.update({k: v for k, v in found.items() if k not in self.why})
        self.why.update(why)
        self.of_mode[mode] = (_compile(graph), attributes)

    def find(self, block: nn.Module, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """Return the forward for such a call; None where a graph would not be exact."""
        known = self.of_mode.get((block.training, len(args)))
        if known is None or not all(isinstance(x, Tensor) for x in args):
            return None
        forward, attributes = known
        return forward if attributes.hold() else None


def _compile(graph: Graph) -> Callable[..., Any]:
    """Make a function of the block and its arguments: it finds modules where the block has them."""
    code = graph.python_code("self")
    names = dict(code.globals)
    exec(compile(code.src, "<fused by entprop_fast>", "exec"), names)
    forward: Callable[..., Any] = names["forward"]
    return forward


class _Fused(nn.Module):
    """Go in front of the class of a block."""

    plain: ClassVar[type[nn.Module]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not (kwargs or torch.compiler.is_compiling() or exporting()):
            forwards: _Forwards = self.__dict__[_KEY]
            if (forward := forwards.find(self, args)) is not None:
                return forward(self, *args)
        return self.plain.forward(self, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        with _as_plain(self) as cls:
            twin = copy.deepcopy(self, memo)
        twin.__class__ = cls
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave out the graphs, which no pickle holds: what is loaded is not fused."""
        with _as_plain(self):
            make, arguments, *rest = self.__reduce_ex__(protocol)
        if rest and isinstance(rest[0], dict):
            rest[0] = {name: value for name, value in rest[0].items() if name != _KEY}
        # The only callable of which pickle demands that the class still be the block's own.
        return (_new if make is copyreg.__newobj__ else make, arguments, *rest)  # type: ignore[attr-defined]


@contextlib.contextmanager
def _as_plain(block: _Fused) -> Iterator[type[Any]]:
    cls = type(block)
    block.__class__ = cls.plain  # type: ignore[assignment]
    try:
        yield cls
    finally:
        block.__class__ = cls


def _new(cls: type[nn.Module]) -> nn.Module:
    return cls.__new__(cls)


@functools.cache
def _class(cls: Any) -> Any:
    """Return a subclass of `cls` that looks like it and whose forward is the fused one."""

    def body(namespace: dict[str, Any]) -> None:
        @functools.wraps(cls.forward)
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _Fused.forward(self, *args, **kwargs)

        namespace.update(plain=cls, forward=forward)
        namespace.update({name: getattr(cls, name) for name in ("__module__", "__qualname__")})
        namespace["__doc__"] = cls.__doc__

    return types.new_class(cls.__name__, (_Fused, cls), exec_body=body)


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
        if isinstance(module, _Fused):
            del module.__dict__[_KEY]
            module.__class__ = module.plain  # type: ignore[assignment]


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
            forwards = block.__dict__[_KEY] if isinstance(block, _Fused) else _forwards(block)
        except NotTraceable as error:
            why.update(dict.fromkeys(_norms_below(block), str(error)))
            continue
        if fuse and forwards.patterns:
            block.__dict__[_KEY] = forwards
            cls: Any = type(block)
            block.__class__ = _class(cls)
        if isinstance(block, _Fused):
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
        if isinstance(child, DualNorm | _Fused) or _refusal(child):
            continue
        if any(_norms(child)) and not any(map(_has_layers, child.children())):
            found.append(child)
        elif _ends_in_norm(child):
            found += [child, *_inlined(child)]
    return found


def _has_layers(module: nn.Module) -> bool:
    return not isinstance(module, DualNorm) and any(module.children())


def _ends_in_norm(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential) or isinstance(module, _Fused) or not len(module):
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


def _forwards(block: nn.Module) -> _Forwards:
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


def _traced(block: nn.Module, inlined: list[nn.Module]) -> _Forwards:
    forwards = _Forwards()
    traced = [block, *inlined]
    others = [child for module in traced for child in module.children() if _has_own_code(child)]
    for training in (True, False):
        with _mode(traced, training):
            for given in signatures(block):
                graph = trace(block, inlined, given)
                attributes = Attributes(block, inlined, others, ignored=_KEY)
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
