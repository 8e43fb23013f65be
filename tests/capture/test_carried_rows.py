"""Captured steps of entprop_pipelined: whatever waits, replays are the eager steps."""

import copy

import pytest
import torch

from entprop_fast import Method
from entprop_fast.capture import capturable_optimizer
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins, make
from tests.methods.support import assert_equal, batch, dual_network, everything, generator

NAME = "entprop_pipelined"


def test_an_epochs_last_batch(recorder: RecordingGraphs) -> None:
    """It takes along many rows and leaves few; what follows takes few and leaves many."""
    twins = Twins(recorder, NAME, k=0.5)
    twins.step(6)
    assert twins.said() == "eeeecrr"
    for _ in range(3):
        twins.step(1, rows=5)
        twins.step(1)
        assert twins.said() == "ee"  # neither has been seen often
        twins.step(3)
        assert twins.said() == "rrr"
    twins.step(1, rows=5)
    assert twins.said() == "cr"
    twins.step(1)
    assert twins.said() == "cr"
    for _ in range(2):  # three graphs, in turns
        twins.step(2)
        twins.step(1, rows=5)
        twins.step(3)
    assert twins.said() == "rrrrrr" * 2
    assert twins.captured.captures.why_eager is None


def test_a_larger_batch_moves_the_memory(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder, NAME, k=0.5)
    twins.step(6)
    twins.step(1, rows=20)
    twins.step(1)
    twins.said()
    twins.step(4)  # the graph read what is no longer used: one step to settle, and another
    assert twins.said() == "ecrrr"


def test_rows_that_are_dropped(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder, NAME)
    twins.step(6)
    twins.both(lambda method: vars(method).update(waiting=0))
    assert twins.step()[1] == 0
    assert twins.step()[1] > 0
    assert twins.said() == "eeeecrr" + "e" + "r"


@pytest.mark.parametrize("rows", [12, 5])  # of the batch before the state was saved
def test_a_state_is_loaded_under_a_graph(recorder: RecordingGraphs, rows: int) -> None:
    twins = Twins(recorder, NAME, k=0.5)
    twins.step(6)
    other = make(NAME, k=0.5, generator=generator(9))
    recorder.method = other
    capturable_optimizer(other.optimizer, torch.device("cpu"))
    other.capture = "off"
    for i, size in enumerate((12, rows)):
        other(*batch(size, seed=70 + i, dtype=torch.float32))
    recorder.method = twins.captured

    def load(method: Method) -> None:
        method.load_state_dict(copy.deepcopy(other.state_dict()))

    twins.said()
    twins.both(load)
    assert_equal(everything(twins.captured)["method"], other.state_dict())
    twins.step(3)
    assert twins.said() == ("rrr" if rows == 12 else "err")


def test_an_option_changes_under_a_graph(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder, NAME, k=0.5)
    twins.step(6)
    twins.said()
    twins.both(lambda method: setattr(method, "k", 0.25))
    twins.both(lambda method: setattr(method, "aux_labels", "mixed"))
    twins.step(8)
    # One step to settle takes along as many as before; then fewer wait, of which no step is known.
    assert twins.said() == "e" + "eeecrrrr"


@pytest.mark.parametrize("load", [False, True])
def test_a_parameter_whose_first_gradient_comes_late(recorder: RecordingGraphs, load: bool) -> None:
    """Fused SGD wants a velocity of all parameters or of none."""
    model = dual_network(dtype=torch.float32)
    method, plain = make(model=model), make()
    recorder.method = method
    for one in (method, plain):
        one.model.get_parameter("bn1.aux_bn.weight").requires_grad_(False)
    plain.capture = "off"
    for seed in range(6):
        if seed == 3:
            for one in (method, plain):
                one.model.get_parameter("bn1.aux_bn.weight").requires_grad_(True)
            if load:
                method.optimizer.load_state_dict(copy.deepcopy(method.optimizer.state_dict()))
        results = [list(one(*batch(seed=seed, dtype=torch.float32))) for one in (method, plain)]
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
