"""A call of each raw op that fits, of few numbers, and the refusal of one that does not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.ops import fuzz
from tests.ops.random_tensors import Arguments


def _images(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)


def _norm() -> Arguments:
    names = [p + n for p in ("", "aux_") for n in ("weight", "bias", "running_mean", "running_var")]
    channels = {name: torch.full((3,), 0.5 + n) for n, name in enumerate(names)}
    settings = {"num_main": 2, "training": True, "aux_training": True, "momentum": 0.1}
    settings |= {"aux_momentum": 0.1, "eps": 1e-5, "aux_eps": 1e-5, "relu": True}
    images = {name: _images(4, 3, 2, 5) for name in ("x", "residual")}
    addend = _images(4, 3, 2, 5)
    counters = {"num_batches": torch.tensor(3), "aux_num_batches": torch.tensor(4)}
    return {**images, **channels, **settings, "addend": addend, **counters}


def _norm_backward() -> Arguments:
    given = _norm()
    affine = {name: given[name] for name in ("weight", "bias", "aux_weight", "aux_bias")}
    settings = {name: given[name] for name in ("num_main", "training", "aux_training", "relu")}
    made = {"mean": torch.zeros(2, 3), "rstd": torch.ones(2, 3)}
    made["mask"] = torch.full((4, 4), 255, dtype=torch.uint8)
    images = {name: _images(4, 3, 2, 5) for name in ("grad", "x", "residual")}
    added = {name: _images(4, 3, 2, 5) for name in ("again", "dtotal")}
    return {**images, **affine, **made, **settings, "wanted": [True] * 4, **added}


def _merge() -> Arguments:
    given: Arguments = {"gathered": torch.linspace(0.5, 2, 2 * 2 * 7).reshape(2, 2, 7)}
    for prefix in ("", "aux_"):
        given |= {prefix + name: torch.ones(3) for name in ("running_mean", "running_var")}
        given[f"{prefix}num_batches"] = torch.tensor(3)
    return given | {"momentum": None, "aux_momentum": None}


def _norm_dx() -> Arguments:
    given = _norm_backward()
    for name in ("wanted", "again", "dtotal"):
        del given[name]
    mask = list(given).index("mask") + 1
    items, sums = list(given.items()), {"sums": torch.ones(2, 2, 3), "count": torch.ones(2)}
    return dict([*items[:mask], *sums.items(), *items[mask:]])


def _moments() -> Arguments:
    return {"x": _images(4, 3, 2, 5), "num_main": 2, "training": True, "aux_training": True}


def _step(*written: str) -> Arguments:
    given = {"x": _images(4, 3, 2, 5), "grad": _images(4, 3, 2, 5), "index": torch.tensor([3, 1])}
    given |= {name: torch.full((3,), 0.1) for name in ("alpha", "eps", "lo", "hi")}
    given |= {name: _images(2, 3, 2, 5) for name in written}
    return given


def _perturb() -> Arguments:
    given = _step("x_adv", "grad")
    return {name: given[name] for name in ("x_adv", "grad", *(n for n in given if n != "x_adv"))}


def _loss() -> Arguments:
    labels = torch.tensor([0, 4, 2])
    tensors = {"logits": _images(3, 5), "labels": labels, "labels_b": labels.flip(0)}
    return {**tensors, "lam": torch.tensor(0.3), "label_smoothing": 0.1, "score": "margin"}


def _conv(*more: str) -> Arguments:
    x = _images(2, 16, 4, 3).contiguous(memory_format=torch.channels_last)
    return {name: x.clone() for name in more} | {"x": x, "weight": _images(16, 16, 3, 3)}


def _chains() -> Arguments:
    codes = torch.tensor([[[1, 5]] * 2] * 3, dtype=torch.uint8)
    images, strengths = (_images(3, 3, 4, 5) * 40).abs().to(torch.uint8), _images(3, 2, 2)
    weights = {"weights": _images(3, 2), "keep": _images(3)}
    return {"images": images, "codes": codes, "strengths": strengths, **weights}


def _pixmix() -> Arguments:
    images, pool = _images(3, 7).abs(), torch.ones(5, 7, dtype=torch.uint8)
    number, codes = torch.ones(3, 3, dtype=torch.int64), torch.ones(3, 2, dtype=torch.uint8)
    given = {"images": images, "pool": pool, "number": number, "codes": codes}
    return given | {"weights": _images(3, 2, 2)}


def _prime() -> Arguments:
    codes = torch.tensor([[[1, 2, 3]] * 2] * 3, dtype=torch.uint8)
    keys, bands = torch.arange(18).view(3, 2, 3), torch.ones(3, 2, 3, 2, dtype=torch.int32)
    given = {"images": _images(3, 3, 4, 5).abs(), "codes": codes, "keys": keys, "bands": bands}
    given |= {"scale": _images(3, 2, 3), "weights": _images(3, 2), "keep": _images(3)}
    return {**given, "highest": 7, "kernel": 3}


VALID: dict[str, Callable[[], Arguments]] = {
    "dual_batch_norm": _norm,
    "dual_batch_norm_backward": _norm_backward,
    "dual_batch_norm_moments": _moments,
    "dual_batch_norm_merge": _merge,
    "dual_batch_norm_dx": _norm_dx,
    "loss_and_entropy": _loss,
    "select_topk": lambda: {"score": _images(5), "k": 2},
    "gather_perturb": _step,
    "gather_perturb.out": lambda: _step("out"),
    "perturb_": _perturb,
    "conv3x3": _conv,
    "conv3x3_backward": lambda: _conv("grad") | {"want_x": True, "want_weight": True},
    "image_chains": _chains,
    "pixmix_rounds": _pixmix,
    "prime_chains": _prime,
}


def refusal(op: Callable[..., Any], arguments: Arguments) -> Exception:
    """Check that `op` refuses these, in a way that it may, and return how."""
    found = fuzz.outcome(op, arguments)
    assert isinstance(found, Exception), "taken"
    assert type(found) in fuzz.REFUSALS, repr(found)
    return found
