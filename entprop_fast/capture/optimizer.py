"""Give an optimiser the form whose step a CUDA graph can hold."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from entprop_fast.torch_internals import expect_eager_steps

# What each group is set to; an lr in a device tensor makes any other form synchronise.
FORMS: dict[type[Optimizer], dict[str, Any]] = {
    SGD: {"fused": True, "foreach": None},
    Adam: {"fused": True, "foreach": None, "capturable": True},
    AdamW: {"fused": True, "foreach": None, "capturable": True},
}


def why_not_capturable(optimizer: Optimizer, device: torch.device) -> str | None:
    """Return what keeps a graph from holding this optimiser's step, or None."""
    # A subclass may step otherwise.
    if type(optimizer) not in FORMS:
        return f"{type(optimizer).__name__} cannot be captured (SGD, Adam and AdamW can)"
    for number, group in enumerate(optimizer.param_groups):
        if group.get("differentiable"):
            return f"optimizer.param_groups[{number}] is differentiable, which is not fused"
        if group.get("momentum") and group.get("dampening"):
            return (
                f"optimizer.param_groups[{number}] has dampening={group['dampening']:g}: with it "
                "fused SGD needs the first gradients of all parameters in the same step"
            )
        for parameter in group["params"]:
            if parameter.device != device or not parameter.is_floating_point():
                return (
                    f"the optimizer holds a {parameter.dtype} parameter on {parameter.device}: "
                    f"a graph needs floating-point ones, all on {device}"
                )
    return None


class CapturableForm:
    """Keeps the groups of one optimiser in the form that a graph can hold.

    Each group's lr is a float32 device tensor, the same for as long as this lives: graphs read it.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self.optimizer, self.device = optimizer, device
        self._form = FORMS[type(optimizer)]
        self._rates: list[Tensor] = []
        self._state: object = None  # that was brought into the form

    def restore(self) -> None:
        """Bring every group into the form; copy an lr that is new into the tensor graphs read.

        Cheap where nothing changed. `load_state_dict` replaces flags, lr and state, a scheduler may
        put a float where the tensor was.
        """
        loaded = self.optimizer.state is not self._state
        self._state = self.optimizer.state
        for number, group in enumerate(self.optimizer.param_groups):
            if number == len(self._rates):
                self._rates.append(self._rate(group["lr"]))
            rate, given = self._rates[number], group["lr"]
            if given is not rate:
                if isinstance(given, Tensor):
                    rate.copy_(given.detach().reshape(()), non_blocking=True)
                else:
                    rate.fill_(given)
                group["lr"] = rate
            if loaded or any(group[key] is not value for key, value in self._form.items()):
                group.update(self._form)
                self._move_counters(group)
                self._fill_momentum(group)
        expect_eager_steps(self.optimizer)

    def _rate(self, given: float | Tensor) -> Tensor:
        """Return a tensor for a group's lr: the user's own where it fits."""
        taken = any(given is rate for rate in self._rates)
        if isinstance(given, Tensor):
            fits = given.dtype == torch.float32 and given.device == self.device and given.ndim == 0
            if fits and not taken and not given.requires_grad:
                return given
            return given.detach().reshape(()).to(self.device, torch.float32, copy=True)
        return torch.full((), given, dtype=torch.float32, device=self.device)

    def _move_counters(self, group: dict[str, Any]) -> None:
        """Move Adam's counts, which are on the host until then, to the device."""
        for parameter in group["params"]:
            state = self.optimizer.state.get(parameter, {})
            if "step" in state:
                count = torch.as_tensor(state["step"], dtype=torch.float32)
                state["step"] = count.to(self.device)

    def _fill_momentum(self, group: dict[str, Any]) -> None:
        """Make the velocities that SGD makes in a parameter's first step: zeros.

        Its fused form takes them from all parameters or from none, and some may get their first
        gradient later than others.
        """
        if group.get("momentum"):
            for parameter in group["params"]:
                state = self.optimizer.state[parameter]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


def capturable_optimizer(optimizer: Optimizer, device: torch.device) -> None:
    """Set an optimiser's groups once to the form that captured and eager steps share.

    Args:
        optimizer: SGD, Adam or AdamW, changed in place: ``fused=True``, ``capturable=True`` where
            it has that, lr a float32 tensor.
        device: of its parameters.

    Raises:
        ValueError: it cannot be captured; the message says why.
    """
    if reason := why_not_capturable(optimizer, device):
        raise ValueError(reason)
    CapturableForm(optimizer, device).restore()
