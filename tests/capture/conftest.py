"""Steps on the CPU that are captured as if it had CUDA graphs."""

import pytest
import torch

from entprop_fast.capture import graphs
from tests.capture.recording import RecordingGraphs


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> RecordingGraphs:
    """What captures on the CPU; set its `method`."""
    recorder = RecordingGraphs()

    def made(device: torch.device) -> RecordingGraphs:
        assert device == torch.device("cpu")
        return recorder

    monkeypatch.setitem(graphs.GRAPHS, "cpu", made)
    return recorder
