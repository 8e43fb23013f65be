"""bench/memory.py with an allocator that only counts."""

from __future__ import annotations

import pytest
import torch

from bench import memory


class Allocator:
    """What torch.cuda says of bytes."""

    def __init__(self) -> None:
        self.now = self.most = 100

    def take(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)

    def reset(self) -> None:
        self.most = self.now


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    found = Allocator()
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: found.now)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: found.most)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2 * found.now)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 2 * found.most)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", found.reset)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(memory, "give_back", lambda: None)
    return found


def test_a_call_takes_what_is_beside_what_was_there(allocator: Allocator) -> None:
    def uses(*sizes: int) -> None:
        for size in sizes:
            allocator.take(size)

    calls = {"large": lambda: uses(50, -20), "small": lambda: uses(7, -7), "none": lambda: None}
    assert memory.peaks_of(calls, "cuda") == {"large": 50, "small": 7, "none": 0}


def test_a_peak_is_counted_from_where_it_began(allocator: Allocator) -> None:
    allocator.take(900)
    allocator.take(-900)
    peak = memory.Peak("cuda")
    allocator.take(30)
    allocator.take(-10)
    assert peak.added() == (30, 60)


def test_of_a_cpu_nothing_is_known() -> None:
    assert memory.peaks_of({"call": lambda: None}, "cpu") is None
    assert memory.Peak("cpu").added() == (None, None)
