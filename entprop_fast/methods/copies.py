"""Copy and pickle a method so that the copy goes on as the original would."""

from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.parallel.alone import Alone
from entprop_fast.parallel.replicas import Replicas
from entprop_fast.parallel.sharded import Sharded


class Copied(Protocol):
    """Hold what a copy of a method needs."""

    model: nn.Module
    optimizer: Optimizer
    options: CommonOptions
    criterion: nn.Module | None
    generator: torch.Generator | None
    _replicas: Alone | Replicas | Sharded


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


def state_for_copy(method: Copied) -> dict[str, Any]:
    """Return what `copy.deepcopy` and `pickle` take of a method.

    A copy has a model, an optimizer and a generator of its own, those of its copy where they are
    copied together, as in ``copy.deepcopy((model, optimizer, method))``. It captures anew.

    Raises:
        TypeError: the model is in a `DistributedDataParallel`, or split by `fully_shard`.
    """
    if not isinstance(method._replicas, Alone):
        split = isinstance(method._replicas, Sharded)
        held = "that fully_shard split" if split else "in a DistributedDataParallel"
        raise TypeError(
            f"method {type(method).__name__} of a model {held} cannot be copied or pickled, as its "
            "process group cannot: copy model, optimizer and method.state_dict(), and make another "
            "method"
        )
    state = {k: v for k, v in vars(method).items() if k not in ("captures", "_accepted_modules")}
    options = method.options
    source = None if options.generator is None else _Source(options.generator)
    state["options"] = replace(options, generator=None)
    return state | {"generator": source, "gradients": _gradients(method)}


def restore_copy(method: Copied, state: dict[str, Any]) -> None:
    """Make a method of what `state_for_copy` gave."""
    gradients: list[tuple[Tensor, Tensor]] = state.pop("gradients")
    source: _Source | None = state.pop("generator")
    vars(method).update(state)
    if source is not None:
        method.generator = source.generator
    # Copies of parameters come without theirs, and an accumulation may be under way.
    for parameter, gradient in gradients:
        parameter.grad = gradient


def _gradients(method: Copied) -> list[tuple[Tensor, Tensor]]:
    modules = [module for module in (method.model, method.criterion) if module is not None]
    parameters = [p for module in modules for p in module.parameters()]
    parameters += [p for group in method.optimizer.param_groups for p in group["params"]]
    return [(p, p.grad) for p in dict.fromkeys(parameters) if p.grad is not None]
