"""FOUND C2: captured steps stay with the original; a copy captures anew."""

import copy
import pickle

import pytest
import torch

from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins, make
from tests.methods.support import batch


def test_captured_steps_belong_to_the_original(recorder: RecordingGraphs) -> None:
    """FOUND C2: the copy warms up and captures for itself; the original's graphs stay."""
    twins = Twins(recorder)
    twins.step(5)
    assert twins.said() == "eeecrr"
    original, other = twins.captured, copy.deepcopy(twins.captured)
    assert other.captures is not original.captures and other.captures.replays == 0
    recorder.method = other
    twins.captured = other
    twins.step(5)
    assert twins.said() == "eeecrr"
    assert original.captures.replays == other.captures.replays == 2


def test_a_pickle_of_another_device_loads(recorder: RecordingGraphs) -> None:
    """A method that insists on capturing is refused at its call, not while it is loaded."""
    method = make("vanilla", capture="on")
    method.optimizer = torch.optim.RMSprop(method.model.parameters())  # which none captures
    other = pickle.loads(pickle.dumps(method))
    with pytest.raises(RuntimeError, match="RMSprop"):
        other(*batch(dtype=torch.float32))
