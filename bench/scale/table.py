"""Write the tables of docs/scale.md, and what breaks first."""

from __future__ import annotations

import math
from pathlib import Path

from bench.scale.costs import ETHERNET, INFINIBAND, NODE, Jitter, slowest
from bench.scale.counts import Counts, backward_bytes, counted, forward_bytes
from bench.scale.steps import (
    BACKWARD,
    CHOSEN,
    PASSES,
    ROWS,
    TFLOPS,
    TRAFFIC,
    bound,
    efficiency,
    exchange,
    gathered_bytes,
    measured,
    step_row,
    summed_bytes,
    work,
)
from bench.step.targets import card_of
from entprop_fast.lab.report.text import markdown_records

NAME = "scale"
SIZES = (8, 64, 512)
KNOWN, UNKNOWN = "wrn28_10", "resnet50"  # whose step was measured, and was not
MB, MS = 1e6, 1e3


def section(page: Path = Path()) -> str:
    """Write both tables and what follows from them."""
    imagenet, cifar = counted(UNKNOWN, classes=1000), counted(KNOWN, classes=100)
    step = bound(UNKNOWN) * measured(KNOWN) / bound(KNOWN)
    parts = (
        "### Bytes a step",
        _bytes({"ResNet-50, 224 pixels": (imagenet, 224), "WRN-28-10, 32 pixels": (cifar, 32)}),
        f"EntProp(k = 0.2, n = 1), {ROWS} + {CHOSEN} rows a rank, float32 but for the activations. "
        "What a rank gives; a ring all-reduce sends twice that.",
        "### The step of one GPU",
        _step(step),
        "### Milliseconds a step, and efficiency",
        _times(imagenet, step),
        _assumptions(),
        "### What breaks first",
        _breaks(imagenet, step),
    )
    return "\n\n".join(parts)


def _bytes(networks: dict[str, tuple[Counts, int]]) -> str:
    records = []
    for name, (counts, pixels) in networks.items():
        widest, most = max(counts.channels), len(counts.channels)
        forward = sum(map(forward_bytes, counts.channels)) * PASSES
        backward = sum(map(backward_bytes, counts.channels)) * PASSES
        records.append(
            {
                "network": name,
                "gradients": f"{counts.gradients / MB:.1f} MB",
                "buffers": f"{counts.buffers / MB:.2f} MB",
                "norms": f"{most}",
                "gathers of moments": f"{PASSES * most}, {forward / MB:.2f} MB in all, "
                f"the largest {forward_bytes(widest) / 1e3:.1f} kB",
                "sums backward": f"{PASSES * most}, {backward / MB:.2f} MB in all",
                "rows of exact ranks": f"{gathered_bytes(pixels) / MB:.0f} MB, and a sum of "
                f"{summed_bytes(pixels, 1) / MB:.1f} MB x GPUs",
            }
        )
    return markdown_records(records)


def _step(step: float) -> str:
    ratio = measured(KNOWN) / bound(KNOWN)
    card, (flop, norm_bytes) = card_of(step_row(KNOWN)), work(UNKNOWN)
    return (
        f"WRN-28-10 was measured: {MS * measured(KNOWN):.1f} ms (captured, bfloat16, one {card}; "
        f"`bench/rows/step_cuda.jsonl`). Its convolutions at {TFLOPS / 1e12:.0f} TFLOP/s and "
        f"its norms at {TRAFFIC / 1e12:.1f} TB/s would take {MS * bound(KNOWN):.1f} ms "
        f"([counted](gpu_time.md)): the step is {ratio:.2f} times that. **ResNet-50's step was "
        f"never measured.** The same sum is {MS * bound(UNKNOWN):.1f} ms for it "
        f"({flop / 1e12:.2f} TFLOP, {norm_bytes / 1e9:.1f} GB of norms), and {ratio:.2f} times "
        f"that is **{MS * step:.1f} ms**, the estimate used below. A faster step has a lower "
        "efficiency: the exchanges stay what they are."
    )


