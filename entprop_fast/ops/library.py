"""Define ops: one schema in Python, the reference behind it, kernels on top."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from entprop_fast.torch_internals import OpOverload, dispatch_modes_active, transforms_active

NAMESPACE = "entprop_fast"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")
# From the arguments of a schema, which knows no structs, to those of what implements the op.
Unpack: TypeAlias = Callable[..., tuple[Any, ...]]
# What each op requires of its arguments, and how they are unpacked, by name.
CHECKS: dict[str, tuple[Callable[..., None], Unpack | None]] = {}
# Kernels that are launched from Python, by op and device type; whoever registers one adds it here.
LAUNCHERS: dict[tuple[OpOverload, str], Callable[..., Any]] = {}


def checked(
    check: Callable[..., None], function: Callable[..., Any], unpack: Unpack | None = None
) -> Callable[..., Any]:
    """Return `function` with its arguments checked first, and before that unpacked."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        if unpack is not None:
            arguments, keywords = unpack(*arguments, **keywords), {}
        check(*arguments, **keywords)
        return function(*arguments, **keywords)

    return call


def define(
    schema: str,
    check: Callable[..., None],
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    unpack: Unpack | None = None,
) -> tuple[OpOverload, OpOverload]:
    """Define an op twice: under its own name, and as `NAME_reference`.

    A backend registers its kernel for its device under the first name. The second never has a
    kernel: a C++ kernel handed an input it does not cover calls it through the dispatcher.

    Whatever implements the op checks its arguments, so that anyone may call it: here the reference
    and the fake, by `check`; a kernel does so itself.

    Args:
        schema: `name(arguments) -> results`, or `name.overload(...)`.
        check: raises ValueError for arguments that do not fit; takes the op's.
        reference: the op in plain PyTorch, for every device, dtype and layout.
        fake: the same shapes, dtypes and strides without values.
        unpack: makes of the schema's arguments those of the three; None where they are the same.

    Returns:
        The two overloads, `(op, reference op)`.
    """
    qualified, arguments = schema.split("(", 1)
    name, _, overload = qualified.partition(".")
    suffix = f".{overload}" if overload else ""
    overloads: list[OpOverload] = []
    CHECKS[qualified] = check, unpack
    reference, fake = (checked(check, function, unpack) for function in (reference, fake))
    for base in (name, f"{name}_reference"):
        LIBRARY.define(f"{base}{suffix}({arguments}")
        LIBRARY.impl(f"{base}{suffix}", reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{base}{suffix}", fake, lib=LIBRARY)
        packet = getattr(getattr(torch.ops, NAMESPACE), base)
        overloads.append(getattr(packet, overload or "default"))
    return overloads[0], overloads[1]


def call(op: OpOverload, x: Tensor, *arguments: Any) -> Any:
    """Call `op`, by its launcher where nobody would see the op on the way there.

    From Python to Python the dispatcher converts every argument twice: more time than the launches
    that follow take.

    Args:
        op: as `define` returned it.
        x: the argument that decides: a plain tensor on a device that has a launcher.
        *arguments: all of the op's, by position.
    """
    launcher = None if torch.compiler.is_compiling() else LAUNCHERS.get((op, x.device.type))
    if launcher is None or type(x) is not Tensor or dispatch_modes_active() or transforms_active():
        return op(*arguments)
    return launcher(*arguments)
