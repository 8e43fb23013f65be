"""A refused call changes nothing: gradients, buffers and random numbers are put back."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer


def snapshot(
    modules: Sequence[nn.Module],
    optimizer: Optimizer,
    generator: torch.Generator | None,
    device: torch.device,
) -> Callable[[], None]:
    """How `modules` and the random generators stand now, as a call that puts them back.

    Put back, as often as it is called, are the buffers of `modules`, the gradients of their
    parameters and of those of `optimizer`, `generator` and the default generators of the CPU and of
    `device`.
    """
    buffers = [
        (owner, name, buffer, buffer.clone())
        for module in modules
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    parameters = [p for module in modules for p in module.parameters()]
    parameters += [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [
        (parameter, parameter.grad, None if parameter.grad is None else parameter.grad.clone())
        for parameter in dict.fromkeys(parameters)
    ]
    own = None if generator is None else generator.get_state()
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def undo() -> None:
        with torch.no_grad():
            for owner, name, buffer, value in buffers:
                buffer.copy_(value)
                setattr(owner, name, buffer)  # a forward may have put another tensor there
            for parameter, gradient, before in gradients:
                if gradient is not None and before is not None:
                    gradient.copy_(before)  # a backward pass may have added to it
                parameter.grad = gradient
        if generator is not None and own is not None:
            generator.set_state(own)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)

    return undo
