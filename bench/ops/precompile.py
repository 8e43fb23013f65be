"""Fill Inductor's cache for the CUDA cases, on all cores: `python -m bench.ops.precompile`.

`pytest bench/ops` compiles what it does not find there, one case after the other, while the GPU
waits.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from bench.ops.cases import cases
from bench.timing import require_cuda


def compile_case(number: int) -> None:
    """Compile and run the compiled contender of one case."""
    torch.compiler.reset()
    contenders = list(cases("cuda"))[number].contenders()
    if "compile" in contenders:
        contenders["compile"]()


def main() -> None:
    """Compile all of them."""
    require_cuda()
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # of each process
    processes = min(12, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_case, range(len(list(cases("cuda"))))))


if __name__ == "__main__":
    main()
