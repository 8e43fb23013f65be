"""FOUND W10: a captured step does not outlive the head that it was captured with."""

import pytest
import torch
from torch import nn

from entprop_fast import Method
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins
from tests.methods.support import CLASSES, assert_equal, batch, everything


def replace_head(method: Method) -> None:
    torch.manual_seed(3)
    method.model.head = nn.Linear(6, CLASSES)


def hold_head(method: Method) -> None:
    method.optimizer.add_param_group({"params": method.model.get_submodule("head").parameters()})


@pytest.mark.parametrize("check", [None, False])
def test_a_head_that_the_optimizer_does_not_hold(
    recorder: RecordingGraphs, check: bool | None
) -> None:
    """Noticed also where no value of a batch is looked at, as on a GPU."""
    twins = Twins(recorder, check=check)
    twins.step(5)
    assert twins.said() == "eeecrr"
    twins.both(replace_head)
    for method in (twins.captured, twins.eager):
        before = everything(method)
        with pytest.raises(ValueError, match=r"optimizer lacks 2 .*model\.head\.weight"):
            method(*batch(dtype=torch.float32))
        assert_equal(everything(method), before)
    recorder.log.clear()
    twins.both(hold_head)
    twins.step(4)
    assert twins.said() == "ecrrr"
