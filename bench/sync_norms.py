"""Count what a synchronised norm sends and launches: ``python -m bench.sync_norms``.

Two processes over gloo run one norm with both halves, forward and backward: ours once, torch's
`SyncBatchNorm` once for each half, as a plain model with two norms would. torch's has no kernels
for the CPU: here its five ops compute something of the right shape, and all else is its own code.
A launch is an op that computes on the device; of ours, as many as tests/kernels_aot count.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import start_processes

from bench.fake_cuda.calls import TorchDispatchMode
from entprop_fast import convert_dual_norm, route, synchronise_norms

SHAPE, NUM_MAIN = (32, 64, 16, 16), 20
WORLD = 2
REPEATS = 100
# Of our ops on CUDA, as they are called here.
OURS = {
    "dual_batch_norm_moments": 2,
    "dual_batch_norm_merge": 1,
    "dual_batch_norm": 1,  # by statistics that are known
    "dual_batch_norm_backward": 2,  # the sums
    "dual_batch_norm_dx": 1,
}
# Memory alone, and what only the CPU does.
FREE: tuple[str, ...] = (
    "empty",
    "view",
    "split",
    "detach",
    "alias",
    "select",
    "slice",
    "unsqueeze",
)
FREE += ("squeeze", "expand", "t.", "as_strided", "new_empty", "reshape", "permute", "set_")
FREE += ("_local_scalar",)


class Counting(TorchDispatchMode):
    """Count ops by name, and stand in for those of torch's that need a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if func.namespace in ("aten", "entprop_fast"):
            self.ops[name.partition(".")[0]] += 1
        x: Any = args[0] if args else None
        if name.startswith("batch_norm_stats"):
            return torch.var_mean(x, (0, 2, 3))[::-1]
        if name.startswith("batch_norm_gather_stats_with_counts"):
            return args[1][0].clone(), args[2][0].clone()
        if name.startswith("batch_norm_elemt"):
            return torch.empty_like(x)
        if name.startswith("batch_norm_backward_reduce"):
            return tuple(torch.empty_like(args[2]) for _ in range(4))
        if name.startswith("batch_norm_backward_elemt"):
            return torch.empty_like(args[1])
        return func(*args, **kwargs or {})

    def launches(self) -> int:
        """Count what would be launched on CUDA."""
        return sum(
            OURS.get(name, 0 if name.startswith(FREE) else 1) * count
            for name, count in self.ops.items()
        )


class Sent:
    """Count collectives, and the bytes that a process gives to each."""

    def __init__(self) -> None:
        self.calls = self.bytes = 0

    def watch(self, name: str, given: int) -> None:
        """Watch one of torch's collectives; `given` is the place of what is sent."""
        collective = getattr(distributed, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.bytes += args[given].numel() * args[given].element_size()
            return collective(*args, **kwargs)

        setattr(distributed, name, call)


def ours() -> Callable[[Tensor], Tensor]:
    """Make one norm of ours for both halves."""
    norm: Any = synchronise_norms(convert_dual_norm(nn.BatchNorm2d(SHAPE[1])))

    def run(x: Tensor) -> Tensor:
        with route(norm, NUM_MAIN):
            y: Tensor = norm(x)
        return y

    return run


def torchs() -> Callable[[Tensor], Tensor]:
    """Make one of torch's for each half: its own function, whose module refuses the CPU."""
    apply: Any = nn.modules.batchnorm.sync_batch_norm.apply  # type: ignore[attr-defined]
    group, world = distributed.group.WORLD, distributed.get_world_size()
    norms = [nn.BatchNorm2d(SHAPE[1]) for _ in range(2)]

    def run(x: Tensor) -> Tensor:
        halves = []
        for n, part in zip(norms, x.split([NUM_MAIN, len(x) - NUM_MAIN]), strict=True):
            assert n.num_batches_tracked is not None
            n.num_batches_tracked.add_(1)
            running = n.running_mean, n.running_var
            halves.append(apply(part, n.weight, n.bias, *running, 1e-5, 0.1, group, world))
        return torch.cat(halves)

    return run


def count() -> dict[str, Any]:
    """Return what each of the two counts, and how long ours takes, with others and alone."""
    found: dict[str, Any] = {}
    sent = Sent()
    for name, given in (("all_gather", 1), ("all_reduce", 0), ("all_gather_into_tensor", 1)):
        sent.watch(name, given)
    if hasattr(distributed, "all_gather_single"):
        sent.watch("all_gather_single", 1)
    for make in (ours, torchs):
        norm, x = make(), torch.randn(SHAPE, requires_grad=True)
        gradient, before = torch.randn(SHAPE), (sent.calls, sent.bytes)
        with Counting() as forward:
            y = norm(x)
        with Counting() as backward:
            y.backward(gradient)
        # On the CPU alone: a look at the counts; over gloo alone: to put torch's gathered together.
        forward.ops.subtract(["sum"] if make is ours else ["stack", "stack"])
        found[make.__name__] = {
            "collectives": sent.calls - before[0],
            "bytes": sent.bytes - before[1],
            "forward": forward.launches(),
            "backward": backward.launches(),
            "waits": forward.ops["index"] + forward.ops["nonzero"],
        }
    return found | milliseconds()


def milliseconds() -> dict[str, float]:
    """Return the medians of a forward and backward, alone and with the other process, in turns."""
    norms = {"alone": convert_dual_norm(nn.BatchNorm2d(SHAPE[1]))}
    norms["together"] = synchronise_norms(copy.deepcopy(norms["alone"]))
    times: dict[str, list[float]] = {name: [] for name in norms}
    x = torch.randn(SHAPE, requires_grad=True)
    for _ in range(REPEATS):
        for name, norm in norms.items():
            distributed.barrier()
            begin = time.perf_counter()
            with route(norm, NUM_MAIN):
                norm(x).sum().backward()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: median(some[REPEATS // 5 :]) for name, some in times.items()}


def work(rank: int, folder: str) -> None:
    """Count in one of the processes; the first one prints."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    found = count()
    if rank == 0:
        show(found)
    distributed.destroy_process_group()


def show(found: dict[str, Any]) -> None:
    """Print the table of docs/distributed.md."""
    print("| both halves, forward and backward | ours | torch's, a norm for each half |")
    print("|---|---|---|")
    rows = {
        "collectives": "collectives",
        "bytes given to them": "bytes",
        "launches forward": "forward",
        "launches backward": "backward",
        "waits of the host for the device": "waits",
    }
    for title, key in rows.items():
        print(f"| {title} | {found['ours'][key]} | {found['torchs'][key]} |")
    print(
        f"\n{list(SHAPE)} float32, {NUM_MAIN} rows main, two processes over gloo on one machine: "
        f"{found['together']:.2f} ms forward and backward, {found['alone']:.2f} ms unsynchronised."
    )


def main() -> None:
    """Start the processes."""
    with TemporaryDirectory() as folder:
        start_processes(work, (folder,), WORLD, start_method="spawn")


if __name__ == "__main__":
    main()
