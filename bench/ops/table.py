"""Make rows of measurements, and tables of rows, for the terminal and the docs."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import rows
from bench.ops import targets
from bench.ops.cases import Case, cases
from bench.ops.peers import absent
from bench.pages import link, page_of
from bench.timing import Comparison, geometric_mean, low_to_high, verdict
from entprop_fast.lab.report.text import markdown_table

KEYS = ("op", "layout", "dtype", "cache", "memory")
Key = tuple[str, ...]
KEPT = "kept"


@dataclass(frozen=True)
class Measured:
    """Hold one case with its caches warm or cold.

    Attributes:
        kept: the process keeps freed memory, as training runs do and PyTorch by itself does not.
        peak_memory: of each contender: `bench.memory.peaks_of`.
    """

    case: Case
    cache: str
    kept: bool
    comparison: Comparison
    peak_memory: dict[str, int] | None = None


# What is measured with freed memory returned and kept; CUDA's allocator always keeps it.
MEMORY = {"cpu": (False, True), "cuda": (False,)}
# By device type.
MEASURED: dict[str, list[Measured]] = defaultdict(list)


def name_of(device: str) -> str:
    """Return the name under which the rows of a device are kept."""
    return f"ops_{device}"


def _verdict(ratio: float, target: float | None) -> str:
    return verdict(ratio, target, "slower than eager")


def row_of(measured: Measured, bandwidth: float) -> rows.Row:
    """Make a row of a measurement, with everything that a table shows of it."""
    case, comparison = measured.case, measured.comparison
    ratio = comparison.ratio("eager")
    target = None if measured.kept else case.target  # targets are for PyTorch as it comes
    dtype = str(case.dtype).removeprefix("torch.")
    return {
        "op": case.op,
        "layout": case.layout,
        "dtype": dtype,
        "cache": measured.cache,
        "memory": KEPT if measured.kept else "as it comes",
        "shape": list(case.shape),
        "ratio": ratio,
        "target": target,
        "verdict": _verdict(ratio, target),
        "best_peer": comparison.best_peer(),
        "best_ratio": comparison.ratio(comparison.best_peer()),
        "seconds": comparison.seconds,
        "quartiles": comparison.quartiles,
        "peak_memory": measured.peak_memory,
        "bytes_moved": case.bytes_moved,
        "copy_bandwidth": bandwidth,
        "of_copy": case.bytes_moved / comparison.seconds["ours"] / bandwidth,
        "absent": absent(case.op, case.layout, dtype, list(comparison.seconds)),
    }


def is_whole(device: str) -> bool:
    """Return whether every case was measured; a part does not replace the committed rows."""
    wanted = {(case.name, kept) for case in cases(device) for kept in MEMORY[device]}
    return {(one.case.name, one.kept) for one in MEASURED[device]} == wanted


def geometric_means(measured: Iterable[rows.Row]) -> dict[Key, tuple[float, float | None]]:
    """Return, by `KEYS`, the geometric mean of the ratios over eager, and the target."""
    ratios: dict[Key, list[float]] = defaultdict(list)
    targets: dict[Key, float | None] = {}
    for row in measured:
        key = tuple(row[name] for name in KEYS)
        ratios[key].append(row["ratio"])
        targets[key] = row["target"]
    return {key: (geometric_mean(values), targets[key]) for key, values in ratios.items()}


def _cells(row: rows.Row) -> list[str]:
    others = [
        f"{seconds / row['seconds']['ours']:.2f} {name}"
        for name, seconds in row["seconds"].items()
        if name not in ("ours", "eager")
    ]
    return [
        *(row[name] for name in KEYS),
        "x".join(map(str, row["shape"])),
        f"{row['ratio']:.2f}",
        "" if row["target"] is None else f"{row['target']:g}",
        row["verdict"],
        f"{row['seconds']['ours'] * 1e3:.3f}",
        f"{row['of_copy']:.0%}",
        ", ".join(others),
    ]


def _spread(name: str, row: rows.Row) -> str:
    return low_to_high(row.get("quartiles", {}).get(name), 3)


def _peaks(row: rows.Row) -> str:
    found = row.get("peak_memory")
    return f"{found['ours'] / 2**20:.1f}, {found['eager'] / 2**20:.1f}" if found else ""


# What older rows do not hold: a column is there if one row has it.
MORE: dict[str, Callable[[rows.Row], str]] = {
    "ours, quartiles": partial(_spread, "ours"),
    "eager, quartiles": partial(_spread, "eager"),
    "peak MiB, ours and eager": _peaks,
}
PEAK_NOTE = "Peak MiB: what a call's tensors take at most, beside its inputs. "
HEAD = [*KEYS, "shape", "ratio", "target", "", "ours ms", "of copy", "over others"]


def _mean_cells(key: Key, mean: float, target: float | None) -> list[str]:
    aim = "" if target is None else f"{target:g}"
    return [*key, "geometric mean", f"{mean:.2f}", aim, _verdict(mean, target), "", "", ""]


def table(measured: list[rows.Row]) -> list[list[str]]:
    """Return the cells: a head, a line a case, a line a geometric mean."""
    means = geometric_means(measured).items()
    more = {name: cell for name, cell in MORE.items() if any(map(cell, measured))}
    lines = [[*_cells(row), *(cell(row) for cell in more.values())] for row in measured]
    lines += [_mean_cells(key, *mean) + [""] * len(more) for key, mean in means]
    return [[*HEAD, *more], *lines]


def markdown(lines: list[list[str]]) -> str:
    """Write a table for the docs; the geometric means in bold."""
    head, *body = lines
    bold = [[f"**{cell}**" if cell else "" for cell in line] for line in body]
    shown = [b if "geometric mean" in line else line for line, b in zip(body, bold, strict=True)]
    return markdown_table([head, *shown], escaped=True)


def section(name: str, page: Path) -> str:
    """Write every row called `name`, then their geometric means; on a GPU its targets first."""
    on_gpu = name == name_of("cuda")
    if on_gpu and not rows.there(name):
        return f"Not measured yet: `pytest bench/ops` writes the rows.\n\n{targets.table([])}"
    measured = rows.comparable(rows.read(name))
    first = measured[0]
    note = (
        "Ratios of medians, torch eager over ours, contenders in turns in one process"
        f"{', 1 thread' if name == 'ops_cpu' else ''}; `of copy`: bytes that have to move, over "
        f"the time, as a share of copying ({first['copy_bandwidth'] / 1e9:.1f} GB/s, measured on "
        "tensors too large for the caches, so more than 100 % where a case fits them); `memory`: "
        "whether the process returns freed memory to the system, as PyTorch does by itself and the "
        "targets mean, or keeps it, as a training run of ours has it do. "
        f"{_peers_note(measured) if on_gpu else ''}"
        f"{PEAK_NOTE if any(map(_peaks, measured)) else ''}{rows.origin(first)}."
    )
    shown = f"{markdown(table(measured))}\n\n{note}"
    return f"{targets.table(measured)}\n\n{shown}" if on_gpu else shown


def _peers_note(measured: list[rows.Row]) -> str:
    """Say what eager is in float16, and who should have been there and was not."""
    names = dict.fromkeys(name for row in measured for name in row.get("absent", ()))
    missing = f"; not there, or not able to: {', '.join(names)}" if names else ""
    return (
        "In float16 *eager* is PyTorch's own norm with cuDNN off, *cudnn* the one that PyTorch "
        f"takes there by itself, and nothing is compiled{missing}. "
    )


def summary(name: str, page: Path) -> str:
    """Write the geometric means of the rows called `name` alone."""
    measured = rows.comparable(rows.read(name))
    first = measured[0]
    lines = [["op", "layout", "times torch eager", "worst shape", "target", "", "memory kept"]]
    means = geometric_means(measured)
    for key, (mean, target) in means.items():
        *what, memory = key
        if memory == KEPT:
            continue
        worst = min(row["ratio"] for row in measured if tuple(row[k] for k in KEYS) == key)
        kept, _ = means[*what, KEPT]
        aim = f"{target:g}" if target else ""
        said = _verdict(mean, target)
        lines.append([*what[:2], f"{mean:.2f}", f"{worst:.2f}", aim, said, f"{kept:.2f}"])
    note = (
        "Geometric means over the shapes of "
        f"[the whole table]({link(page, page_of(name))}): forward "
        "and backward, float32, one thread. Memory kept: both sides without the page faults that "
        "PyTorch has by itself, as in a training run. Made by `pytest bench/ops` "
        f"({rows.origin(first)})."
    )
    return f"{markdown_table(lines)}\n\n{note}"
