"""A CUDA graph's manners on the CPU: nothing runs while capturing, a replay knows no Python.

A replay runs the recorded Python again, but with the host's values and the memory of the moment of
the capture, and puts all that Python did back: what a real graph would miss, this one misses.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast import Method
from tests.methods.support import everything


class Host:
    """What the host holds for a method's step: options, groups, flags, and where tensors lie."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.attributes = dict(vars(method))
        self.optimizer = method.optimizer
        self.lists = (self.optimizer.param_groups, self.optimizer.state)
        self.groups = [group | {"params": [*group["params"]]} for group in self.lists[0]]
        self.state = {p: dict(values) for p, values in self.lists[1].items()}
        roots = [m for m in (method.model, method.criterion) if m is not None]
        self.modules = [module for root in roots for module in root.modules()]
        self.flags = [m.training for m in self.modules]
        self.dicts = [
            {name: dict(value) for name, value in vars(m).items() if isinstance(value, dict)}
            for m in self.modules
        ]
        held = [p for group in self.groups for p in group["params"]]
        buffers = [buffer for root in roots for buffer in root.buffers()]
        self.memory = [(t, t.detach(), t.requires_grad) for t in (*held, *buffers)]

    def install(self) -> None:
        """Make the method's step see these values and this memory."""
        self._put()
        self.optimizer.param_groups = [dict(group) for group in self.groups]
        self.optimizer.state = defaultdict(dict, {p: dict(v) for p, v in self.state.items()})

    def put_back(self) -> None:
        """The very same objects again."""
        self._put()
        self.optimizer.param_groups, self.optimizer.state = self.lists

    def _put(self) -> None:
        vars(self.method).clear()
        vars(self.method).update(self.attributes)
        for module, training, dicts in zip(self.modules, self.flags, self.dicts, strict=True):
            module.training = training
            for name, entries in dicts.items():
                getattr(module, name).clear()
                getattr(module, name).update(entries)
        for tensor, memory, requires_grad in self.memory:
            if tensor.data_ptr() != memory.data_ptr():
                tensor.data = memory
            if isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(requires_grad)


class RecordingGraph:
    """The step of `method` as it was recorded."""

    def __init__(self, log: list[str], method: Method, run: Callable[[], Any]) -> None:
        self.log, self.method, self.run = log, method, run
        self.host = Host(method)
        before = _values(method)
        own = [(t, t.clone()) for t in vars(method).values() if isinstance(t, Tensor)]
        self.held = _gradients(method)
        self.made = run()
        self.attributes = {
            name: value
            for name, value in vars(method).items()
            if isinstance(value, Tensor) and value is not self.host.attributes.get(name)
        }
        _set_back(method, before)
        for tensor, value in own:  # what a method carries from step to step, free_at's delta
            tensor.copy_(value)
        if self.made is None:  # the optimiser's step alone
            return
        result, gradients = self.made
        result._buffer.fill_(255)  # nothing has run
        for value in (*(g for _, g in gradients if g is not None), *self.attributes.values()):
            value.fill_(-1)

    def replay(self) -> None:
        """Run the step as recorded; leave nothing but values in the graph's own tensors."""
        self.log.append("replay")
        live, held = Host(self.method), _gradients(self.method)
        self.host.install()
        if self.made is None:
            for parameter, gradient in self.held:  # it reads the memory that it was given
                parameter.grad = gradient
            self.run()
            self._put_back(live, held)
            return
        result, gradients = self.run()
        self.made[0]._buffer.copy_(result._buffer)
        for (_, gradient), (_, fresh) in zip(self.made[1], gradients, strict=True):
            assert (gradient is None) == (fresh is None)
            if gradient is not None:
                gradient.copy_(fresh)
        for name, value in self.attributes.items():
            value.copy_(vars(self.method)[name])
        self._put_back(live, held)

    @staticmethod
    def _put_back(live: Host, held: list[tuple[Tensor, Tensor | None]]) -> None:
        live.put_back()
        for parameter, gradient in held:
            parameter.grad = gradient


class RecordingGraphs:
    """Stands in for `CudaGraphs`; its log says how each step was run."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.method: Method | None = None
        self.waits_at: str | None = None
        self.fails: Exception | None = None
        self.failures = -1  # so many captures fail; below 0 all do

    def eager(self, run: Callable[[], Any]) -> Any:
        self.log.append("eager")
        return run()

    def watched(self, run: Callable[[], Any]) -> tuple[Any, str | None]:
        return self.eager(run), self.waits_at

    def capture(
        self, run: Callable[[], Any], generator: torch.Generator | None
    ) -> tuple[RecordingGraph, Any]:
        assert self.method is not None
        self.log.append("capture")
        assert generator is self.method.generator or generator is None  # where nothing is drawn
        if self.fails is not None and self.failures:  # as CUDA does, at an operation within
            self.failures -= 1
            self.method.rows += 1000
            for parameter in self.method.model.parameters():
                parameter.grad = torch.full_like(parameter, -1)
            raise self.fails
        graph = RecordingGraph(self.log, self.method, run)
        return graph, graph.made


def _values(method: Method) -> dict[str, Any]:
    return everything(method) | {"state": {id(p): dict(v) for p, v in _state(method).items()}}


def _state(method: Method) -> dict[Tensor, dict[str, Tensor]]:
    return {p: {k: v.clone() for k, v in s.items()} for p, s in method.optimizer.state.items()}


def _set_back(method: Method, before: dict[str, Any]) -> None:
    """Every value of before, in place."""
    modules = [method.model] + ([method.criterion] if method.criterion is not None else [])
    with torch.no_grad():
        for module, parameters, buffers in zip(
            modules, before["parameters"], before["buffers"], strict=True
        ):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                tensor.copy_((parameters | buffers)[name])
        for parameter, state in method.optimizer.state.items():
            for key, value in state.items():  # whose absence before would be a bug to see
                value.copy_(before["state"][id(parameter)][key])
    torch.set_rng_state(before["default generator"])
    if method.generator is not None:
        method.generator.set_state(before["generator"])


def _gradients(method: Method) -> list[tuple[Tensor, Tensor | None]]:
    return [(p, p.grad) for group in method.optimizer.param_groups for p in group["params"]]
