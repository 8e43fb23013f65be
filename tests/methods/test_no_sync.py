"""A step with check=False reads nothing back to the host."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.methods.support import EVERY, batch, batch_for, generator, make

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


READING: dict[str, Callable[[Tensor], object]] = {  # to see that the net holds
    "item": lambda x: x.mean().item(),
    "bool": lambda x: x.sum() > 0 or x,
    "mask": lambda x: x[x > 0.5],
    "nonzero": torch.nonzero,
}


@pytest.mark.parametrize("kind", READING)
def test_the_net_holds(kind: str) -> None:
    with pytest.raises(AssertionError, match="synchronises"), NoSynchronisation():  # type: ignore[no-untyped-call]
        READING[kind](batch()[0])


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_step_does_not_synchronise(
    name: str, options: dict[str, Any], own_generator: bool
) -> None:
    method = make(name, check=False, generator=generator() if own_generator else None, **options)
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        for i in range(2):
            method(*batch_for(method, seed=i))


def test_checking_values_does() -> None:
    with pytest.raises(AssertionError, match="synchronises"), NoSynchronisation():  # type: ignore[no-untyped-call]
        make(check=True)(*batch())
