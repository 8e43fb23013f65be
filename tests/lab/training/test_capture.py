"""Runs whose steps are captured: learning rates, checkpoints, and what the run says about it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.capture import capturable_optimizer, graphs
from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.training.optim import OPTIMIZERS, create_optimizer, plain_state
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import Method
from tests.capture.recording import RecordingGraphs
from tests.lab.conftest import Call, model, stop_at, summary

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> RecordingGraphs:
    """What captures the steps of the next run, on the CPU."""
    recorder = RecordingGraphs()
    monkeypatch.setitem(graphs.GRAPHS, "cpu", lambda device: recorder)
    original = Trainer.__init__

    def init(self: Trainer, *args: Any, **settings: Any) -> None:
        original(self, *args, **settings)
        recorder.method = self.method

    monkeypatch.setattr(Trainer, "__init__", init)
    return recorder


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_captured_run_and_its_continuation(
    optimizer: str,
    recorder: RecordingGraphs,
    run: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates: list[float] = []
    original = Method.__call__

    def call(self: Method, *batch: torch.Tensor) -> Any:
        result = original(self, *batch)
        rates.append(float(self.optimizer.param_groups[0]["lr"]))
        return result

    monkeypatch.setattr(Method, "__call__", call)
    settings = f"--optimizer {optimizer} --lr 0.01 --schedule onecycle --epochs 6".split()
    settings += ["--corruptions", "none"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert "steps so far were replays of a CUDA graph" in run(whole, *settings)
    assert recorder.log == ["eager"] * 3 + ["capture"] + ["replay"] * 9
    assert summary(whole)["captured"] is True
    assert len(set(rates)) == len(rates)  # each step had its own

    with monkeypatch.context() as patch:
        stop_at(patch, 5, signal.SIGTERM)
        run(halves, *settings, code=143)
    group = read(halves / "checkpoint.pt")["optimizer"]["param_groups"][0]
    assert isinstance(group["lr"], float) and group["fused"] is None
    run(halves, *settings, "--resume")
    assert model(halves) == model(whole)


def test_captured_steps_see_fresh_augmentations(
    recorder: RecordingGraphs, run: Call, tmp_path: Path
) -> None:
    flags = "--method vanilla --augment crop-flip+augmix --jsd 12 --epochs 4 --corruptions none"
    found = {}
    for capture in ("auto", "off"):
        run(tmp_path / capture, *flags.split(), "--capture", capture)
        found[capture] = read(tmp_path / capture / "checkpoint.pt")["model"]
        assert recorder.log == ["eager"] * 3 + ["capture"] + ["replay"] * 5
    for name, value in found["off"].items():
        torch.testing.assert_close(found["auto"][name], value, rtol=1e-4, atol=1e-6)


def test_averaged_weights_beside_captured_steps(
    recorder: RecordingGraphs, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a rate for each layer: a replayed step's weights are averaged, not stale ones."""
    seen: list[torch.Tensor] = []
    original = Method.__call__

    def call(self: Method, *batch: torch.Tensor) -> Any:
        result = original(self, *batch)
        seen.append(self.model.get_parameter("fc.weight").detach().double().clone())
        return result

    monkeypatch.setattr(Method, "__call__", call)
    run(tmp_path, "--ema", "0.5", "--layer-decay", "0.8", "--corruptions", "none")
    assert recorder.log == ["eager"] * 3 + ["capture"] + ["replay"] * 3
    mean = seen[0]
    for weights in seen[1:6]:  # a seventh step draws the examples
        mean = (mean + weights) / 2
    found = read(tmp_path / "checkpoint.pt")["ema"]["model"]["fc.weight"]
    torch.testing.assert_close(found.double(), mean, rtol=1e-5, atol=1e-7)


def test_off(recorder: RecordingGraphs, run: Call, tmp_path: Path) -> None:
    run(tmp_path, "--capture", "off", "--corruptions", "none")
    assert recorder.log == [] and summary(tmp_path)["captured"] is False


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_loads_with_and_without_captures(name: str) -> None:
    """What a captured run saves continues as plain, and the reverse, to the same weights."""

    def steps(first: bool, second: bool) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 7))
        state: dict[str, Any] | None = None
        for captured in (first, second):
            optimizer = create_optimizer(name, [weight], lr=0.1, weight_decay=0.01)
            if state is not None:
                optimizer.load_state_dict(state)
            if captured:
                capturable_optimizer(optimizer, torch.device("cpu"))
            for _ in range(3):
                weight.grad = weight.detach().square() + 0.1
                optimizer.step()
            state = plain_state(optimizer)
            assert state["param_groups"][0]["fused"] is None
            assert state["param_groups"][0]["lr"] == pytest.approx(0.1)
        return weight.detach()

    expected = steps(False, False)
    for first, second in ((True, False), (False, True), (True, True)):
        torch.testing.assert_close(steps(first, second), expected)
