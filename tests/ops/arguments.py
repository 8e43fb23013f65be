"""Random arguments of the raw ops, of each by its name."""

import math
import random
from collections.abc import Callable

import torch

from tests.ops.norm_arguments import (
    COUNTERS,
    STATISTICS,
    dual_batch_norm,
    dual_batch_norm_backward,
    dual_batch_norm_dx,
    dual_batch_norm_merge,
    dual_batch_norm_moments,
)
from tests.ops.random_tensors import DTYPES, Arguments, image_shape, index, own_memory, tensor

SCORES = ("entropy", "confidence", "cross_entropy", "margin")


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
