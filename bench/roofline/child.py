"""Count steps in a process of its own: `python -m bench.roofline.child LIBRARY SIZES [STEPS]`.

LIBRARY is what `bench.fake_cuda.device.library` returns, loaded before torch; "" where torch has a
CUDA device. Prints rows as JSON.
"""

import ctypes
import json
import os
import sys

if __name__ == "__main__" and sys.argv[1]:
    ctypes.CDLL(sys.argv[1])

from bench.fake_cuda.device import prepare
from bench.roofline.rows import row_of
from bench.roofline.steps import STEPS, Size, counted


def main() -> None:
    """Count every step of every size."""
    prepare()
    sizes = [Size(*one) for one in json.loads(sys.argv[2])]
    wanted = sys.argv[3:] or [step.name for step in STEPS]
    steps = [step for step in STEPS if step.name in wanted]
    last = sorted(steps, key=lambda step: step.method is None)
    rows = {
        (size, step.name): row_of(size, step, counted(size, step))
        for step in last
        for size in sizes
    }
    print(json.dumps([rows[size, step.name] for size in sizes for step in steps]), flush=True)
    # At the interpreter's end torch now and then aborts on threads of a device that is not there.
    os._exit(0)


if __name__ == "__main__":
    main()
