"""``python -m tests.fuzz``: many cases, and what did not hold in some."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from .cases import case
from .harness import prepared

SAID = 1000  # cases between two lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder, prepared(Path(folder) / "fuzz") as sandbox:
        for number in range(flags.first, flags.first + flags.cases):
            name, prepare = case(number, flags.seed, sandbox)
            if (found := sandbox.run(prepare)) is not None:
                wrong += 1
                print(f"case {number} of seed {flags.seed} ({name}): {found}", flush=True)
            if number % SAID == SAID - 1:
                print(f"{number + 1 - flags.first} cases", flush=True)
    seconds = time.monotonic() - started
    print(f"{flags.cases} cases in {seconds:.0f} s, {wrong} of them wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
