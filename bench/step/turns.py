"""Let all contenders of a setting take turns, each against the losses it has to have."""

import math

from bench.step.contenders import Contender, Setting
from bench.step.results import Row, measure
from bench.step.worker import Start, Worker

# What another order of summation moves in two steps, in float32 and in bf16: most where the sign
# of an image gradient near zero flips, which the auxiliary loss sees.
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}


class Crew:
    """Keep the workers of a run: on CUDA one a contender for all of it, as starting one is slow.

    On the CPU every setting has new ones: there peak memory is that of a whole process.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def of(self, contenders: list[Contender], device: str) -> dict[str, Worker]:
        """Return a worker for each contender, by name."""
        if device == "cpu":
            self.dismiss()
        for one in contenders:
            if one.name not in self._workers or not self._workers[one.name].alive:
                self._workers[one.name] = Worker(one, threads=1)
        return {one.name: self._workers[one.name] for one in contenders}

    def dismiss(self) -> None:
        """End their processes."""
        while self._workers:
            self._workers.popitem()[1].stop()


def take_turns(
    setting: Setting, contenders: list[Contender], workers: dict[str, Worker], rounds: int
) -> list[Row]:
    """Make a row for each contender; one that fails, or whose losses differ, has no time.

    Args:
        setting: the network, its batch, k and n.
        contenders: those that run there.
        workers: a process for each, by name.
        rounds: how often each takes its turn.
    """
    starts: dict[str, Start] = {}
    table = {contender.name: Row(setting, contender.name) for contender in contenders}
    for name in table:
        workers[name].prepare(setting)
    for name, row in table.items():
        try:
            starts[name] = workers[name].start()
        except RuntimeError as error:
            row.refused = str(error).splitlines()[0]
    for contender in contenders:
        if contender.name in starts:
            _compare(contender, table[contender.name], starts)
    ready = {name: workers[name] for name, row in table.items() if row.refused is None}
    measure(list(table.values()), ready, rounds)
    return list(table.values())


def _difference(found: Start, expected: Start) -> float:
    """Return the largest relative difference of the losses of two contenders' first steps."""
    pairs = zip(sum(found.losses, ()), sum(expected.losses, ()), strict=True)
    return max(abs(a - b) / max(abs(b), 1e-6) if a == a else math.inf for a, b in pairs)


def _compare(contender: Contender, row: Row, starts: dict[str, Start]) -> None:
    base, start = contender.base, starts[row.contender]
    row.launches = start.launches
    if base not in starts:
        row.refused = f"{base}, which it has to agree with, failed"
        return
    row.loss_difference = _difference(start, starts[base])
    if row.loss_difference > TOLERANCE[row.setting.device]:
        row.refused = f"its losses differ from {base}'s by {row.loss_difference:.1e}"
