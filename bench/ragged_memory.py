"""Measure peak memory of captured and eager runs: `python -m bench.ragged_memory [ARCH ...]`.

An epoch's last, smaller batch decides: what a graph's pool keeps is of no use to a step that stays
eager, so the activations of that batch come on top of it. Docs: docs/capture.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from bench import rows
from bench.command import keep_as_measured, parser_of
from bench.memory import Peak
from bench.step.cases import ON_CUDA
from bench.timing import require_cuda
from entprop_fast import convert_dual_norm, create_method, models
from entprop_fast.lab.report.text import markdown_table
from entprop_fast.lab.training.deploy import stem_for

NAME = "memory_cuda"
# arch -> images a step, pixels, classes
NETWORKS = {arch: ON_CUDA[arch] for arch in ("wrn28_10", "resnet18", "resnet50")}
SMALLER = 0.625  # the last batch, as a share of the others
CAPTURES = ("off", "auto")


class Epochs(NamedTuple):
    """Say how often a smaller batch comes.

    Attributes:
        name: in the table.
        every: steps of an epoch, the smaller one among them; None: it has none.
        epochs: so many are run.
    """

    name: str
    every: int | None
    epochs: int


# A shape is captured the fourth time it comes.
KINDS = (
    Epochs("none", None, 1),
    Epochs("in two epochs: eager", 6, 2),
    Epochs("in six epochs: captured in the fourth", 6, 6),
)
STEPS = 8  # where no batch is smaller


def batches(kind: Epochs, batch: int) -> Iterator[int]:
    """Yield the size of each step's batch."""
    for _ in range(kind.epochs):
        if kind.every is None:
            yield from [batch] * STEPS
        else:
            yield from [batch] * (kind.every - 1)
            yield round(SMALLER * batch)


def measure(arch: str, kind: Epochs, capture: str, device: str = "cuda") -> rows.Row:
    """Train so; return a row with what it added to the device's memory at most, in bytes."""
    batch, pixels, classes = NETWORKS[arch]
    torch.manual_seed(0)
    network = models.create(arch, num_classes=classes, stem=stem_for(arch, pixels))
    model = convert_dual_norm(network)
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    method = create_method("entprop", model, optimizer, k=0.2, n=1, amp="bf16", capture=capture)
    images = torch.rand(batch, 3, pixels, pixels, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch,), device=device)
    peak = Peak(device)
    for size in batches(kind, batch):
        method(images[:size], labels[:size])
    allocated, reserved = peak.added()
    return {
        "arch": arch,
        "batch": batch,
        "pixels": pixels,
        "smaller_batch": kind.name,
        "smaller_rows": None if kind.every is None else round(SMALLER * batch),
        "capture": capture,
        "replays": method.captures.replays,
        "why_eager": method.captures.why_eager,
        "peak_allocated": allocated,
        "peak_reserved": reserved,
    }


def section(page: Path) -> str:
    """Write a line for each network and kind of epoch, eager beside captured."""
    found = rows.comparable(rows.read(NAME))
    lines = [["network", "smaller batch", "eager, MiB", "captured, MiB", "captured / eager"]]
    by_case: dict[tuple[str, str], dict[str, rows.Row]] = {}
    for row in found:
        by_case.setdefault((row["arch"], row["smaller_batch"]), {})[row["capture"]] = row
    for (arch, smaller), here in by_case.items():
        eager, captured = (here[capture]["peak_reserved"] for capture in CAPTURES)
        sizes = [f"{size / 2**20:.0f}" for size in (eager, captured)]
        ratio = f"{captured / eager:.2f}"
        if not here["auto"]["replays"]:
            sizes[1], ratio = "not captured", ""
        lines.append([arch, smaller, *sizes, ratio])
    return markdown_table(lines) + (
        "\n\nWhat steps take from the device at most beside network and batch: activations, "
        "gradients, velocities, graphs, and what the allocator holds back. EntProp(0.2, 1), "
        "bfloat16, channels_last. Made by `python -m bench.ragged_memory` "
        f"({rows.origin(found[0])})."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks named, all by default; rows are written as they come."""
    parser = parser_of("bench.ragged_memory", __doc__, "ARCH", NETWORKS)
    architectures = parser.parse_args(arguments).names
    require_cuda()
    keep_as_measured(NAME, _measured(architectures))


def _measured(architectures: Sequence[str]) -> Iterator[tuple[list[rows.Row], str]]:
    for arch in architectures:
        for kind in KINDS:
            for capture in CAPTURES:
                row = measure(arch, kind, capture)
                what = f"{arch}, smaller batch: {kind.name}, capture {capture}"
                yield [row], f"{what}: {row['peak_reserved'] / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
