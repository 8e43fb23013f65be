"""Make the rows of the step table, and compare them with the targets."""

from dataclasses import asdict, dataclass, field
from typing import Literal

from bench import rows
from bench.step import contenders as c
from bench.step.contenders import Setting
from bench.step.worker import Worker
from bench.timing import medians, quartiles, take_turns

Quantity = Literal["seconds", "peak_memory"]


@dataclass
class Row:
    """Hold a contender's step at a setting; without a time where `refused` says why."""

    setting: Setting
    contender: str
    seconds: float | None = None  # median
    quartiles: tuple[float, float] | None = None
    peak_memory: int | None = None  # bytes that the steps added
    launches: int | None = None  # kernels of a step, on CUDA
    loss_difference: float | None = None  # largest relative one to the reference
    refused: str | None = None
    costs: dict[str, float] = field(default_factory=dict)  # in steps of the named contender

    def as_json(self) -> rows.Row:
        """Return it flat, for bench/rows."""
        flat = asdict(self) | asdict(self.setting) | {"paper_cost": paper_cost(self.setting)}
        del flat["setting"]
        return flat


def paper_cost(setting: Setting) -> float:
    """Return the cost that the paper prints, in plain training steps."""
    return 1 + setting.k * setting.n


def measure(measured: list[Row], workers: dict[str, Worker], rounds: int) -> None:
    """Let all workers step in turns, and fill their rows."""
    samples = take_turns({n: worker.seconds for n, worker in workers.items()}, rounds=rounds)
    seconds = medians(samples)
    for row in measured:
        if row.contender in workers:
            row.seconds = seconds[row.contender]
            row.quartiles = quartiles(samples[row.contender])
            row.peak_memory = workers[row.contender].peak_memory()
    for row in measured:
        if row.seconds:
            units = (c.VANILLA, c.VANILLA_CHANNELS_LAST, c.OURS_VANILLA, c.REFERENCE)
            row.costs = {unit: row.seconds / seconds[unit] for unit in units if unit in seconds}


@dataclass(frozen=True)
class Target:
    """Aim at ``quantity(ours) / quantity(base) <= at_most`` at one setting."""

    device: str
    arch: str
    k: float
    n: int
    base: str
    at_most: float
    quantity: Quantity = "seconds"

    @property
    def is_speedup(self) -> bool:
        """Whether it is told as times faster rather than as a share of the base's time."""
        return self.quantity == "seconds" and self.base in (c.REFERENCE, c.NAIVE, c.COMPILED)


def _over(speedup: float) -> float:
    return 1 / speedup


TARGETS = (
    Target("cpu", "wrn16_2", 0.2, 1, c.REFERENCE, _over(1.45)),
    Target("cpu", "wrn16_2", 0.6, 5, c.REFERENCE, _over(1.45)),
    Target("cpu", "wrn16_2", 0.6, 5, c.NAIVE, _over(1.65)),
    Target("cpu", "wrn16_2", 0.2, 1, c.COMPILED, _over(1.05)),
    Target("cpu", "wrn16_2", 0.2, 1, c.VANILLA, 0.90),
    Target("cpu", "wrn16_2", 0.2, 1, c.VANILLA_CHANNELS_LAST, 1.10),
    Target("cpu", "wrn16_2", 0.6, 5, c.OURS_VANILLA, 3.3),
    Target("cpu", "wrn16_2", 0.2, 1, c.REFERENCE, 1.0, "peak_memory"),
    Target("cuda", "wrn28_10", 0.2, 1, c.REFERENCE, _over(1.5)),
    Target("cuda", "resnet18", 0.2, 1, c.REFERENCE, _over(2.5)),
    Target("cuda", "wrn16_4", 0.2, 1, c.REFERENCE, _over(2.5)),
    Target("cuda", "wrn28_10", 0.6, 5, c.NAIVE, _over(1.9)),
    Target("cuda", "resnet18", 0.6, 5, c.NAIVE, _over(3.0)),
    Target("cuda", "wrn28_10", 0.2, 1, c.COMPILED, _over(1.2)),
    Target("cuda", "wrn28_10", 0.2, 1, c.VANILLA, 0.90),
    Target("cuda", "resnet18", 0.2, 1, c.VANILLA, 0.50),
    Target("cuda", "wrn28_10", 0.2, 1, c.VANILLA_CHANNELS_LAST, 1.10),
    Target("cuda", "resnet18", 0.2, 1, c.VANILLA_CHANNELS_LAST, 0.50),
    Target("cuda", "wrn28_10", 0.6, 5, c.OURS_VANILLA, 3.3),
    Target("cuda", "wrn28_10", 0.2, 1, c.REFERENCE, 1.0, "peak_memory"),
    Target("cuda", "wrn28_10", 0.6, 5, c.NAIVE, 0.85, "peak_memory"),
)


@dataclass(frozen=True)
class Verdict:
    """Hold what a target's ratio came to; None where no row says."""

    target: Target
    ratio: float | None
    ours: str = c.OURS  # the contender behind it

    def __str__(self) -> str:
        if self.ratio is None:
            return "unmeasured"
        return "reached" if self.ratio <= self.target.at_most else "missed"


def verdicts(device: str, measured: list[rows.Row]) -> list[Verdict]:
    """Compare every target of a device with rows as JSON; ours is captured where it was."""
    found = []
    for target in TARGETS:
        if target.device != device:
            continue
        here = {
            row["contender"]: row[target.quantity]
            for row in measured
            if (row["device"], row["arch"], row["k"], row["n"])
            == (target.device, target.arch, target.k, target.n)
            and row[target.quantity]
        }
        ours = next((name for name in (c.CAPTURED, c.OURS) if name in here), c.OURS)
        known = ours in here and target.base in here
        ratio = here[ours] / here[target.base] if known else None
        found.append(Verdict(target, ratio, ours))
    return found
