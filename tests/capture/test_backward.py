"""`method.backward` as a replay: the same results and gradients, whatever `.grad` held before."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast.capture import capturable_optimizer
from entprop_fast.methods import METHODS
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins, make
from tests.methods.support import assert_equal, batch, everything

NAMES = [name for name in METHODS if name != "free_at"]


class Backwards(Twins):
    """Twins whose batches go through `backward`."""

    def __init__(self, recorder: RecordingGraphs, name: str = "entprop", **o: Any) -> None:
        super().__init__(recorder, name, **o)
        capturable_optimizer(self.captured.optimizer, torch.device("cpu"))  # as its twin's is

    def take(self, times: int = 1, *, weight: float = 1.0, rows: int = 12) -> None:
        """The same batch to both, after which everything must agree."""
        for _ in range(times):
            given = batch(rows, seed=self.steps, dtype=torch.float32)
            self.steps += 1
            default = torch.get_rng_state()
            expected = self.eager.backward(*given, weight=weight)
            torch.set_rng_state(default)
            result = self.captured.backward(*given, weight=weight)
            assert_equal(list(result), list(expected))
            self.compare()

    def compare(self) -> None:
        close, exact = everything(self.captured), everything(self.eager)
        # Passes add to a sum of their own first, which is then added to what was there.
        assert_equal(close, exact, tolerance=1e-6)

    def clear(self, *, to_none: bool = True) -> None:
        for method in (self.captured, self.eager):
            method.optimizer.zero_grad(set_to_none=to_none)


@pytest.mark.parametrize("name", NAMES)
def test_every_method(recorder: RecordingGraphs, name: str) -> None:
    twins = Backwards(recorder, name)
    warm = 4 if name == "entprop_pipelined" else 3
    for _ in range(7):
        twins.clear()
        twins.take()
        for method in (twins.captured, twins.eager):
            method.apply_gradients()
        twins.compare()
    assert twins.said() == "e" * warm + "c" + "r" * (7 - warm)
    assert twins.captured.captures.replays == 7 - warm


def test_gradients_add_up(recorder: RecordingGraphs) -> None:
    """To zeros, to None, to what another shape's or weight's graph left, to the caller's own."""
    twins = Backwards(recorder, generator=None)
    for rows in (12, 8):
        twins.take(4, rows=rows)
    twins.take(4, weight=0.25)
    twins.clear()
    twins.take(3)
    twins.clear(to_none=False)
    twins.take(2)
    twins.take(1, rows=8)
    twins.take(2, weight=0.25)
    for method in (twins.captured, twins.eager):
        for parameter in method.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
    twins.take(2)
    assert twins.said() == "eeecr" * 3 + "r" * 10


def test_a_parameter_that_no_loss_reached_keeps_what_it_has(recorder: RecordingGraphs) -> None:
    twins = Backwards(recorder, "vanilla")
    twins.take(5)
    aux = [p for name, p in twins.captured.model.named_parameters() if "aux" in name]
    assert aux and all(parameter.grad is None for parameter in aux)
    mine = aux[0].grad = torch.ones_like(aux[0])
    given = batch(dtype=torch.float32)
    twins.captured.backward(*given)
    assert aux[0].grad is mine and mine.eq(1).all()


def test_the_first_replay_copies_no_gradient(recorder: RecordingGraphs) -> None:
    twins = Backwards(recorder)
    parameters = list(twins.captured.model.parameters())
    kept: list[list[Tensor | None]] = []
    for _ in range(6):
        twins.clear()
        twins.take()
        kept.append([parameter.grad for parameter in parameters])
    assert all(one is other for one, other in zip(kept[-1], kept[-2], strict=True))


def test_steps_and_backward_have_graphs_of_their_own(recorder: RecordingGraphs) -> None:
    twins = Backwards(recorder)
    twins.step(5)
    twins.clear()
    twins.take(5)
    twins.step(2)
    assert twins.said() == "eeecrr" + "eeecrr" + "rr"


def test_any_optimizer(recorder: RecordingGraphs) -> None:
    """Its step is the caller's; its hooks and the values of its groups do not count."""

    def rmsprop(model: nn.Module) -> torch.optim.Optimizer:
        made = torch.optim.RMSprop(model.parameters(), lr=0.01)
        made.register_step_post_hook(lambda *_: None)
        return made

    method: Any = make(optimizer=rmsprop)
    recorder.method = method
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(8):
            method.optimizer.zero_grad()
            method.backward(*batch(seed=seed, dtype=torch.float32))
            method.optimizer.param_groups[0]["alpha"] = 0.9 + seed / 100
            method.optimizer.step()
    assert recorder.log.count("replay") == 5
    assert method.optimizer.param_groups[0]["lr"] == 0.01  # left as it was
    assert method.captures.why_eager is None


def test_a_refused_batch_changes_nothing(recorder: RecordingGraphs) -> None:
    twins = Backwards(recorder)
    twins.take(5)
    before = everything(twins.captured)
    with pytest.raises(ValueError, match="labels"):
        twins.captured.backward(batch(dtype=torch.float32)[0], torch.full((12,), 99))
    with pytest.raises(ValueError, match="weight"):
        twins.captured.backward(*batch(dtype=torch.float32), weight=0)
    assert_equal(everything(twins.captured), before)
    twins.take()


def test_what_cannot_be_captured_is_told_and_taken(recorder: RecordingGraphs) -> None:
    twins = Backwards(recorder)
    recorder.fails = RuntimeError("operation not permitted\nlong story")
    with pytest.warns(RuntimeWarning, match=r"backward is not captured: .*permitted\); it runs"):
        twins.take(5)
    assert twins.said() == "eeecc" and twins.captured.captures.replays == 0
