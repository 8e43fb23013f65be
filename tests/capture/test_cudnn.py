"""When cuDNN may try convolutions out: in the warm-up of the first shapes, and nowhere else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method
from entprop_fast.capture import shapes
from tests.capture.recording import RecordingGraphs
from tests.capture.support import make
from tests.methods.support import batch, dual_network

cudnn = torch.backends.cudnn


class Seen(nn.Module):
    """Notes torch's switch in its forward and in its backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[bool] = []
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        self.values.append(cudnn.benchmark)
        if self.fails:
            raise ZeroDivisionError
        x = x.clone()
        if x.requires_grad:
            x.register_hook(lambda _: self.values.append(cudnn.benchmark))
        return x

    def drain(self) -> set[bool]:
        """What was seen since the last call."""
        values, self.values = set(self.values), []
        return values


@pytest.fixture(autouse=True)
def switch() -> Iterator[None]:
    """Torch's switches as they were."""
    before = cudnn.benchmark, cudnn.deterministic
    yield
    cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)


def watched(recorder: RecordingGraphs, **options: Any) -> tuple[Method, Seen]:
    seen = Seen()
    model = nn.Sequential(seen, dual_network(dtype=torch.float32))
    method = recorder.method = make(model=model, **options)
    return method, seen


def values(method: Method, seen: Seen, calls: int, rows: int = 12, **o: Any) -> list[set[bool]]:
    """The switch during each call; after it, it is what it was before."""
    found = []
    for _ in range(calls):
        before = cudnn.benchmark
        method(*batch(rows, dtype=torch.float32), **o)
        assert cudnn.benchmark is before
        found.append(seen.drain())
    return found


OFF, ON = {False}, {True}


def test_it_is_on_while_a_shape_warms_up(recorder: RecordingGraphs) -> None:
    """Off while it is recorded: cuDNN then runs what it has chosen, and may try nothing."""
    method, seen = watched(recorder)
    assert values(method, seen, 6) == [ON] * 3 + [OFF] * 3
    assert values(method, seen, 5, rows=10) == [ON] * 3 + [OFF] * 2
    assert "".join(word[0] for word in recorder.log) == "eeecrrr" + "eeecrr"


def test_method_backward(recorder: RecordingGraphs) -> None:
    method, seen = watched(recorder)
    for expected in [ON] * 3 + [OFF] * 2:
        method.backward(*batch(dtype=torch.float32))
        assert seen.drain() == expected and not cudnn.benchmark


def test_the_first_shapes_alone(recorder: RecordingGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial takes seconds, and a stream of shapes would be nothing else."""
    monkeypatch.setattr(shapes, "MAX_SHAPES", shapes.MAX_GRAPHS + 1)  # then some are forgotten
    method, seen = watched(recorder)
    sizes = range(6, 6 + shapes.MAX_GRAPHS + 3)
    found = [values(method, seen, 1, rows=size)[0] for size in sizes]
    assert found == [ON] * shapes.MAX_GRAPHS + [OFF] * 3


@pytest.mark.parametrize("calls", [1, 4])
def test_the_callers_own_choice(recorder: RecordingGraphs, calls: int) -> None:
    method, seen = watched(recorder)
    cudnn.benchmark = True
    assert values(method, seen, 3 + calls) == [ON] * (3 + calls)
    cudnn.benchmark = False
    method.cudnn_benchmark = False
    method.captures.forget()
    assert values(method, seen, 3 + calls) == [OFF] * (3 + calls)


def _deterministic() -> None:
    cudnn.deterministic = True


@pytest.mark.parametrize(
    "fix", [_deterministic, lambda: torch.use_deterministic_algorithms(True, warn_only=True)]
)
def test_determinism_wins(recorder: RecordingGraphs, fix: Callable[[], None]) -> None:
    fix()
    method, seen = watched(recorder)
    assert values(method, seen, 5) == [OFF] * 5


def test_frozen_switches_stay(recorder: RecordingGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """After ``torch.backends.disable_global_flags()``, whose setters raise."""
    monkeypatch.setattr(torch.backends, "flags_frozen", lambda: True)
    method, seen = watched(recorder)
    assert values(method, seen, 4) == [OFF] * 4


def test_steps_that_no_graph_will_hold(recorder: RecordingGraphs) -> None:
    method, seen = watched(recorder, capture="off")
    assert values(method, seen, 4) == [OFF] * 4
    method, seen = watched(recorder)
    recorder.waits_at = "model.py:37"
    with pytest.warns(RuntimeWarning, match=r"model\.py:37"):
        assert values(method, seen, 5) == [ON] * 3 + [OFF] * 2


def test_without_graphs() -> None:
    seen = Seen()
    method = make(model=nn.Sequential(seen, dual_network(dtype=torch.float32)))
    assert values(method, seen, 4) == [OFF] * 4


def test_an_error_leaves_it_as_it_was(recorder: RecordingGraphs) -> None:
    method, seen = watched(recorder)
    values(method, seen, 1)
    seen.fails = True
    with pytest.raises(ZeroDivisionError):
        method(*batch(dtype=torch.float32))
    assert seen.drain() == ON and not cudnn.benchmark
