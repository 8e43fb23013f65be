"""Make the rows of the step table."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench import rows
from bench.step.contenders import Setting
from bench.step.worker import Worker
from bench.timing import medians, quartiles, take_turns

# After so many rounds the rows so far are shown, for a run that is cut off later.
SHOWN_AFTER = 3


@dataclass
class Row:
    """Hold a contender's step at a setting; without a time where `refused` says why."""

    setting: Setting
    contender: str
    seconds: float | None = None  # median
    quartiles: tuple[float, float] | None = None
    rounds: int = 0  # turns behind the median
    peak_memory: int | None = None  # bytes: `Worker.peak_memory`
    launches: int | None = None  # kernels of a step, on CUDA
    loss_difference: float | None = None  # largest relative one to the reference
    refused: str | None = None

    def as_json(self) -> rows.Row:
        """Return it flat, for bench/rows."""
        flat = asdict(self) | asdict(self.setting) | {"paper_cost": paper_cost(self.setting)}
        del flat["setting"]
        return flat


def paper_cost(setting: Setting) -> float:
    """Return the cost that the paper prints, in plain training steps."""
    return 1 + setting.k * setting.n


def measure(
    measured: list[Row],
    workers: dict[str, Worker],
    rounds: int,
    watch: Callable[[list[Row]], None] = lambda rows: None,
) -> None:
    """Let all workers step in turns, and fill their rows, which `watch` sees every few rounds."""
    timers = {name: worker.seconds for name, worker in workers.items()}
    samples: dict[str, list[float]] = {name: [] for name in workers}
    for done in range(0, rounds, SHOWN_AFTER):
        taken = take_turns(timers, rounds=min(SHOWN_AFTER, rounds - done))
        for name, seconds in taken.items():
            samples[name] += seconds
        middle = medians(samples)
        for row in measured:
            if row.contender in workers:
                turns = samples[row.contender]
                row.seconds, row.rounds = middle[row.contender], len(turns)
                row.quartiles = quartiles(turns)
                row.peak_memory = workers[row.contender].peak_memory()
        watch(measured)
