"""Put back what a refused call has changed: gradients, buffers, random numbers and the rest."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from entprop_fast.devices import random_state_of, set_random_state_of


class Steps(Protocol):
    """Take steps that change a model, a criterion, an optimizer's gradients and a generator."""

    model: nn.Module
    criterion: nn.Module | None
    optimizer: Optimizer
    generator: torch.Generator | None


def snapshot(steps: Steps, attributes: Sequence[str], device: torch.device) -> Callable[[], None]:
    """Take a snapshot of what a refused step may have changed; return a call that restores it.

    Restored, as often as it is called, are the buffers of model and criterion, the gradients of
    their parameters and of the optimizer's, the generator and the default generators of the CPU and
    of `device`, and the `attributes` of `steps`, tensors or plain values.
    """
    optimizer, generator = steps.optimizer, steps.generator
    modules = [module for module in (steps.model, steps.criterion) if module is not None]
    held: list[tuple[object, str, Any]] = [
        (module, name, buffer)
        for root in modules
        for module in root.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    held += [(steps, name, getattr(steps, name)) for name in attributes]
    values = [value.clone() if isinstance(value, Tensor) else None for _, _, value in held]
    parameters = [p for module in modules for p in module.parameters()]
    parameters += [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [
        (parameter, parameter.grad, None if parameter.grad is None else parameter.grad.clone())
        for parameter in dict.fromkeys(parameters)
    ]
    own = None if generator is None else generator.get_state()
    cpu = torch.get_rng_state()
    on_device = random_state_of(device)

    def restore() -> None:
        with torch.no_grad():
            for (holder, name, before), value in zip(held, values, strict=True):
                if value is not None:
                    before.copy_(value)
                setattr(holder, name, before)  # the call may have put another one there
            for parameter, gradient, added_to in gradients:
                if gradient is not None and added_to is not None:
                    gradient.copy_(added_to)  # a backward pass may have added to it
                parameter.grad = gradient
        if generator is not None and own is not None:
            generator.set_state(own)
        torch.set_rng_state(cpu)
        if on_device is not None:
            set_random_state_of(device, on_device)

    return restore
