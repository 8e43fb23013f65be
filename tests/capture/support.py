"""A captured method beside its eager twin, which must stay its equal bit for bit."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast import Method, create_method
from entprop_fast.capture import capturable_optimizer
from tests.capture.recording import RecordingGraphs
from tests.methods.support import (
    ONE_VIEW,
    assert_equal,
    batch_for,
    dual_network,
    everything,
    generator,
)

Change = Callable[[Method], None]
MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def make(
    name: str = "entprop",
    *,
    optimizer: MakeOptimizer = sgd,
    model: nn.Module | None = None,
    **o: Any,
) -> Method:
    """A method on a network, with an optimizer and a generator of its own."""
    model = dual_network(dtype=torch.float32) if model is None else model
    options = {"generator": generator()} | ONE_VIEW.get(name, {}) | o
    return create_method(name, model, optimizer(model), **options)


def group(**values: Any) -> Change:
    """A change of the optimizer's first group."""
    return lambda method: method.optimizer.param_groups[0].update(values)


class Twins:
    """One method that captures and one that does not, fed the same."""

    def __init__(
        self, recorder: RecordingGraphs, name: str = "entprop", capture: str = "auto", **o: Any
    ) -> None:
        self.recorder = recorder
        self.captured = make(name, capture=capture, **o)
        recorder.method = self.captured
        self.eager = make(name, capture="off", **o)
        capturable_optimizer(self.eager.optimizer, torch.device("cpu"))
        self.steps = 0

    def step(self, times: int = 1, rows: int = 12, **shape: Any) -> tuple[Tensor, ...]:
        """The same step on both; every result, tensor and random state must agree."""
        for _ in range(times):
            images, labels = batch_for(
                self.captured, rows, seed=self.steps, dtype=torch.float32, **shape
            )
            self.steps += 1
            default = torch.get_rng_state()
            expected = self.eager(images, labels)
            after = torch.get_rng_state()
            torch.set_rng_state(default)
            result = self.captured(images, labels)
            assert_equal(list(result), list(expected))
            assert type(result) is type(expected)
            assert [value.dtype for value in result] == [value.dtype for value in expected]
            assert torch.equal(torch.get_rng_state(), after)
            assert_equal(everything(self.captured), everything(self.eager))
            for name in ("selected_index", "perturbed"):
                assert_equal(getattr(self.captured, name), getattr(self.eager, name))
        return result

    def both(self, change: Change) -> None:
        """Change both in the same way."""
        for method in (self.captured, self.eager):
            change(method)
        capturable_optimizer(self.eager.optimizer, torch.device("cpu"))

    def said(self) -> str:
        """How the steps since the last call ran: e, c and r for eager, capture and replay."""
        said = "".join(word[0] for word in self.recorder.log)
        self.recorder.log.clear()
        return said
