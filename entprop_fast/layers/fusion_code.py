"""Look into the code that a trace runs: whether it does nothing but what its graph records."""

from __future__ import annotations

import builtins
import dis
import functools
import itertools
import math
import operator
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional as F
from torch.overrides import get_overridable_functions

# By value; nothing can change inside of them.
SIMPLE = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
# Opcodes of every Python from 3.11 on: contexts and handlers, which no graph holds, writes to what
# outlives the call, and what is read of somebody else's variables.
_OPCODES = {
    **dict.fromkeys(("BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL"), "has a with statement"),
    **dict.fromkeys(("PUSH_EXC_INFO", "SETUP_FINALLY"), "handles exceptions"),
    **dict.fromkeys(("STORE_ATTR", "DELETE_ATTR"), "sets attributes"),
    **dict.fromkeys(("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"), "writes into something"),
    **dict.fromkeys(("STORE_GLOBAL", "DELETE_GLOBAL"), "sets other variables"),
    **dict.fromkeys(("IMPORT_NAME", "LOAD_NAME", "LOAD_CLASSDEREF"), "reads other variables"),
    "LOAD_FROM_DICT_OR_GLOBALS": "reads other variables",
}
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
# What tells about a module, or changes it, and stands in no graph. Tensors have some of it, too.
_OF_MODULES = (set(dir(nn.Module)) | set(vars(nn.Module()))) - set(dir(Tensor)) | {"requires_grad_"}
_OF_MODULES -= {"training", "forward"}
_BUILTINS: set[object] = {
    *(bool, int, float, complex, str, tuple, list, dict, range, enumerate, zip, map, reversed),
    *(len, min, max, sum, abs, round, isinstance, sorted, super, slice),
}
_OF_TORCH: set[object] = {torch.relu_, torch.jit.is_scripting}  # type: ignore[attr-defined]


class CodeRun:
    """Note which Python functions of others a trace runs, as a context around it.

    Attributes:
        names: every name that their code reads, as of an attribute.
        asked: names that it asks for with `getattr` or `hasattr`: they may not be there.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        forwards = [type(module).forward for module in modules]
        self._code: dict[CodeType, dict[str, Any]] = {}
        self._begin = {getattr(forward, "__code__", None) for forward in forwards}
        decorated = None in self._begin or any(hasattr(one, "__wrapped__") for one in forwards)
        self._given = "has a decorated forward" if decorated else None

    def __enter__(self) -> Self:
        self._before = sys.getprofile()
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        caller = frame.f_back.f_code if frame.f_back else None
        if event != "call" or not (frame.f_code in self._begin or caller in self._code):
            return
        if _is_torchs(str(frame.f_globals.get("__name__"))):
            return
        for code in _with_inner(frame.f_code):
            self._code[code] = frame.f_globals
        if not all(map(_is_known, frame.f_locals.values())):
            self._given = f"hands objects to {frame.f_code.co_name}"

    @property
    def names(self) -> set[str]:
        """Return the names that the code reads, sets or calls."""
        return {name for code in self._code for name in code.co_names}

    @property
    def asked(self) -> set[str]:
        """Return the names that `getattr` and `hasattr` ask for."""
        return {
            str(_asked_name(instructions[at + 1 :]))
            for instructions in map(list, map(dis.get_instructions, self._code))
            for at, instruction in enumerate(instructions)
            if _asks(instruction)
        }

    def why_not(self) -> str | None:
        """Tell what the code may do beside its graph, or depend on; None where it is nothing."""
        for code, variables in self._code.items():
            if why := _reason(code, variables):
                return why
        return self._given


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """Yield `code` and that of the functions and comprehensions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _is_torchs(name: str) -> bool:
    return name == "torch" or name.startswith(("torch.", "entprop_fast.layers."))


def _is_known(value: object) -> bool:
    """Return whether an argument is a tensor of the trace, a module, or cannot change."""
    if type(value) in (list, tuple):
        return all(map(_is_known, value))  # type: ignore[call-overload]
    kinds = (Proxy, nn.Module, Tensor, FunctionType, *SIMPLE)
    return issubclass(type(value), kinds) or type(value).__name__.endswith("_iterator")


def _reason(code: CodeType, variables: dict[str, Any]) -> str | None:
    instructions = list(dis.get_instructions(code))
    for at, instruction in enumerate(instructions):
        operation, name = instruction.opname, instruction.argval
        if why := _OPCODES.get(operation):
            return why
        if operation.endswith("_DEREF") and name in set(code.co_freevars) - {"__class__"}:
            return f"depends on {name} of another function"
        if _asks(instruction):
            name = _asked_name(instructions[at + 1 :])
        elif operation == "LOAD_GLOBAL":
            path = _path(instructions[at:])
            if not _is_fixed(path, variables):
                return f"depends on {'.'.join(path)}"
            continue
        elif not operation.startswith((*_ATTRIBUTES, "LOAD_SUPER")):
            continue
        if name is None or name in _OF_MODULES or name.startswith("__"):
            return f"asks for {name or 'attributes'}"
    return None


def _asks(instruction: dis.Instruction) -> bool:
    return instruction.opname == "LOAD_GLOBAL" and instruction.argval in ("getattr", "hasattr")


def _asked_name(following: Sequence[dis.Instruction]) -> str | None:
    """Return the name in ``getattr(a.b, "name")``, None where it is not written out."""
    skipped = ("LOAD_FAST", "PUSH_NULL", *_ATTRIBUTES)
    for one in following:
        if not one.opname.startswith(skipped):
            constant = one.opname == "LOAD_CONST" and isinstance(one.argval, str)
            return str(one.argval) if constant else None
    return None


def _path(instructions: Sequence[dis.Instruction]) -> list[str]:
    """Return the names of ``a.b.c``, of which `instructions` begin with the load of ``a``."""
    first, *rest = instructions
    attributes = itertools.takewhile(lambda one: one.opname in _ATTRIBUTES, rest)
    return [first.argval, *(one.argval for one in attributes)]


def _is_fixed(path: Sequence[str], variables: dict[str, Any]) -> bool:
    """Return whether a global name, and what is read of it, is a function that graphs record."""
    first, *rest = path
    found = variables.get(first, getattr(builtins, first, None))
    for name in rest:
        if not isinstance(found, ModuleType):
            return False
        found = getattr(found, name, None)
    return is_recorded(found)


def is_recorded(found: object) -> bool:
    """Return whether a function or class does nothing but what a graph records of its call.

    What a function of others does is looked into where it runs.
    """
    if isinstance(found, FunctionType) and not _is_torchs(found.__module__ or ""):
        return True
    if isinstance(found, type) and issubclass(found, Exception):
        return True  # to be raised
    kinds = (type, types.BuiltinFunctionType, FunctionType)
    return isinstance(found, kinds) and found in _functions()


@functools.cache
def _functions() -> set[object]:
    """Return the functions whose result follows from their arguments, or stands in the graph."""
    plain = {
        one
        for module in (math, operator)
        for one in vars(module).values()
        if isinstance(one, types.BuiltinFunctionType)
    }
    recorded = {one for group in get_overridable_functions().values() for one in group}
    functional = {one for one in vars(F).values() if isinstance(one, FunctionType)}
    return plain | recorded | functional | _BUILTINS | _OF_TORCH | {Tensor}
