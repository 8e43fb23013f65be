"""Let all contenders of a setting take turns, each against the losses it has to have."""

import contextlib
import math
from collections.abc import Callable

from bench.step.contenders import Contender, Setting, untimed_bases
from bench.step.results import Row, measure
from bench.step.worker import CHECKED_STEPS, Start, Worker

# What another order of summation moves in two steps, in float32 and in bf16: most where the sign
# of an image gradient near zero flips, which the auxiliary loss sees.
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}
# Times that, for later steps, which start from other weights: replays that compute nonsense.
LATER = 5


class Crew:
    """Keep the workers of a run: on CUDA from setting to setting, as starting one is slow.

    One that is not needed would keep memory of the device. On the CPU every setting has new ones:
    there peak memory is that of a whole process.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def of(self, contenders: list[Contender], device: str) -> dict[str, Worker]:
        """Return a worker for each contender and each whose losses it needs, by name."""
        wanted = {one.name: one for one in (*untimed_bases(contenders), *contenders)}
        for name in self._workers.keys() - (wanted if device == "cuda" else {}):
            self._workers.pop(name).stop()
        for name, one in wanted.items():
            if name not in self._workers or not self._workers[name].alive:
                self._workers[name] = Worker(one, threads=1)
        return {name: self._workers[name] for name in wanted}

    def dismiss(self) -> None:
        """End their processes."""
        while self._workers:
            self._workers.popitem()[1].stop()


def take_turns(
    setting: Setting,
    contenders: list[Contender],
    workers: dict[str, Worker],
    rounds: int,
    *,
    at_once: bool = True,
    watch: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Make a row for each contender; one that fails, or whose losses differ, has no time.

    Args:
        setting: the network, its batch, k and n.
        contenders: those that run there.
        workers: a process for each, and for each of `untimed_bases`, by name.
        rounds: how often each takes its turn.
        at_once: all take their first steps at the same time.
        watch: sees the rows every few rounds.
    """
    starts: dict[str, Start] = {}
    table = {contender.name: Row(setting, contender.name) for contender in contenders}
    untimed = [base.name for base in untimed_bases(contenders)]
    for name in (*untimed, *table):
        workers[name].prepare(setting, at_once=at_once)
    for name in untimed:
        with contextlib.suppress(RuntimeError):  # said in the rows of those that need it
            starts[name] = workers[name].start()
            workers[name].release()
    for name, row in table.items():
        try:
            starts[name] = workers[name].start()
        except RuntimeError as error:
            row.refused = str(error).splitlines()[0]
    for contender in contenders:
        if contender.name in starts:
            _compare(contender, table[contender.name], starts)
    ready = {name: workers[name] for name, row in table.items() if row.refused is None}
    measure(list(table.values()), ready, rounds, watch)
    return list(table.values())


def _difference(found: Start, expected: Start) -> tuple[float, float]:
    """Return the largest relative difference of two contenders' losses: first steps, later ones."""
    steps = zip(found.losses, expected.losses, strict=True)
    of_step = [
        max(
            abs(a - b) / max(abs(b), 1e-6) if a == a else math.inf
            for a, b in zip(ours, theirs, strict=True)
        )
        for ours, theirs in steps
    ]
    return max(of_step[:CHECKED_STEPS]), max(of_step[CHECKED_STEPS:], default=0.0)


def _compare(contender: Contender, row: Row, starts: dict[str, Start]) -> None:
    base, start = contender.base, starts[row.contender]
    row.launches = start.launches
    if base not in starts:
        row.refused = f"{base}, which it has to agree with, failed"
        return
    row.loss_difference, later = _difference(start, starts[base])
    allowed = TOLERANCE[row.setting.device]
    if row.loss_difference > allowed:
        row.refused = f"its losses differ from {base}'s by {row.loss_difference:.1e}"
    elif later > LATER * allowed:
        row.refused = f"its later losses differ from {base}'s by {later:.1e}"
