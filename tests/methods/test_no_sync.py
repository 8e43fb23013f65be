"""A step with check=False reads nothing back to the host."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.methods.support import EVERY, batch, dual_network, generator, make

aten = torch.ops.aten

# Where a kernel's result decides a Python value or the shape of the next tensor.
READS = {
    aten._local_scalar_dense,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten._unique2,
    aten.unique_dim,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class NoSynchronisation(TorchDispatchMode):
    """Fails on every operation that would wait for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        assert packet not in READS, f"{func} synchronises"
        if packet in INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} with a mask synchronises"
        return func(*args, **kwargs or {})


class Reads(nn.Module):
    """A model that synchronises, to see that the net holds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "item":
            return x * x.mean().item()
        if self.kind == "bool":
            return x if x.sum() > 0 else -x
        if self.kind == "mask":
            x[x > 0.5].sum()
        else:
            torch.nonzero(x)
        return x


@pytest.mark.parametrize("kind", ["item", "bool", "mask", "nonzero"])
def test_the_net_holds(kind: str) -> None:
    method = make(model=nn.Sequential(dual_network(), Reads(kind)), check=False)
    with pytest.raises(AssertionError, match="synchronises"), NoSynchronisation():  # type: ignore[no-untyped-call]
        method._network(batch()[0])._run(batch()[0])


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_step_does_not_synchronise(
    name: str, options: dict[str, Any], own_generator: bool
) -> None:
    method = make(name, check=False, generator=generator() if own_generator else None, **options)
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        for i in range(2):
            method(*batch(seed=i))


def test_checking_values_does() -> None:
    with pytest.raises(AssertionError, match="synchronises"), NoSynchronisation():  # type: ignore[no-untyped-call]
        make(check=True)(*batch())