def _times(counts: Counts, step: float) -> str:
    records = []
    for ranks in SIZES:
        for network in (INFINIBAND, ETHERNET) if ranks > NODE else (INFINIBAND,):
            found = exchange(counts, step, network, ranks, 224)
            shares = efficiency(found, step, ranks, Jitter())
            records.append(
                {
                    "GPUs": f"{ranks}",
                    "between nodes": network.name if ranks > NODE else "one node",
                    "gradients": f"{MS * found.gradients:.1f}",
                    "not hidden": f"{MS * (found.gradients - found.hidden):.1f}",
                    "norms, ring": f"{MS * found.ring:.0f}",
                    "norms, doubling": f"{MS * found.tree:.0f}",
                    "rows": f"{MS * found.images:.1f}",
                    "plain": f"{shares.plain:.0f} %",
                    "overlapped": f"{shares.overlap:.0f} %",
                    "synchronised, ring": f"{shares.ring:.0f} %",
                    "synchronised, doubling": f"{shares.tree:.0f} %",
                    "exact": f"{shares.exact:.0f} %",
                }
            )
    return markdown_records(records)


def _assumptions() -> str:
    jitter = Jitter()
    return (
        f"Stated, not measured: nodes of {NODE} GPUs; NVLink {INFINIBAND.within / 1e9:.0f} GB/s a "
        f"GPU and direction (450 by its data sheet, 80 % of it), "
        f"{1e6 * INFINIBAND.latency_within:.1f} µs a message; InfiniBand "
        f"{INFINIBAND.between / NODE / 1e9:.0f} GB/s a GPU, {1e6 * INFINIBAND.latency:.0f} µs; "
        f"Ethernet {ETHERNET.between / 1e9:.0f} GB/s a node, {1e6 * ETHERNET.latency:.0f} µs. "
        f"Stragglers, simulated with a fixed seed: a rank's step varies by "
        f"{100 * jitter.spread:.1f} % (standard deviation), and it stands still for "
        f"{MS * jitter.pause:.0f} ms once in {jitter.every:.0f} steps. *Plain* exchanges all "
        "gradients after the last backward pass, *overlapped* during it; *exact* adds exact "
        "ranks' rows to synchronised norms by doubling. All include rank 0's buffers and the wait "
        "for the slowest."
    )


def _breaks(counts: Counts, step: float) -> str:
    largest = SIZES[-1]
    far, slow = (exchange(counts, step, net, largest, 224) for net in (INFINIBAND, ETHERNET))
    norms = PASSES * len(counts.channels)
    hops = (largest - 1) * INFINIBAND.latency
    held, dealt = largest * gathered_bytes(224), summed_bytes(224, largest)
    nodes = math.ceil(math.log2(largest // NODE))
    waits = slowest(step, largest, Jitter(), inside=False) - step
    window = MS * step * CHOSEN / (ROWS + CHOSEN) * BACKWARD
    lines = {
        MS * far.ring: f"**Gathers of moments by a ring.** {norms} gathers a step, each of "
        f"{largest - 1} messages one after the other: {MS * hops:.1f} ms of latency apiece over "
        f"InfiniBand, {MS * norms * hops:.0f} ms a step, {norms * hops / step:.0f} times the step "
        f"itself. The bytes do not matter. By doubling ({nodes} messages between nodes) all "
        f"exchanges of norms take {MS * far.tree:.0f} ms in place of {MS * far.ring:.0f}. Beyond a "
        "few nodes synchronise within a node (`process_group`), or leave each rank the statistics "
        f"of its {ROWS} rows.",
        MS * far.images: "**Rows of exact ranks.** For MixUp every rank holds the images of all: "
        f"{held / 1e9:.0f} GB at {largest} GPUs, and {dealt / 1e9:.0f} GB more to deal out the "
        f"chosen ones; {MS * far.images:.0f} ms a step over InfiniBand. Exact ranks are for proofs "
        "and for a few GPUs.",
        MS * slow.gradients: f"**Gradients over Ethernet.** {counts.gradients / MB:.0f} MB take "
        f"{MS * slow.gradients:.0f} ms, as long as {slow.gradients / step:.1f} steps. The last "
        f"backward pass, of {CHOSEN} rows, lasts {window:.1f} ms and hides at most that: EntProp "
        "has less to hide behind than plain training, whose only backward pass is "
        f"{ROWS / CHOSEN:.0f} times as long.",
        MS * waits: f"**Stragglers.** {MS * waits:.1f} ms a step at {largest} GPUs, "
        f"{100 * waits / step:.0f} % of it, whatever the network.",
        MS * far.gradients: f"**Gradients over InfiniBand.** {MS * far.gradients:.1f} ms, hidden "
        "where they overlap, but for the last bucket.",
    }
    ordered = [lines[time] for time in sorted(lines, reverse=True)]
    listed = "\n".join(f"{number}. {line}" for number, line in enumerate(ordered, 1))
    return f"At {largest} GPUs, the longest first:\n\n{listed}"
