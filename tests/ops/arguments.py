"""Random arguments of the raw ops: sizes, dtypes, layouts; spoiled ones, and ones that overlap.

The same seed makes the same arguments again, views of one memory included.
"""

import math
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Arguments: TypeAlias = dict[str, Any]
DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
SCORES = ("entropy", "confidence", "cross_entropy", "margin")
STATISTICS = ("running_mean", "running_var", "aux_running_mean", "aux_running_var")
COUNTERS = ("num_batches", "aux_num_batches")


def tensor(draw: random.Random, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers of this shape in some layout: dense, strided, expanded, at an odd offset."""
    numbers = torch.tensor([draw.gauss(0, 1) for _ in range(max(1, torch.Size(shape).numel()))])
    x = numbers[: torch.Size(shape).numel()].reshape(shape).to(dtype)
    kind = draw.choice(("contiguous", "contiguous", "last", "offset", "step", "turned", "expanded"))
    if kind == "last" and len(shape) == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if kind == "offset":
        return torch.cat([x.new_zeros(3), x.flatten()])[3:].view(shape)
    if kind == "step" and shape:
        return torch.stack([x, x + 1], -1)[..., 0]
    if kind == "turned":
        return (
            x.permute(*reversed(range(len(shape))))
            .contiguous()
            .permute(*reversed(range(len(shape))))
        )
    if kind == "expanded" and shape and x.numel():
        return x.narrow(draw.randrange(len(shape)), 0, 1).expand(shape)
    return x


def image_shape(draw: random.Random) -> tuple[int, ...]:
    """[N, C, ...] from no rows to a few thousand numbers."""
    channels = draw.choice((1, 2, 3, 5, 8, 16, 17, 33, 64))
    pixels: tuple[int, ...] = (draw.choice((1, 2, 3, 7, 8)), draw.choice((1, 2, 5, 8, 17)))
    pixels = draw.choice((pixels, pixels, pixels, (), pixels[:1]))
    return (draw.choice((0, 1, 2, 3, 4, 6)), channels, *pixels)


def dual_batch_norm(draw: random.Random) -> Arguments:
    """Arguments of the op."""
    dtype, shape = draw.choice(DTYPES), image_shape(draw)
    found: Arguments = {"x": tensor(draw, shape, dtype), "residual": None}
    if draw.random() < 0.5:
        found["residual"] = tensor(draw, shape, dtype)
    half = dtype in (torch.bfloat16, torch.float16)
    own = draw.choice((dtype, torch.float32)) if half else dtype
    for prefix in ("", "aux_"):
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = tensor(draw, shape[1:2], own).abs() + 0.5
            # A norm's four are of one dtype, or absent in pairs: the rest is for PyTorch to refuse.
            found[prefix + name] = value
        if draw.random() < 0.3:
            found |= {prefix + "running_mean": None, prefix + "running_var": None}
    found["num_main"] = draw.randint(0, shape[0])
    found |= {"training": draw.random() < 0.7, "aux_training": draw.random() < 0.7}
    found |= {"momentum": 0.1, "aux_momentum": 0.3, "eps": 1e-5, "aux_eps": 1e-3}
    found |= {"relu": draw.random() < 0.5, "addend": None}
    if draw.random() < 0.4:
        found["addend"] = tensor(draw, shape, dtype)
    for name in COUNTERS:
        found[name] = torch.tensor(draw.randrange(5)) if draw.random() < 0.7 else None
    return found


def dual_batch_norm_backward(draw: random.Random) -> Arguments:
    """Arguments of the op: those of a forward, with statistics made up."""
    given = dual_batch_norm(draw)
    x = given["x"]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    statistics = {
        name: tensor(draw, (2, x.shape[1]), wide).abs() + 0.5 for name in ("mean", "rstd")
    }
    affine = {name: given[name] for name in ("weight", "bias", "aux_weight", "aux_bias")}
    settings = {name: given[name] for name in ("num_main", "training", "aux_training", "relu")}
    mask = torch.empty(0, dtype=torch.uint8)
    if given["relu"] and draw.random() < 0.5:  # what a forward would have packed
        from entprop_fast.ops.dual_batch_norm_reference import mask_shape

        shape = mask_shape(x, x, True)
        bits = [draw.randrange(256) for _ in range(torch.Size(shape).numel())]
        mask = torch.tensor(bits, dtype=torch.uint8).reshape(shape)
    return {
        "grad": tensor(draw, tuple(x.shape), x.dtype),
        "x": x,
        "residual": given["residual"],
        **affine,
        **statistics,
        "mask": mask,
        **settings,
        "wanted": [draw.random() < 0.7 for _ in range(4)],
        **{
            name: tensor(draw, tuple(x.shape), x.dtype) if draw.random() < 0.4 else None
            for name in ("again", "dtotal")
        },
    }


def dual_batch_norm_moments(draw: random.Random) -> Arguments:
    """Arguments of the op."""
    given = dual_batch_norm(draw)
    return {name: given[name] for name in ("x", "num_main", "training", "aux_training")}


def dual_batch_norm_merge(draw: random.Random) -> Arguments:
    """Arguments of the op: moments made up, now and then of no rows; each half moves or not."""
    channels, processes = draw.choice((1, 3, 8, 33, 130)), draw.choice((1, 2, 3, 9))
    wide = draw.choice((torch.float32, torch.float64))
    gathered = tensor(draw, (processes, 2, 2 * channels + 1), wide).clone()
    gathered[:, :, channels:] = gathered[:, :, channels:].abs()
    counts = torch.tensor([draw.choice((0, 0, 2, 7, 40)) for _ in range(2 * processes)])
    gathered[:, :, -1] = counts.view(processes, 2)
    gathered[gathered[:, :, -1] == 0] = 0
    given: Arguments = {"gathered": gathered}
    own = draw.choice((wide, torch.float32, torch.bfloat16, torch.float16))
    momenta: Arguments = {}
    for prefix in ("", "aux_"):
        names = [prefix + name for name in ("running_mean", "running_var", "num_batches")]
        values = [own_memory(tensor(draw, (channels,), own).abs()) for _ in range(2)]
        given |= dict(zip(names, [*values, torch.tensor(draw.randrange(5))], strict=True))
        momenta[f"{prefix}momentum"] = draw.choice((0.1, 0.3, None))
        if draw.random() < 0.3:
            given |= dict.fromkeys(names)
            momenta[f"{prefix}momentum"] = 0.0
    return given | momenta


def dual_batch_norm_dx(draw: random.Random) -> Arguments:
    """Arguments of the op: those of the backward, with sums made up."""
    given = dual_batch_norm_backward(draw)
    for name in ("wanted", "again", "dtotal"):
        del given[name]
    x, wide = given["x"], given["mean"].dtype
    sums = {"sums": tensor(draw, (2, 2, x.shape[1]), wide)}
    sums["count"] = torch.tensor([draw.choice((0, 2, 40)) for _ in range(2)], dtype=wide)
    names = list(given)
    place = names.index("mask") + 1
    items = [(name, given[name]) for name in names]
    return dict([*items[:place], *sums.items(), *items[place:]])


def index(draw: random.Random, length: int, below: int, outside: float = 0.05) -> Tensor:
    """Row numbers, in some layout, now and then one that is no row."""
    rows = [draw.randrange(max(below, 1)) for _ in range(length)]
    if rows and draw.random() < outside:
        rows[draw.randrange(length)] = draw.choice((-1, below, -below - 1, 2**40, -(2**62)))
    value = torch.tensor(rows, dtype=torch.int64)
    return torch.stack([value, value], 1)[:, 1] if draw.random() < 0.3 else value


def loss_and_entropy(draw: random.Random) -> Arguments:
    """Arguments of the op."""
    rows, classes = draw.choice((0, 1, 2, 5, 9)), draw.choice((1, 2, 5, 16, 33, 100, 257))
    return {
        "logits": tensor(draw, (rows, classes), draw.choice(DTYPES)),
        "labels": index(draw, rows, classes, 0.2),
        "labels_b": index(draw, rows, classes, 0.2),
        "lam": torch.tensor(draw.random(), dtype=draw.choice(DTYPES)),
        "label_smoothing": draw.choice((0.0, 0.1, 1.0)),
        "score": draw.choice(SCORES),
    }


def select_topk(draw: random.Random) -> Arguments:
    """Arguments of the op."""
    rows = draw.choice((0, 1, 2, 7, 64, 129))
    return {"score": tensor(draw, (rows,), draw.choice(DTYPES)), "k": draw.randint(0, rows)}


def _step(draw: random.Random) -> Arguments:
    """Return what the three ops of the attack take beside what they write and its gradient."""
    dtype, shape = draw.choice(DTYPES), image_shape(draw)
    length = draw.choice((0, 1, 2, 5)) if shape[0] else 0
    given = {"x": tensor(draw, shape, dtype), "index": index(draw, length, shape[0])}
    given |= {name: tensor(draw, shape[1:2], dtype).abs() for name in ("alpha", "eps", "hi")}
    given["lo"] = -given["hi"]
    return given


def _in_order(given: Arguments, *names: str) -> Arguments:
    return {name: given[name] for name in (*names, "alpha", "eps", "lo", "hi")}


def gather_perturb(draw: random.Random) -> Arguments:
    """Arguments of the op."""
    given = _step(draw)
    given["grad"] = tensor(draw, tuple(given["x"].shape), given["x"].dtype)
    return _in_order(given, "x", "grad", "index")


def gather_perturb_out(draw: random.Random) -> Arguments:
    """Arguments of the overload that writes; it has memory of its own."""
    given = gather_perturb(draw)
    shape = (len(given["index"]), *given["x"].shape[1:])
    return given | {"out": own_memory(tensor(draw, shape, given["x"].dtype))}


def perturb_(draw: random.Random) -> Arguments:
    """Arguments of the op; what it writes has memory of its own."""
    given = _step(draw)
    shape, dtype = (len(given["index"]), *given["x"].shape[1:]), given["x"].dtype
    given["x_adv"] = own_memory(tensor(draw, shape, dtype))
    given["grad"] = tensor(draw, shape, dtype)
    return _in_order(given, "x_adv", "grad", "x", "index")


def conv3x3(draw: random.Random) -> Arguments:
    """Arguments of the op; half of them for the kernels."""
    inner, outer = (draw.choice((16, 16, 32, 3, 8)) for _ in range(2))
    shape = (draw.choice((0, 1, 2, 3)), inner, draw.choice((1, 2, 3, 6)), draw.choice((1, 3, 5)))
    dtype = draw.choice((torch.float32, torch.float32, torch.float64))
    x = tensor(draw, shape, dtype)
    if draw.random() < 0.7:
        x = x.contiguous(memory_format=torch.channels_last)
    return {"x": x, "weight": tensor(draw, (outer, inner, 3, 3), dtype)}


def conv3x3_backward(draw: random.Random) -> Arguments:
    """Arguments of the op."""
    given = conv3x3(draw)
    x, weight = given["x"], given["weight"]
    grad = tensor(draw, (x.shape[0], weight.shape[0], *x.shape[2:]), x.dtype)
    wanted = {name: draw.random() < 0.7 for name in ("want_x", "want_weight")}
    return {"grad": grad, **given, **wanted}


def image_chains(draw: random.Random) -> Arguments:
    """Arguments of the op: any codes, strengths of all sizes."""
    rows, channels = draw.choice((0, 1, 2, 3, 5)), draw.choice((1, 3))
    sides = (draw.choice((1, 2, 3, 8, 17)), draw.choice((1, 2, 5, 16, 33)))
    chains = (rows, draw.choice((0, 1, 2, 3)), draw.choice((0, 1, 2, 3)))
    codes = [draw.choice((*range(16), *range(68, 75), 255)) for _ in range(math.prod(chains))]
    scale = draw.choice((0.2, 1.0, 5.0, 100.0, 1e9))
    levels = tensor(draw, (rows, channels, *sides), torch.float32) * 60 + 128
    return {
        "images": levels.clamp(0, 255).to(torch.uint8),
        "codes": torch.tensor(codes, dtype=torch.uint8).reshape(chains),
        "strengths": tensor(draw, chains, torch.float32) * scale,
        "weights": tensor(draw, chains[:2], torch.float32).abs() / 3,
        "keep": tensor(draw, chains[:1], torch.float32).abs() / 2,
    }


def pixmix_rounds(draw: random.Random) -> Arguments:
    """Arguments of the op: rows beyond the pool, codes that mix nothing in."""
    rows, values, rounds = (
        draw.choice((0, 1, 2, 3)),
        draw.choice((1, 3, 16, 37, 2051)),
        draw.choice((0, 1, 4)),
    )
    dtype = draw.choice((torch.uint8, torch.float32, torch.float32, torch.float64))
    images = tensor(draw, (rows, values), torch.float32).sigmoid()
    numbers = [draw.randint(-3, 6) for _ in range(rows * (rounds + 1))]
    codes = [draw.choice((0, 1, 2, 3)) for _ in range(rows * rounds)]
    return {
        "images": (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype),
        "pool": (tensor(draw, (4, values), torch.float32).sigmoid() * 255).to(torch.uint8),
        "number": torch.tensor(numbers, dtype=torch.int64).reshape(rows, rounds + 1),
        "codes": torch.tensor(codes, dtype=torch.uint8).reshape(rows, rounds),
        "weights": tensor(draw, (rows, rounds, 2), torch.float32).sigmoid() * 2 - 0.5,
    }


def prime_chains(draw: random.Random) -> Arguments:
    """Arguments of the op: single primitives, as several magnify what rounding does."""
    rows, channels = draw.choice((0, 1, 2, 3)), draw.choice((1, 3))
    sides = (draw.choice((1, 2, 3, 8, 17)), draw.choice((1, 2, 5, 16, 33)))
    chains = (rows, draw.choice((0, 1, 2, 3)), draw.choice((0, 1)))
    count = math.prod(chains)
    images = tensor(draw, (rows, channels, *sides), torch.float32).sigmoid()
    return {
        "images": (images * 255).to(torch.uint8) if draw.random() < 0.3 else images,
        "codes": torch.tensor(draw.choices(range(5), k=count), dtype=torch.uint8).reshape(chains),
        "keys": torch.tensor([draw.getrandbits(62) for _ in range(count)]).long().reshape(chains),
        "bands": torch.tensor([draw.randint(-1, 50) for _ in range(2 * count)])
        .to(torch.int32)
        .reshape(*chains, 2)
        .sort(dim=-1)
        .values,
        "scale": tensor(draw, chains, torch.float32) * 0.05,
        "weights": tensor(draw, chains[:2], torch.float32).abs() / 3,
        "keep": tensor(draw, chains[:1], torch.float32).abs() / 2,
        "highest": draw.randint(1, 40),
        "kernel": draw.choice((3, 5)),
    }


def own_memory(value: Tensor) -> Tensor:
    """`value` where no two of its elements lie in one place."""
    return value.clone() if 0 in value.stride() else value


# Raw op (overload after the dot) to what makes its arguments, in the schema's order.
MAKE: dict[str, Callable[[random.Random], Arguments]] = {
    "dual_batch_norm": dual_batch_norm,
    "dual_batch_norm_backward": dual_batch_norm_backward,
    "dual_batch_norm_moments": dual_batch_norm_moments,
    "dual_batch_norm_merge": dual_batch_norm_merge,
    "dual_batch_norm_dx": dual_batch_norm_dx,
    "loss_and_entropy": loss_and_entropy,
    "select_topk": select_topk,
    "gather_perturb": gather_perturb,
    "gather_perturb.out": gather_perturb_out,
    "perturb_": perturb_,
    "conv3x3": conv3x3,
    "conv3x3_backward": conv3x3_backward,
    "image_chains": image_chains,
    "pixmix_rounds": pixmix_rounds,
    "prime_chains": prime_chains,
}
# What each op writes, beside its results.
WRITTEN: dict[str, tuple[str, ...]] = {
    "dual_batch_norm": (*STATISTICS, *COUNTERS),
    "dual_batch_norm_merge": (*STATISTICS, *COUNTERS),
    "gather_perturb.out": ("out",),
    "perturb_": ("x_adv",),
}
