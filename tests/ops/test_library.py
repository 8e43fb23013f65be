"""call: straight to a launcher, and through the dispatcher for whoever watches the ops there."""

import pytest
import torch
from torch import Tensor

from entprop_fast.ops import library
from entprop_fast.ops.select_topk import OP
from tests.ops.checks import Watching


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return a launcher of select_topk for the CPU: the scores it is called with."""
    scores: list[Tensor] = []

    def launcher(score: Tensor, k: int) -> Tensor:
        scores.append(score)
        return score.new_empty(k, dtype=torch.int64)

    monkeypatch.setitem(library.LAUNCHERS, (OP, "cpu"), launcher)
    return scores


class Subclass(Tensor):
    """A tensor of the user's own."""


def test_a_plain_tensor_goes_straight_to_the_launcher(launched: list[Tensor]) -> None:
    score = torch.tensor([1.0, 3.0, 2.0])
    library.call(OP, score, score, 2)
    assert len(launched) == 1 and launched[0] is score


def test_no_launcher_for_the_device_means_the_op(launched: list[Tensor]) -> None:
    score = torch.ones(3, device="meta")
    assert library.call(OP, score, score, 2).device.type == "meta"
    assert not launched


def test_a_dispatch_mode_sees_the_op(launched: list[Tensor]) -> None:
    score = torch.tensor([1.0, 3.0, 2.0])
    with Watching() as mode:
        assert library.call(OP, score, score, 2).tolist() == [1, 2]
    assert mode.seen == [OP] and not launched


def test_a_tensor_subclass_is_dispatched(launched: list[Tensor]) -> None:
    score = torch.tensor([1.0, 3.0, 2.0]).as_subclass(Subclass)
    assert library.call(OP, score, score, 2).tolist() == [1, 2]
    assert not launched


def test_vmap_is_dispatched(launched: list[Tensor]) -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [9.0, 7.0, 8.0]])
    found = torch.vmap(lambda score: library.call(OP, score, score, 2))(scores)
    assert found.tolist() == [[1, 2], [0, 2]] and not launched
