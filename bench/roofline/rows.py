"""Keep counts as rows, and have them counted by a process that has a fake device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, astuple

from bench.pages import ROOT
from bench.roofline.counting import Counts
from bench.roofline.op import Op
from bench.roofline.steps import STEPS, Size, Step
from bench.rows import Row
from bench.step.cases import ON_CUDA

NAME = "roofline"  # of rows, and of the part of the page
ARCHS = ("wrn28_10", "resnet18", "wrn16_4", "resnet50")
SIZES = tuple(Size(arch, *ON_CUDA[arch]) for arch in ARCHS)


def row_of(size: Size, step: Step, counts: Counts) -> Row:
    """Return what is kept of a step's counts: every op and how often it came."""
    ops: dict[str, dict[str, list[list[int]]]] = {}
    for op, number in counts.ops.items():
        called = ops.setdefault(op.kind, {}).setdefault(f"{op.name} {op.dtype}", [])
        called.append([number, op.flop, op.bytes, op.launches])
    return asdict(size) | {"step": step.name, "ops": ops}


def counts_of(row: Row) -> Counts:
    """Return the counts of a row."""
    ops: Counter[Op] = Counter()
    for kind, names in row["ops"].items():
        for name, calls in names.items():
            for number, *cost in calls:
                ops[Op(kind, *name.split(" "), *cost)] += number
    return Counts(ops)


def counted_rows(sizes: Sequence[Size], library: str, steps: Sequence[Step] = STEPS) -> list[Row]:
    """Count steps in a process of their own.

    Args:
        sizes: networks and batches.
        library: see `bench.roofline.child`.
        steps: which.

    Raises:
        subprocess.CalledProcessError: it failed, and said why on stderr.
    """
    given = json.dumps([astuple(size) for size in sizes])
    command = [sys.executable, "-m", "bench.roofline.child", library, given]
    names = [step.name for step in steps]
    ran = subprocess.run(
        [*command, *names], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    rows: list[Row] = json.loads(ran.stdout.splitlines()[-1])
    return rows
