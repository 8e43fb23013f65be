"""The order of the CUDA calls behind a capture, on stand-ins for streams and graphs."""

import contextlib
import gc
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from entprop_fast.capture import graphs
from entprop_fast.capture.graphs import CudaGraphs

CUDA = torch.device("cuda", 0)


class Cuda:
    """Stands in for `torch.cuda`: one list of all calls, and which stream is current."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.current = self.make_stream("outer")
        self.pools = 0
        self.mode: Any = 0
        self.fails_to_end = False
        self.generator: Any = SimpleNamespace(
            clone_state=lambda: "fresh",
            graphsafe_set_state=lambda state: self.calls.append(f"{state} generator state"),
        )

    def make_stream(self, name: str = "side") -> Any:
        def wait_stream(other: Any) -> None:
            self.calls.append(f"{name} waits for {other.name}")

        return SimpleNamespace(name=name, wait_stream=wait_stream)

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def pool(self) -> int:
        self.pools += 1
        return self.pools

    def set_mode(self, mode: Any) -> None:
        self.mode = mode
        warnings.warn("Synchronization debug mode is a prototype feature and ...", stacklevel=1)


class CUDAGraph:
    cuda: Cuda

    def register_generator_state(self, generator: Any) -> None:
        self.cuda.calls.append("register generator")

    def capture_begin(self, pool: int, capture_error_mode: str) -> None:
        self.cuda.calls.append(f"begin in pool {pool} on {self.cuda.current.name}")
        assert capture_error_mode == "thread_local"

    def capture_end(self) -> None:
        self.cuda.calls.append(f"end on {self.cuda.current.name}")
        if self.cuda.fails_to_end:
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    CUDAGraph.cuda = cuda
    for name, value in {
        "Stream": cuda.make_stream,
        "CUDAGraph": CUDAGraph,
        "graph_pool_handle": cuda.pool,
        "current_device": lambda: 0,
        "current_stream": lambda device: cuda.current,
        "stream": cuda.stream,
        "device": lambda device: contextlib.nullcontext(),
        "synchronize": lambda device: cuda.calls.append("synchronize"),
        "empty_cache": lambda: cuda.calls.append("empty cache"),
        "default_generators": (cuda.generator,),
        "get_sync_debug_mode": lambda: cuda.mode,
        "set_sync_debug_mode": cuda.set_mode,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def end_allocating(device: int, pool: int) -> None:
        cuda.calls.append(f"end of pool {pool}")

    monkeypatch.setattr(gc, "collect", lambda: None)  # seconds in a process of many tests
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end_allocating)
    return cuda


def run(cuda: Cuda) -> str:
    cuda.calls.append(f"run on {cuda.current.name}")
    return "result"


def test_eager_runs_between_two_waits(cuda: Cuda) -> None:
    assert CudaGraphs(CUDA).eager(lambda: run(cuda)) == "result"
    assert cuda.calls == ["side waits for outer", "run on side", "outer waits for side"]
    with pytest.raises(ZeroDivisionError):
        CudaGraphs(CUDA).eager(lambda: 1 // 0)
    assert cuda.calls[-1] == "outer waits for side" and cuda.current.name == "outer"


def test_watched_tells_where_and_passes_other_warnings_on(cuda: Cuda) -> None:
    def waits() -> str:
        assert cuda.mode == "warn"
        warnings.warn("unrelated", UserWarning, stacklevel=1)
        warnings.warn_explicit(
            "called a synchronizing CUDA operation (Triggered ...)", UserWarning, "model.py", 37
        )
        return run(cuda)

    with pytest.warns(UserWarning) as told:
        assert CudaGraphs(CUDA).watched(waits) == ("result", "model.py:37")
    assert [str(one.message) for one in told if "prototype" not in str(one.message)] == [
        "unrelated"
    ]
    assert cuda.mode == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CudaGraphs(CUDA).watched(lambda: run(cuda)) == ("result", None)


def test_capture(cuda: Cuda) -> None:
    device = CudaGraphs(CUDA)
    collects: list[bool] = []

    def recorded() -> str:
        collects.append(gc.isenabled())
        return run(cuda)

    graph, result = device.capture(recorded, cuda.generator)
    assert collects == [False] and gc.isenabled()
    assert result == "result" and cuda.current.name == "outer"
    assert cuda.calls == [
        "register generator",
        "synchronize",
        "empty cache",
        "side waits for outer",
        "begin in pool 1 on side",
        "run on side",
        "end on side",
        "outer waits for side",
    ]
    other, _ = device.capture(lambda: run(cuda), None)
    assert cuda.calls.count("begin in pool 1 on side") == 2  # the same pool
    assert cuda.calls.count("register generator") == 1
    del graph
    third, _ = device.capture(lambda: run(cuda), None)
    assert cuda.calls.count("begin in pool 1 on side") == 3
    del other, third  # torch refuses a pool whose last graph is gone
    device.capture(lambda: run(cuda), None)
    assert cuda.calls.count("begin in pool 2 on side") == 1


@pytest.mark.parametrize("before", [False, True, None])
def test_gradients_of_other_streams(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, before: bool | None
) -> None:
    """Fault 3: they come to the stream that captures, on releases of torch that have it."""
    switch = before
    seen: list[bool | None] = []

    def override(enabled: bool) -> None:
        nonlocal switch
        assert switch is not None
        switch = enabled

    monkeypatch.setattr(graphs, "stale_streams_redirected", lambda: switch)
    monkeypatch.setattr(
        torch.autograd.graph, "set_override_stale_capture_stream", override, raising=False
    )

    def recorded() -> None:
        seen.append(switch)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        CudaGraphs(CUDA).capture(recorded, None)
    assert seen == [None if before is None else True] and switch is before


@pytest.mark.parametrize("fails_to_end", [False, True])
def test_a_failed_capture(cuda: Cuda, fails_to_end: bool) -> None:
    """The step's own error, the outer stream, and generators that can draw again."""
    cuda.fails_to_end = fails_to_end
    device = CudaGraphs(CUDA)
    with pytest.raises(ZeroDivisionError):
        device.capture(lambda: 1 // 0, cuda.generator)
    assert cuda.current.name == "outer"
    ended = cuda.calls.index("end on side")
    assert cuda.calls[ended + 1 :] == [
        "end of pool 1",
        "fresh generator state",
        "fresh generator state",
        "synchronize",
    ]
    cuda.fails_to_end = True  # at its end alone
    with pytest.raises(RuntimeError, match="previous error during capture"):
        device.capture(lambda: run(cuda), None)
    assert cuda.current.name == "outer" and cuda.calls[-1] == "synchronize"
    cuda.fails_to_end = False
    kept, _ = device.capture(lambda: run(cuda), None)
    assert "begin in pool 3 on side" in cuda.calls
    with pytest.raises(ZeroDivisionError):
        device.capture(lambda: 1 // 0, None)
    device.capture(lambda: run(cuda), None)
    assert kept and cuda.calls[-2] == "end on side" and "begin in pool 4 on side" in cuda.calls
