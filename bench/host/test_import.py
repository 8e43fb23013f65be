"""`pytest bench/host`: what `import entprop_fast` adds to `import torch`; 100 ms at most are meant.

In processes of their own, on a machine that does nothing else, with bytecode written before.
"""

import subprocess
import sys

from pytest_benchmark.fixture import BenchmarkFixture

CODE = """from time import perf_counter as now
a = now(); import torch; b = now(); import entprop_fast; c = now()
print(b - a, c - b)"""


def test_import(benchmark: BenchmarkFixture) -> None:
    found: list[tuple[float, float]] = []

    def run() -> None:
        ran = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True)
        torchs, ours = map(float, ran.stdout.split())
        found.append((torchs, ours))

    benchmark.pedantic(run, rounds=7, warmup_rounds=1)  # type: ignore[no-untyped-call]
    torchs, ours = min(found, key=lambda pair: pair[1])
    benchmark.extra_info["milliseconds beyond torch"] = round(1000 * ours)
    benchmark.extra_info["ratio over torch"] = ours / torchs
