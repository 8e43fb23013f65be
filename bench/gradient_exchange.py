"""Time three ways to exchange gradients between two processes over gloo, in turns.

``python -m bench.gradient_exchange [--arch wrn16_4 --batch-size 8 --rounds 30]`` prints a line for
each: one piece after the passes, buckets after them, buckets while the last backward pass runs, and
the step without an exchange beside them. Each process has one thread.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, convert_dual_norm, create_method, models
from entprop_fast.parallel import buckets, replicas

WORLD = 2
WAYS = {  # bytes of a bucket, overlapped
    "one piece": (1 << 40, False),
    "buckets after the passes": (buckets.BUCKET_BYTES, False),
    "buckets during the last": (buckets.BUCKET_BYTES, True),
}


def choose(way: str) -> None:
    """Exchange in this way from now on."""
    buckets.BUCKET_BYTES = WAYS[way][0]
    buckets.FIRST_BYTES = min(2**20, WAYS[way][0]) if WAYS[way][0] < 1 << 40 else 1 << 40
    replicas.OVERLAPS["gloo"] = WAYS[way][1]


def make(way: str, options: argparse.Namespace) -> Method:
    """Return a method whose wrapper exchanges in this way."""
    choose(way)
    torch.manual_seed(0)
    network = convert_dual_norm(models.create(options.arch, num_classes=10))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return create_method(options.method, model, optimizer)


def measure(rank: int, folder: str, options: argparse.Namespace) -> None:
    """Time the steps of one process, and print the medians of the first."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    methods = {way: make(way, options) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in (*WAYS, "no exchange")}
    torch.manual_seed(rank)
    for turn in range(options.rounds + 2):
        images = torch.rand(options.batch_size, 3, options.size, options.size)
        labels = torch.randint(10, (options.batch_size,))
        order = list(WAYS)[turn % 3 :] + list(WAYS)[: turn % 3]
        for way in [*order, "no exchange"]:
            method = methods["one piece" if way == "no exchange" else way]
            choose("one piece" if way == "no exchange" else way)
            distributed.barrier()
            start = time.perf_counter()
            if way == "no exchange":
                wrapper: Any = method._replicas
                with wrapper._wrapper.no_sync():
                    method(images, labels)
            else:
                method(images, labels)
            if turn > 1:
                seconds[way].append(time.perf_counter() - start)
    if rank == 0:
        base = statistics.median(seconds["no exchange"])
        for way, taken in seconds.items():
            low, middle, high = statistics.quantiles(taken, n=4)
            ratio = middle / base
            name = f"{options.arch} {options.method} batch {options.batch_size}: {way:26}"
            print(f"{name} {middle:.4f} s [{low:.4f}, {high:.4f}], {ratio:.2f} of no exchange")
    distributed.destroy_process_group()


def main() -> None:
    """Start the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", default="wrn16_4")
    parser.add_argument("--method", default="entprop")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start_processes(measure, (str(Path(folder)), options), WORLD, start_method="spawn")


if __name__ == "__main__":
    main()
