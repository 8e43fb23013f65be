"""Sum an epoch's step results on the host without holding up the device."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from entprop_fast.devices import widest_float
from entprop_fast.lab import job
from entprop_fast.lab.training import run_record
from entprop_fast.methods import StepResult

READ_EVERY = 50  # steps between two reads of the device,
READ_SECONDS = 1.0  # or less, where steps are so slow that a synchronisation costs nothing

_FINITE = ("loss", "aux_loss")


class Meter:
    """Collect results as device tensors and read them together.

    The sums do not depend on when they were read, so a resumed epoch ends with the same bits.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[int, int, int, int, StepResult]] = []
        self._last_read = time.monotonic()
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(
        self,
        step: int,
        images: int,
        result: StepResult,
        loss_rows: int | None = None,
        main_rows: int | None = None,
    ) -> bool:
        """Take the result of global step `step`; True when it is time to `read`.

        Args:
            step: of the run.
            images: of this process.
            result: of them.
            loss_rows: rows that the losses are divided by, those of all processes where each has
                its share; None for `images`.
            main_rows: how many of the images went through the main pass; None for all.
        """
        divided = images if loss_rows is None else loss_rows
        counted = images if main_rows is None else main_rows
        self._pending.append((step, images, divided, counted, result))
        if len(self._pending) >= READ_EVERY:
            return True
        alone = job.current().world == 1  # several ranks read at the same step, whatever the clock
        return alone and time.monotonic() - self._last_read >= READ_SECONDS

    def read(self) -> None:
        """Copy the pending results from the device, in one synchronisation; on all ranks together.

        Raises:
            NotFinite: a loss of any rank is NaN or infinite; the message names the first such step.
        """
        if not self._pending:
            return
        wide = widest_float(self._pending[0][-1].loss.device)
        columns = [torch.stack(column).to(wide) for column in zip(*self._results(), strict=True)]
        values = torch.stack(columns, dim=1).tolist()  # [steps, fields]
        named = [dict(zip(StepResult._fields, row, strict=True)) for row in values]
        run_record.agree(self._first_broken(named))
        for (_, images, loss_rows, main_rows, _), result in zip(self._pending, named, strict=True):
            self._count("images", images, 1)
            self._count("correct", result.pop("correct"), main_rows)
            for name, value in result.items():
                if math.isfinite(value):  # the entropy of an empty group is NaN
                    rows = loss_rows if name in _FINITE else images
                    self._count(name, value * rows, images)
        self._pending.clear()
        self._last_read = time.monotonic()

    def mean(self, name: str) -> float:
        """Return the mean over the images of the steps read so far; NaN without any."""
        count = self._counts.get(name, 0)
        return self._sums[name] / count if count else math.nan

    def means(self) -> dict[str, float]:
        """Return both losses, both groups' entropy and the accuracy (percent) as trained."""
        return {name: self.mean(name) for name in StepResult._fields if name != "correct"} | {
            "batch_accuracy": 100 * self.mean("correct")
        }

    @property
    def images(self) -> int:
        """Images of the steps read so far."""
        return int(self._sums.get("images", 0))

    def of_all(self) -> Meter:
        """Return the sums of all processes of a job, which all call this; `read` first."""
        made = Meter()
        for state in job.current().gather(self.state_dict()):
            for name, count in state["counts"].items():
                made._count(name, state["sums"][name], count)
        return made

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of what was read; `read` first."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def _first_broken(self, results: list[dict[str, float]]) -> tuple[int, str] | None:
        for (step, *_), result in zip(self._pending, results, strict=True):
            for name in _FINITE:
                if not math.isfinite(result[name]):
                    return step, f"{name.replace('_', ' ')} is {result[name]} at step {step}"
        return None

    def _results(self) -> list[StepResult]:
        return [result for *_, result in self._pending]

    def _count(self, name: str, value: float, weight: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._counts[name] = self._counts.get(name, 0) + weight
