"""Put a step on many GPUs together: its own time, what it exchanges, who is waited for."""

from __future__ import annotations

from dataclasses import dataclass

from bench import rows
from bench.roofline.op import NORMS
from bench.roofline.rows import NAME, counts_of
from bench.roofline.steps import ENTPROP
from bench.scale.costs import Jitter, Network, slowest
from bench.scale.counts import FLOAT, Counts, backward_bytes, forward_bytes
from bench.step.contenders import CAPTURED

ROWS, CHOSEN = 128, 26  # of a rank: EntProp(k = .2, n = 1)
PASSES = 2
TFLOPS, TRAFFIC = 600e12, 2.8e12  # of an H100 on such kernels: shared/GPU
BACKWARD = 2 / 3  # of a pass's time


def work(arch: str) -> tuple[float, float]:
    """Return the FLOP and the norms' bytes of so many rows' step, from the rows of bench.roofline.

    These may be of another batch with the same k and n.
    """
    found = (row for row in rows.read(NAME) if row["step"] == ENTPROP.name)
    row = next(row for row in found if row["arch"] == arch)
    more, counts = ROWS / row["batch"], counts_of(row)
    return more * counts.flop, more * counts.of(NORMS).bytes


def bound(arch: str) -> float:
    """Return the time that convolutions and norms take at those rates, and nothing else."""
    flop, norm_bytes = work(arch)
    return flop / TFLOPS + norm_bytes / TRAFFIC


def step_row(arch: str) -> rows.Row:
    """Return the committed row of a captured step of EntProp(k = .2, n = 1)."""
    wanted = (arch, CAPTURED, 0.2, 1)
    return next(
        row
        for row in rows.read("step_cuda")
        if (row["arch"], row["contender"], row["k"], row["n"]) == wanted
    )


def measured(arch: str) -> float:
    """Return the time of that step."""
    return float(step_row(arch)["seconds"])


@dataclass(frozen=True)
class Exchange:
    """Hold seconds of a step's exchanges.

    Attributes:
        buffers: rank 0's go to all.
        gradients: the all-reduce of all of them.
        hidden: what of that the last backward pass can hide.
        ring: all norms, their forward gathers by a ring.
        tree: the same, gathers by doubling between nodes.
        images: of exact ranks: all rows go to all for MixUp, chosen ones are dealt out.
    """

    buffers: float
    gradients: float
    hidden: float
    ring: float
    tree: float
    images: float


def gathered_bytes(pixels: int) -> int:
    """Return what exact ranks gather of each rank: all its images, since partners are anywhere."""
    return ROWS * 3 * pixels * pixels * FLOAT


def summed_bytes(pixels: int, ranks: int) -> int:
    """Return what exact ranks add up to deal out the chosen rows: images and gradients of all."""
    return 2 * CHOSEN * ranks * 3 * pixels * pixels * FLOAT


def exchange(counts: Counts, step: float, network: Network, ranks: int, pixels: int) -> Exchange:
    """Compute what a step of `step` seconds exchanges."""
    gradients = network.all_reduce(counts.gradients, ranks)
    window = step * CHOSEN / (ROWS + CHOSEN) * BACKWARD
    sums = sum(network.all_reduce(backward_bytes(c), ranks) for c in counts.channels)
    ring = sum(network.ring_gather(forward_bytes(c), ranks) for c in counts.channels)
    tree = sum(network.tree_gather(forward_bytes(c), ranks) for c in counts.channels)
    return Exchange(
        buffers=network.broadcast(counts.buffers, ranks),
        gradients=gradients,
        hidden=min(gradients, window),
        ring=PASSES * (ring + sums),
        tree=PASSES * (tree + sums),
        images=network.tree_gather(gathered_bytes(pixels), ranks)
        + network.all_reduce(summed_bytes(pixels, ranks), ranks),
    )


@dataclass(frozen=True)
class Efficiency:
    """Hold the share of a step's time that is its own, with stragglers, in percent."""

    plain: float  # gradients after the last backward pass
    overlap: float  # gradients while it runs
    ring: float  # plain, with synchronised norms
    tree: float
    exact: float  # tree, and rows that travel


def efficiency(found: Exchange, step: float, ranks: int, jitter: Jitter) -> Efficiency:
    """Compare a rank alone with the slowest of all, and what they exchange."""
    apart = slowest(step, ranks, jitter, inside=False) + found.buffers
    bound_together = slowest(step, ranks, jitter, inside=True) + found.buffers + found.gradients

    def share(time: float) -> float:
        return 100 * step / time

    return Efficiency(
        plain=share(apart + found.gradients),
        overlap=share(apart + found.gradients - found.hidden),
        ring=share(bound_together + found.ring),
        tree=share(bound_together + found.tree),
        exact=share(bound_together + found.tree + found.images),
    )
