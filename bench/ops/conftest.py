"""The table at the end of the run, and its rows as JSON lines."""

import math
from collections import defaultdict

import pytest

from bench import rows
from bench.ops.cases import Case
from bench.ops.timing import Comparison, copy_bandwidth

MEASURED: list[tuple[Case, Comparison]] = []


def geometric_means() -> dict[tuple[str, str], tuple[float, float]]:
    """(op, layout) -> (geometric mean of the ratios over torch eager, target)."""
    ratios: dict[tuple[str, str], list[float]] = defaultdict(list)
    targets = {}
    for case, comparison in MEASURED:
        ratios[case.op, case.layout].append(comparison.ratio("eager"))
        targets[case.op, case.layout] = case.target
    return {
        key: (math.exp(sum(map(math.log, values)) / len(values)), targets[key])
        for key, values in ratios.items()
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and write what was measured."""
    if not MEASURED:
        return
    bandwidth = copy_bandwidth()
    write = terminalreporter.write_line
    write(f"\nratio of medians, torch eager over ours, 1 thread; copy {bandwidth / 1e9:.1f} GB/s")
    write(
        f"{'op':18} {'layout':14} {'shape':20} {'ratio':>6} {'ours ms':>9} {'of copy':>8}  others"
    )
    results = []
    for case, comparison in MEASURED:
        ours = comparison.seconds["ours"]
        share = case.bytes_moved / ours / bandwidth
        others = {
            name: round(comparison.ratio(name), 2)
            for name in comparison.seconds
            if name not in ("ours", "eager")
        }
        shape = "x".join(map(str, case.shape))
        write(
            f"{case.op:18} {case.layout:14} {shape:20} {comparison.ratio('eager'):6.2f} "
            f"{ours * 1e3:9.3f} {share:8.0%}  {others or ''}"
        )
        results.append(
            {
                "op": case.op,
                "layout": case.layout,
                "shape": list(case.shape),
                "ratio": comparison.ratio("eager"),
                "target": case.target,
                "seconds": comparison.seconds,
                "bytes_moved": case.bytes_moved,
                "copy_bandwidth": bandwidth,
            }
        )
    for (op, layout), (mean, target) in geometric_means().items():
        verdict = "reached" if mean >= target else "missed"
        write(f"{op:18} {layout:14} geometric mean {mean:.2f}, target {target}: {verdict}")
    write(f"rows: {rows.write('ops_cpu', results)}")
