"""Time the GPU norm under several ways to cut it, beside native norms: `python -m bench.ops.sweep`.

One group, ReLU, bfloat16, channels_last; graphs of calls over input sets that outgrow the cache.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import rows
from bench.command import keep_as_measured
from bench.memory import peaks_of
from bench.ops.graphs import CALLS, graph_timer, sets_past_cache
from bench.timing import Comparison, Contender, compare, low_to_high, require_cuda
from entprop_fast.kernels import dual_batch_norm_cut as cutting
from entprop_fast.kernels.dual_batch_norm_cut import Cut
from entprop_fast.lab.report.text import markdown_table
from entprop_fast.norm_half import Half

NAME = "norm_cuda"


# The first is the one that was adopted.
CUTS = (
    Cut(),
    *(Cut(programs=n) for n in (3, 4)),
    *(Cut(programs=n, tile_bytes=32768) for n in (2, 1)),
    *(Cut(programs=n, num_warps=4) for n in (2, 4)),
    *(Cut(programs=4, tile_bytes=8192, num_warps=n) for n in (4, 8)),
    Cut(programs=8, tile_bytes=8192),
    Cut(block_c=32),
    *(Cut(stages=n) for n in (2, 3)),  # of half the tile, see kernels/dual_batch_norm_cut.py
    Cut(stages=2, tile_bytes=32768),
    *(Cut(overlaps=1, stages=n) for n in (1, 2)),
)
# WRN-28-10's, its auxiliary pass's, ResNet-18's, a stem's, and one of many times the cache.
SHAPES = (
    (128, 160, 32, 32), (128, 320, 16, 16), (128, 640, 8, 8), (26, 160, 32, 32), (26, 640, 8, 8),
    (128, 64, 32, 32), (128, 512, 4, 4), (128, 16, 32, 32), (256, 256, 56, 56),
)  # fmt: skip
MAX_SETS = 16
ROUNDS = 7
Timed = tuple[Comparison, dict[str, int] | None]  # calls by name, and their peaks
# A row of the adopted cut leaves these out.
OTHERS = {"block_c": "channels a tile", "stages": "stages", "overlaps": "overlaps"}
HEAD = [*("shape", "MB", "forward", "native", "forward + backward", "native")]
HEAD += ["times native", "best cut"]


def use(cut: Cut) -> None:
    """Make the launchers cut so, for all of the process."""
    cutting.CUT = cut


def described(cut: Cut, multiprocessors: int) -> rows.Row:
    """Return what a row says of a cut: all programs of a wave, and what is not as adopted."""
    told = {"programs": cut.programs * multiprocessors, "tile_bytes": cut.tile_bytes}
    told["warps"] = cut.num_warps
    others = {name: getattr(cut, name) for name in OTHERS}
    return told | {n: value for n, value in others.items() if value != getattr(CUTS[0], n)}


def calls(shape: tuple[int, ...]) -> dict[str, Contender]:
    """Make our calls and PyTorch's, forward and with backward, over one set of inputs."""
    from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
    from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward

    def image() -> Tensor:
        values = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        return values.contiguous(memory_format=torch.channels_last)

    x, grad = image(), image()
    weight, mean = torch.ones(shape[1], device="cuda"), torch.zeros(shape[1], device="cuda")
    bias, var = torch.zeros_like(weight), torch.ones_like(mean)
    run: Callable[..., Any] = dual_batch_norm
    run_backward: Callable[..., Any] = dual_batch_norm_backward
    main, aux = Half(weight, bias, mean, var), Half()

    def forward() -> Any:
        return run(x, None, main, aux, shape[0], True)

    def both() -> Any:
        y, *kept = forward()
        wanted = [True, False, True, True]
        return y, *run_backward(grad, x, None, main, aux, *kept, shape[0], True, wanted)

    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]

    def native() -> Tensor:
        return F.relu(F.batch_norm(leaves[0], mean, var, leaves[1], leaves[2], True))

    def native_forward() -> list[Tensor]:
        with torch.no_grad():
            return [native()]

    def native_both() -> list[Tensor]:
        y = native()
        return [y, *torch.autograd.grad(y, leaves, grad)]

    return {
        "forward": forward,
        "both": both,
        "native forward": native_forward,
        "native both": native_both,
    }


