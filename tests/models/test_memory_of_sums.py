"""What the networks' evaluation holds at once, against sums outside of their norms."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.test_sums_in_norms import images, network, watched


class Alive(TorchDispatchMode):
    """Note the most bytes that what was computed held at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: list[weakref.ref[Tensor]] = []
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **kwargs or {})
        tensors = found if isinstance(found, tuple | list) else (found,)
        self.made += [weakref.ref(t) for t in tensors if isinstance(t, Tensor)]
        alive = [t.untyped_storage() for ref in self.made if (t := ref()) is not None]
        self.most = max(self.most, sum({s.data_ptr(): s.nbytes() for s in alive}.values()))
        return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["wrn16_2", "resnet18", "resnet50"])
def test_evaluation_holds_no_more_than_with_sums_outside(name: str, training: bool) -> None:
    """The summands, and what a norm has read, go as soon as they did."""
    most = []
    for model in (network(name), watched(network(name))):
        with torch.no_grad(), Alive() as alive:
            model.train(training)(images())
        most.append(alive.most)
    assert most[0] <= most[1]
