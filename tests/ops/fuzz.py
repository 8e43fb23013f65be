"""Run raw ops with random and spoiled arguments: ``python -m tests.ops.fuzz --cases 20000``.

Whatever implements an op has to agree with the reference: the same refusal (type, and the argument
it names), or the same results; and nothing but what an op writes may change. Reading or writing
beyond a tensor shows where tests/memory_guard runs this.
"""

import argparse
import collections
import random
import sys
from typing import Any

import torch
from torch import Tensor

import entprop_fast.ops  # noqa: F401 - defines the ops
from tests.ops.arguments import MAKE, WRITTEN
from tests.ops.random_tensors import Arguments
from tests.ops.spoiling import spoiled

REFUSALS = (ValueError, IndexError)
TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.bfloat16: 0.1,
    torch.float16: 0.02,
}


def arguments_of(name: str, seed: str) -> Arguments:
    """Return the arguments of one case, made anew at each call."""
    draw = random.Random(seed)
    return spoiled(draw, name, MAKE[name](draw))


def overload(name: str, suffix: str = "") -> Any:
    """Return the raw op, or with `_reference` its reference."""
    packet, _, kind = name.partition(".")
    return getattr(getattr(torch.ops.entprop_fast, packet + suffix), kind or "default")


def outcome(op: Any, arguments: Arguments) -> list[Tensor] | Exception:
    """Return the op's results and what it wrote, or the error it raised."""
    keywords = {name: value for name, value in arguments.items() if name == "out"}
    positional = [value for name, value in arguments.items() if name != "out"]
    try:
        found = op(*positional, **keywords)
    except Exception as error:
        return error
    results = [found] if isinstance(found, Tensor) else list(found or ())
    return [*results, *(v for v in arguments.values() if isinstance(v, Tensor))]


def named(error: Exception) -> str:
    """Return the argument that a refusal names: its first word."""
    return str(error).split(":")[0].split("=")[0].split(" ")[0]


def differ(name: str, seed: str, op: Any = None) -> str | None:
    """Return what is wrong with the op (None: the raw one) in this case, None if nothing is."""
    given, again, before = (arguments_of(name, seed) for _ in range(3))
    ours, expected = (
        outcome(op or overload(name), given),
        outcome(overload(name, "_reference"), again),
    )
    if isinstance(ours, Exception) or isinstance(expected, Exception):
        if not (isinstance(ours, Exception) and isinstance(expected, Exception)):
            return f"{ours!r} against {expected!r}"
        if not isinstance(ours, REFUSALS) or type(ours) is not type(expected):
            return f"{ours!r} against {expected!r}"
        if named(ours) != named(expected):
            return f"{ours!r} names another argument than {expected!r}"
        written = []  # a refused call changes nothing
    else:
        if len(ours) != len(expected):
            return f"{len(ours)} results against {len(expected)}"
        for place, (a, b) in enumerate(zip(ours, expected, strict=True)):
            told = unlike(a, b)
            if told:
                return f"result {place}: {told}"
        written = list(WRITTEN.get(name, ()))
    for argument, value in given.items():
        if isinstance(value, Tensor) and argument not in written and not value.is_meta:
            if not torch.equal(value.nan_to_num(), before[argument].nan_to_num()):
                return f"{argument} was changed"
    return None


def unlike(a: Tensor, b: Tensor) -> str | None:
    """How two results differ."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return f"{a.dtype} {list(a.shape)} against {b.dtype} {list(b.shape)}"
    if a.is_meta or torch.equal(a, b):
        return None
    if (
        a.dtype == torch.uint8 and a.dim() == 2
    ):  # a mask: of an output that rounds to 0 the bit may be either
        bits = sum(
            bin(one ^ other).count("1")
            for one, other in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
        )
        return None if bits <= 1 + a.numel() // 10 else f"{bits} bits of the mask"
    if not a.is_floating_point():
        return "other values"
    scale = b[b.isfinite()].abs().max().item() if b.isfinite().any() else 1.0
    tolerance = TOLERANCES[a.dtype]
    close = torch.isclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if close.all():
        return None
    return f"{int((~close).sum())} of {a.numel()} values, {a[~close][:3]} against {b[~close][:3]}"


def main(arguments: list[str]) -> int:
    """Run the cases; 1 if any failed, each told with the seed that makes it again."""
    parser = argparse.ArgumentParser(description="raw ops with random and spoiled arguments")
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--op", choices=list(MAKE), action="append")
    parser.add_argument("--last", action="store_true", help="tell each case before it runs")
    parser.add_argument("--case", help="this one alone: OP/SEED as told")
    options = parser.parse_args(arguments)
    names = options.op or list(MAKE)
    cases = [f"{names[n % len(names)]}/{options.seed}.{n}" for n in range(options.cases)]
    failures: collections.Counter[str] = collections.Counter()
    for case in [options.case] if options.case else cases:
        if options.last:
            print(case, flush=True)
        name = case.partition("/")[0]
        told = differ(name, case)
        if told:
            failures[name] += 1
            print(f"FAILED {case}: {told}", flush=True)
    print(f"{len(cases)} cases, {sum(failures.values())} failed {dict(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