def compile_cut(cut: Cut) -> None:
    """Leave every kernel of a cut in Triton's cache."""
    use(cut)
    for shape in SHAPES:
        calls(shape)["both"]()


def measured(shape: tuple[int, ...]) -> Iterator[rows.Row]:
    """Make a row for each cut: microseconds of a forward, and of a forward and backward."""
    count = min(MAX_SETS, sets_past_cache(2 * 2 * torch.Size(shape).numel()))
    sets = [calls(shape) for _ in range(count)]
    turns = [sets[number % count] for number in range(max(CALLS, count))]

    def timed(*names: str) -> Timed:
        timers = {n: graph_timer([one[n] for one in turns], keep=False) for n in names}
        peaks = peaks_of({n: sets[0][n] for n in names}, "cuda")
        return compare(timers, budget=0, rounds=ROUNDS), peaks

    from entprop_fast.kernels.device import card_of

    native = timed("native forward", "native both")
    for cut in CUTS:
        use(cut)
        multiprocessors = card_of(torch.device("cuda", 0)).multiprocessors
        yield row_of(shape, cut, multiprocessors, timed("forward", "both"), native)


def row_of(
    shape: tuple[int, ...], cut: Cut, multiprocessors: int, ours: Timed, native: Timed
) -> rows.Row:
    """Make the row of a cut: medians and quartiles in microseconds, peaks in bytes."""
    (one, our_peaks), (other, native_peaks) = ours, native
    return {
        "shape": list(shape),
        "cut": list(cut),
        **described(cut, multiprocessors),
        **{name: 1e6 * seconds for name, seconds in (one.seconds | other.seconds).items()},
        "quartiles": {
            name: found and [1e6 * seconds for seconds in found]
            for name, found in (one.quartiles | other.quartiles).items()
        },
        "peak_memory": (our_peaks or {}) | (native_peaks or {}),
    }


def section(page: Path) -> str:
    """Write the adopted cut beside native norms, and the best cut of each shape."""
    found = rows.comparable(rows.read(NAME))
    lines = [HEAD]
    best: Callable[[list[rows.Row]], rows.Row] = lambda some: min(some, key=lambda r: r["both"])  # noqa: E731
    for shape in SHAPES:
        here = [row for row in found if row["shape"] == list(shape)]
        ours, other = here[0], best(here)  # the first cut is the one that was adopted
        cut = f"{other['programs']} x {other['tile_bytes'] // 1024} KB, {other['warps']} warps"
        cut += "".join(f", {told} {other[name]}" for name, told in OTHERS.items() if name in other)
        cells = [
            "x".join(map(str, shape)),
            f"{2 * torch.Size(shape).numel() / 1e6:.0f}",
            *(_time(ours, name) for name in ("forward", "native forward", "both", "native both")),
            f"{ours['native both'] / ours['both']:.2f}",
            f"{cut}: {_time(other, 'both')}",
        ]
        lines.append(cells)
    return markdown_table(lines) + (
        "\n\nMicroseconds, bfloat16, channels_last, one group with ReLU; medians of "
        f"{ROUNDS} replays of a graph of at least {CALLS} calls over up to {MAX_SETS} sets of "
        "inputs; native: `F.relu` of `F.batch_norm` in the same graph. Made by "
        f"`python -m bench.ops.sweep` ({rows.origin(found[0])})."
    )


def _time(row: rows.Row, name: str) -> str:
    """Write a median, and its quartiles where the row has them."""
    spread = low_to_high(row.get("quartiles", {}).get(name), scale=1)
    return f"{row[name]:.1f}" + (f" ({spread})" if spread else "")


def main() -> None:
    """Compile on all cores, then measure."""
    require_cuda()
    with ProcessPoolExecutor(len(CUTS), mp_context=get_context("spawn")) as pool:
        list(pool.map(compile_cut, CUTS))
    keep_as_measured(NAME, _measured())


def _measured() -> Iterator[tuple[Iterator[rows.Row], str]]:
    for shape in SHAPES:
        yield measured(shape), "x".join(map(str, shape))
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
