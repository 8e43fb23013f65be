"""Random arguments of the raw ops of the dual batch norm."""

import random

import torch

from tests.ops.random_tensors import DTYPES, Arguments, image_shape, own_memory, tensor

STATISTICS = ("running_mean", "running_var", "aux_running_mean", "aux_running_var")
COUNTERS = ("num_batches", "aux_num_batches")


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
