"""`python -m bench.scale` counts what processes exchange, and its costs follow its formulas."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import entprop_fast
from bench.scale.costs import ETHERNET, INFINIBAND, Jitter, slowest
from bench.scale.counts import backward_bytes, counts_of, forward_bytes
from bench.scale.steps import PASSES, efficiency, exchange
from entprop_fast import models
from tests.processes import in_two_processes

ARCH, PIXELS = "wrn10_0.5", 8


def network() -> torch.nn.Module:
    model = models.create(ARCH, num_classes=10, in_channels=1)
    return entprop_fast.convert_dual_norm(model)


def exchanged(synchronised: bool, rank: int) -> dict[str, Any]:
    """Bytes and calls of a step's collectives, without the integers that hosts agree on."""
    found: Counter[str] = Counter()

    def counting(name: str, place: int) -> None:
        original = getattr(distributed, name)

        def counted(*args: Any, **named: Any) -> Any:
            tensor = args[place]
            if name == "broadcast" or tensor.is_floating_point():
                found[f"{name} bytes"] += tensor.numel() * tensor.element_size()
                found[f"{name} calls"] += 1
            return original(*args, **named)

        setattr(distributed, name, counted)

    model: torch.nn.Module = network()
    if synchronised:
        model = entprop_fast.synchronise_norms(model)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    method = entprop_fast.create_method("entprop", wrapped, optimizer, k=0.25, n=1)
    generator = torch.Generator().manual_seed(rank)
    images = torch.rand(8, 1, PIXELS, PIXELS, generator=generator)
    labels = torch.randint(10, (8,), generator=generator)
    old = "all_gather_into_tensor"
    gather = "all_gather_single" if hasattr(distributed, "all_gather_single") else old
    for name, place in (("all_reduce", 0), ("broadcast", 0)):
        counting(name, place)
    counting(gather, 1)
    method(images, labels)
    return {name.replace(gather, "gather"): number for name, number in found.items()}


def test_a_step_exchanges_what_is_counted(tmp_path: Path) -> None:
    counts = counts_of(network())
    found = in_two_processes(partial(exchanged, False), tmp_path)[0]
    assert found["broadcast bytes"] == counts.buffers
    assert found["all_reduce bytes"] == counts.gradients
    assert "gather bytes" not in found


def test_synchronised_norms_exchange_what_is_counted(tmp_path: Path) -> None:
    counts = counts_of(network())
    found = in_two_processes(partial(exchanged, True), tmp_path)[1]
    norms = len(counts.channels)
    assert found["gather calls"] == PASSES * norms
    assert found["gather bytes"] == PASSES * sum(map(forward_bytes, counts.channels))
    sums = PASSES * sum(map(backward_bytes, counts.channels))
    assert found["all_reduce bytes"] == counts.gradients + sums


def test_costs_are_those_of_the_formulas() -> None:
    """By hand: 64 GPUs are 8 nodes."""
    size = 1e9
    within = 2 * 7 / 8 * size / 360e9 + 14 * 1.5e-6
    between = 2 * 7 / 8 * size / 320e9 + 2 * 3 * 5e-6
    assert INFINIBAND.all_reduce(size, 64) == pytest.approx(within + between)
    assert INFINIBAND.all_reduce(size, 8) == pytest.approx(within)
    assert ETHERNET.ring_gather(0, 512) == pytest.approx(511 * 25e-6)
    assert ETHERNET.tree_gather(0, 512) == pytest.approx(7 * 1.5e-6 + 6 * 25e-6)


def test_stragglers_are_those_of_order_statistics() -> None:
    steady = Jitter(spread=0.0, pause=0.01, every=1000)
    some = 1 - (1 - 1 / 1000) ** 512  # of the steps have a rank that stands still
    assert slowest(0.03, 512, steady, inside=False) == pytest.approx(0.03 + 0.01 * some, rel=0.02)
    assert slowest(0.03, 512, steady, inside=True) == pytest.approx(0.03 + 0.01 * 0.512, rel=0.02)
    varying = Jitter(spread=0.01, pause=0.0)
    mean = 1 + 0.01 / torch.pi**0.5  # of the larger of two
    assert slowest(1.0, 2, varying, inside=False) == pytest.approx(mean, rel=1e-3)


def test_each_thing_more_costs_efficiency() -> None:
    counts = counts_of(network())
    for ranks in (8, 64):
        found = exchange(counts, 0.001, ETHERNET, ranks, PIXELS)
        share = efficiency(found, 0.001, ranks, Jitter())
        assert 100 > share.overlap >= share.plain > share.tree >= share.ring
        assert share.tree > share.exact > 0
