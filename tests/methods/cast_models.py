"""Methods and models whose weights autocast casts, in all ways that they may be used."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from entprop_fast import Method
from entprop_fast.methods import GPaCo
from tests.methods import support as s

EVERY = [
    *s.EVERY,
    ("entprop", {"n": 5, "accumulate": "all"}),
    ("entprop", {"n": 2, "max_grad_norm": 0.05}),
    ("vanilla", {"criterion": "gpaco"}),
    ("entprop", {"n": 2, "criterion": "gpaco"}),
]
Change = Callable[[nn.Sequential], Any]


def make(name: str, *changes: Change, amp: str | None = "bf16", **o: Any) -> Method:
    model = s.dual_network(dtype=torch.float32)
    for change in changes:
        change(model)
    if o.get("criterion") == "gpaco":
        o["criterion"] = criterion = GPaCo(s.CLASSES)
        model.add_module("centres", nn.ParameterList(criterion.parameters()))
        with torch.no_grad():
            for parameter in criterion.parameters():
                parameter.fill_(0.5)
        model.forward = lambda x: nn.Sequential(*list(model)[:-1])(x)  # type: ignore[method-assign]
    return s.make(name, model=model, amp=amp, generator=s.generator(5), **o)


def given(method: Method, seed: int) -> tuple[Tensor, Tensor]:
    return s.batch_for(method, seed=seed, dtype=torch.float32)


def checkpointed(model: nn.Sequential, reentrant: bool = False) -> None:
    first, *rest = model
    model.forward = lambda x: checkpoint(  # type: ignore[method-assign]
        nn.Sequential(*rest), first(x), use_reentrant=reentrant
    )


def freeze(model: nn.Sequential) -> None:
    model[0].weight.requires_grad_(False)


class _Shrunk(nn.Module):
    """Changes its weight in each forward, in place or by other memory."""

    def __init__(self, layer: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.layer, self.in_place = layer, in_place

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.get_parameter("weight")
        if self.in_place:
            with torch.no_grad():
                weight.mul_(0.9)
        else:
            weight.data = weight.data * 0.9
        return self.layer(x)  # type: ignore[no-any-return]


def shrink(model: nn.Sequential) -> None:
    model.conv2 = _Shrunk(model.get_submodule("conv2"), in_place=True)


def replace(model: nn.Sequential) -> None:
    model.conv2 = _Shrunk(model.get_submodule("conv2"), in_place=False)


def spectral(model: nn.Sequential) -> None:
    torch.manual_seed(0)
    spectral_norm(model.get_submodule("conv2"))


def eval_norm(model: nn.Sequential) -> None:
    model[1].eval()


def share(model: nn.Sequential) -> None:
    """One weight that two layers use."""
    one, other = (nn.Conv2d(4, 4, 1, bias=False) for _ in range(2))
    one.weight = other.weight
    nn.init.constant_(one.weight, 0.1)
    model.relu1 = nn.Sequential(one, nn.ReLU(), other)


CHANGES: list[Change] = [checkpointed, freeze, eval_norm, share, shrink, replace, spectral]
