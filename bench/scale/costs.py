"""Say what collectives cost on stated networks, by the alpha-beta model, and what stragglers do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NODE = 8  # GPUs


@dataclass(frozen=True)
class Network:
    """State a network: figures of data sheets, times what is usually reached of them.

    Attributes:
        name: of the link between nodes.
        between: bytes a second of a node, all its GPUs together.
        latency: seconds of a message between nodes.
        within: bytes a second of a GPU to the others of its node.
        latency_within: seconds of a message within a node.
    """

    name: str
    between: float
    latency: float
    within: float = 0.8 * 450e9
    latency_within: float = 1.5e-6

    def all_reduce(self, size: float, ranks: int) -> float:
        """Return the time of a ring within each node, and of a tree or ring between them."""
        gpus, nodes = _split(ranks)
        time = 2 * (gpus - 1) * (size / gpus / self.within + self.latency_within)
        if nodes > 1:
            time += 2 * (nodes - 1) / nodes * size / self.between + 2 * _log(nodes) * self.latency
        return time

    def broadcast(self, size: float, ranks: int) -> float:
        """Return the time of a pipelined tree."""
        gpus, nodes = _split(ranks)
        time = size / self.within + _log(gpus) * self.latency_within
        return time + (size / self.between + _log(nodes) * self.latency if nodes > 1 else 0.0)

    def ring_gather(self, size: float, ranks: int) -> float:
        """Return the time of an all-gather by one ring, `size` of each rank: NCCL's of long."""
        latency, speed = self.latency_within, self.within
        if ranks > NODE:
            latency, speed = self.latency, min(self.within, self.between)
        return (ranks - 1) * (latency + size / speed)

    def tree_gather(self, size: float, ranks: int) -> float:
        """Return the time of an all-gather within nodes, then by doubling between them."""
        gpus, nodes = _split(ranks)
        time = (gpus - 1) * (self.latency_within + size / self.within)
        if nodes > 1:
            time += _log(nodes) * self.latency + (ranks - gpus) * size / self.between
        return time


INFINIBAND = Network("400 Gb/s InfiniBand a GPU", between=NODE * 0.8 * 50e9, latency=5e-6)
ETHERNET = Network("100 Gb/s Ethernet a node", between=0.8 * 12.5e9, latency=25e-6)


def _split(ranks: int) -> tuple[int, int]:
    gpus = min(ranks, NODE)
    return gpus, ranks // gpus


def _log(count: int) -> int:
    return math.ceil(math.log2(count))


@dataclass(frozen=True)
class Jitter:
    """State how ranks differ from step to step: assumed, not measured.

    Attributes:
        spread: standard deviation of a rank's step, of its mean.
        pause: seconds that a rank stands still now and then (a reader, the system, a clock).
        every: steps of a rank between two pauses, on average.
    """

    spread: float = 0.015
    pause: float = 0.010
    every: float = 1000.0


def slowest(step: float, ranks: int, jitter: Jitter, *, inside: bool, draws: int = 4000) -> float:
    """Return the mean time until the slowest of `ranks` has done a step of `step` seconds.

    Args:
        step: seconds of one rank, without waiting.
        ranks: that wait for each other.
        jitter: of each.
        inside: they wait at every norm, so that pauses of several ranks add up; else at the end.
        draws: of the simulation, whose seed is fixed.
    """
    generator = np.random.default_rng(0)
    longest, chunk = 0.0, 500
    for _ in range(draws // chunk):
        speeds = 1 + jitter.spread * generator.standard_normal((chunk, ranks))
        pauses = jitter.pause * (generator.random((chunk, ranks)) < 1 / jitter.every)
        if inside:
            longest += float((step * speeds.max(1) + pauses.sum(1)).sum())
        else:
            longest += float((step * speeds + pauses).max(1).sum())
    return longest / (draws // chunk * chunk)
