"""Trace one block with torch.fx, and refuse whatever a graph of it would freeze or get wrong."""

from __future__ import annotations

import contextlib
import inspect
import operator
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy, Tracer
from torch.fx.proxy import TraceError

from entprop_fast.layers.fusion_code import CodeRun

# These ask a proxy for its class to record it, not to choose a branch.
_RECORDERS = ("torch.fx", "torch.utils._pytree", "torch.nn.parameter")


class NotTraceable(Exception):
    """Say why a graph could not stand for the forward of a block."""


class _Unknown(Proxy):
    """Stand for a tensor; a branch that asks for its class would be taken wrongly."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # `isinstance` looks here only where the answer by `type` was no.
        frame = inspect.currentframe()
        assert frame is not None and frame.f_back is not None  # as in CPython
        asking = frame.f_back.f_globals.get("__name__", "")
        if not str(asking).startswith(_RECORDERS):
            raise TraceError("it asks for the class of a tensor")
        return type(self)


def _inplace(operation: Callable[..., Any]) -> Callable[[_Unknown, Any], Proxy]:
    """Record ``x += y`` as what it is; torch.fx would make ``x = x + y`` of it."""

    def record(self: _Unknown, other: Any) -> Proxy:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    return record


for _name in "iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor".split():
    setattr(_Unknown, f"__{_name}__", _inplace(getattr(operator, _name)))


class _BlockTracer(Tracer):
    """Record the forward of one block and of `inlined`; every other module is a single node."""

    proxy_buffer_attributes = True  # or what writes into a buffer would do so now, and never again

    def __init__(self, inlined: Sequence[nn.Module], given: Sequence[str]) -> None:
        super().__init__()
        self.inlined = inlined
        self.given = given
        self.modes = _modes()

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        """Refuse what stands under ``torch.no_grad()`` and the like: no graph holds that."""
        if _modes() != self.modes:
            raise TraceError("it switches gradients or autocast")
        return super().create_node(*args, **kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m is one for one in self.inlined)

    def proxy(self, node: Node) -> Proxy:
        return _Unknown(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Hand over the given arguments alone: the others have their defaults."""
        proxies = [self.create_proxy("placeholder", name, (), {}) for name in self.given]
        return root_fn, [self.root, *proxies]


def _modes() -> tuple[bool, ...]:
    autocasts = (torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocasts


def signatures(block: nn.Module) -> list[list[str]]:
    """Return the names of the arguments of every way to call `block` by position.

    Raises:
        NotTraceable: it takes any number of them, some by name alone, or too many.
    """
    given = list(inspect.signature(type(block).forward).parameters.values())[1:]
    kinds = {parameter.kind for parameter in given}
    if not kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}:
        raise NotTraceable("its block takes other arguments than by position")
    names = [parameter.name for parameter in given]
    needed = sum(parameter.default is inspect.Parameter.empty for parameter in given)
    if not names or len(names) - needed > 3:
        raise NotTraceable(f"its block takes {needed} to {len(names)} arguments")
    return [names[:count] for count in range(max(needed, 1), len(names) + 1)]


def trace(
    block: nn.Module, inlined: Sequence[nn.Module], given: Sequence[str]
) -> tuple[Graph, CodeRun]:
    """Record what ``block(*given)`` does in its present mode, for tensors as arguments.

    Returns the graph, and the code that was run for it.

    Args:
        block: of whose class's forward the graph is made.
        inlined: modules below it whose forwards become a part of the graph.
        given: names of the arguments that are tensors; the others have their defaults.

    Raises:
        NotTraceable: torch.fx cannot follow it; or what it does depends on more than its tensors,
            its attributes and its mode: on random numbers, on autocast or on gradients being on;
            or it does more than its graph tells.
    """
    graph, run = _record(block, inlined, given)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        other, _ = _record(block, inlined, given)
    if _source(graph) != _source(other):
        raise NotTraceable("its block depends on autocast or on whether gradients are on")
    return graph, run


def _record(
    block: nn.Module, inlined: Sequence[nn.Module], given: Sequence[str]
) -> tuple[Graph, CodeRun]:
    before = [dict(vars(module)) for module in (block, *inlined)]
    tracer = _BlockTracer(inlined, given)
    run = CodeRun([block, *inlined])
    with _unchanged_random_state():
        try:
            with run:
                graph = tracer.trace(block)
        except Exception as error:  # whatever a forward makes of a proxy
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise NotTraceable(f"torch.fx cannot follow its block: {text[0]}") from error
        finally:
            changed = [
                _restore(module, was) for module, was in zip((block, *inlined), before, strict=True)
            ]
    if any(changed):
        raise NotTraceable("its block sets attributes")
    if why := run.why_not():
        raise NotTraceable(f"its block {why}")
    for node in graph.nodes:
        if node.op == "get_attr" and not _reaches_tensor(block, str(node.target)):
            raise NotTraceable("its block makes a constant")
    return graph, run


def _source(graph: Graph) -> str:
    return graph.python_code("self").src


def _restore(module: nn.Module, was: dict[str, Any]) -> bool:
    """Undo what a trace set; return whether it did."""
    now = vars(module)
    same = now.keys() == was.keys() and all(now[name] is was[name] for name in was)
    if not same:
        now.clear()
        now.update(was)
    return not same


def _reaches_tensor(block: nn.Module, path: str) -> bool:
    owner, _, name = path.rpartition(".")
    try:
        tensor = getattr(block.get_submodule(owner), name)
    except AttributeError:
        return False
    return isinstance(tensor, Tensor)


@contextlib.contextmanager
def _unchanged_random_state() -> Iterator[None]:
    """Refuse a trace that drew numbers, which its graph would repeat for ever."""
    numpy: Any = sys.modules.get("numpy")
    states = random.getstate(), torch.get_rng_state()
    numpys = numpy.random.get_state() if numpy else None
    try:
        yield
        drew = (
            random.getstate() != states[0]
            or not torch.equal(torch.get_rng_state(), states[1])
            or (numpy and _written(numpy.random.get_state()) != _written(numpys))
        )
        if drew:
            raise NotTraceable("its block draws random numbers")
    finally:
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        if numpy:
            numpy.random.set_state(numpys)


def _written(state: Any) -> list[Any]:
    """Make a state of numpy's comparable: it holds an array."""
    return [part.tobytes() if hasattr(part, "tobytes") else part for part in state]
