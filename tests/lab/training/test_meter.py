from __future__ import annotations

import math
import time

import pytest
import torch

from entprop_fast.lab.training.errors import RunFailed
from entprop_fast.lab.training.meter import READ_EVERY, READ_SECONDS, Meter
from entprop_fast.methods import StepResult


def result(loss: float, *, aux: float = 0.0, correct: int = 1, selected: float = 1.0) -> StepResult:
    floats = torch.tensor([loss, aux, selected, 0.5])
    return StepResult(floats[0], floats[1], torch.tensor(correct), floats[2], floats[3])


def test_means_are_over_images_and_leave_out_empty_groups() -> None:
    meter = Meter()
    meter.add(1, 3, result(1.0, correct=3, selected=math.nan))
    meter.add(2, 1, result(5.0, correct=0, selected=4.0))
    meter.read()
    means = meter.means()
    assert (means["loss"], means["entropy_selected"], means["batch_accuracy"]) == (2.0, 4.0, 75.0)
    meter.add(3, 20, result(1.0, correct=2), main_rows=4)  # accuracy is over the main pass's
    meter.read()
    assert (meter.means()["batch_accuracy"], meter.images) == (100 * 5 / 8, 24)
    assert all(math.isnan(Meter().means()[name]) for name in ("loss", "batch_accuracy"))


def test_adding_reads_no_value() -> None:
    meter, values = Meter(), torch.zeros(5, device="meta")
    meter.add(1, 3, StepResult(*values.unbind()))  # a meta tensor has none to read
    with pytest.raises((RuntimeError, NotImplementedError)):
        meter.read()


def test_it_asks_to_be_read_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    meter = Meter()
    assert [meter.add(step, 1, result(1.0)) for step in range(READ_EVERY)].index(True) == (
        READ_EVERY - 1
    )
    meter.read()
    assert not meter.add(0, 1, result(1.0))
    clock[0] += READ_SECONDS
    assert meter.add(1, 1, result(1.0))
    meter.read()
    assert not meter.add(2, 1, result(1.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["loss", "aux loss"])
def test_the_first_step_whose_loss_is_not_finite_is_named(bad: float, which: str) -> None:
    meter = Meter()
    for step in range(5, 12):
        value = bad if step >= 8 else 1.0
        results = result(value) if which == "loss" else result(1.0, aux=value)
        meter.add(step, 1, results)
    with pytest.raises(RunFailed, match=f"^{which} is {bad} at step 8$"):
        meter.read()


def test_when_it_is_read_does_not_change_a_bit() -> None:
    losses = torch.rand(20, generator=torch.Generator().manual_seed(1)).tolist()
    once, often = Meter(), Meter()
    for step, loss in enumerate(losses):
        once.add(step, 3, result(loss))
        often.add(step, 3, result(loss))
        often.read()
        resumed = Meter()
        resumed.load_state_dict(often.state_dict())
        often = resumed
    once.read()
    assert once.means() == often.means()


def test_shares_of_processes_add_up() -> None:
    """``ranks="exact"``: 3 and 2 rows of 5, whose mean loss is the sum of two shares."""
    meters = [Meter() for _ in range(2)]
    for meter, images, share in zip(meters, (3, 2), (0.5, 0.25), strict=True):
        meter.add(1, images, result(share, correct=images), 5, images)
        meter.read()
    sums, counts = zip(
        *((m.state_dict()["sums"], m.state_dict()["counts"]) for m in meters), strict=True
    )
    assert sum(s["loss"] for s in sums) / sum(c["loss"] for c in counts) == 0.75
    assert sum(s["correct"] for s in sums) == sum(c["correct"] for c in counts) == 5
