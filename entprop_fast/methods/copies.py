"""Copies and pickles of a method, which go on as the original would."""

from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from entprop_fast.capture import StepCapture
from entprop_fast.methods.contract import StepResult
from entprop_fast.methods.watch import Watch
from entprop_fast.parallel.replicas import Alone, Replicas


class _Source(NamedTuple):
    """A generator on its way to another process, where torch's own pickle of one does not arrive.

    That shares the memory of its state, which is gone by the time the process asks for it.
    """

    generator: torch.Generator


def _by_value(source: _Source) -> tuple[Any, ...]:
    generator = source.generator
    return _from_value, (generator.device, generator.get_state().tolist())


def _from_value(device: torch.device, state: list[int]) -> _Source:
    generator = torch.Generator(device)
    generator.set_state(torch.tensor(state, dtype=torch.uint8))
    return _Source(generator)


ForkingPickler.register(_Source, _by_value)


class Copied:
    """What `copy.deepcopy` and `pickle` take of a method, and what they make anew.

    A copy has a model, an optimizer and a generator of its own, those of its copy where they are
    copied together, as in ``copy.deepcopy((model, optimizer, method))``. It captures anew.
    """

    model: nn.Module
    criterion: nn.Module | None
    optimizer: torch.optim.Optimizer
    generator: torch.Generator | None
    captures: StepCapture[StepResult]
    _replicas: Alone | Replicas
    _watch: Watch

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._replicas, Replicas):
            raise TypeError(
                f"method {type(self).__name__} of a model in a DistributedDataParallel cannot be "
                "copied or pickled, as its process group cannot: copy model, optimizer and "
                "method.state_dict(), and make another method"
            )
        state = {k: v for k, v in vars(self).items() if k not in ("captures", "_watch")}
        source = None if self.generator is None else _Source(self.generator)
        return state | {"generator": source, "gradients": self._gradients()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        gradients: list[tuple[Tensor, Tensor]] = state.pop("gradients")
        source: _Source | None = state["generator"]
        vars(self).update(state, generator=None if source is None else source.generator)
        # Copies of parameters come without theirs, and an accumulation may be under way.
        for parameter, gradient in gradients:
            parameter.grad = gradient
        self.captures = StepCapture(self)  # type: ignore[arg-type]  # a `Method`
        self._watch = Watch(self.model, self.criterion, self.optimizer)

    def __copy__(self) -> NoReturn:
        raise TypeError(
            f"copy.copy of a method {type(self).__name__} would share the model and half of its "
            "state: use copy.deepcopy, or create_method for a second method on the same model"
        )

    def _gradients(self) -> list[tuple[Tensor, Tensor]]:
        modules = [module for module in (self.model, self.criterion) if module is not None]
        parameters = [p for module in modules for p in module.parameters()]
        parameters += [p for group in self.optimizer.param_groups for p in group["params"]]
        return [(p, p.grad) for p in dict.fromkeys(parameters) if p.grad is not None]
