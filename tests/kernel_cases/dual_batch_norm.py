"""Value checks of the dual batch norm's forward and backward launchers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.norm_half import Half
from tests.kernel_cases.accuracy import assert_as_accurate

CHANNELS_LAST = torch.channels_last
CONTIGUOUS = torch.contiguous_format
BF16 = torch.bfloat16
PARAMETERS = ("weight", "bias", "running_mean", "running_var")
MOMENTA = (0.1, 0.3)
EPSILONS = (1e-5, 1e-3)


@dataclass(frozen=True)
class Norm:
    """One call of the op, and the tensors that go with it."""

    shape: tuple[int, ...] = (6, 7, 5, 3)
    num_main: int = 4
    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = CHANNELS_LAST
    training: tuple[bool, bool] = (True, True)
    relu: bool = True
    residual: bool = False
    mean: float = 0.0
    affine: bool = True
    tracked: bool = True
    parameter_dtype: torch.dtype = torch.float32
    wanted: tuple[bool, bool, bool, bool] = (True, True, True, True)
    other_layout: bool = False  # of the residual and the incoming gradient
    special: bool = False  # NaN and infinities in some channels

    def tensors(self) -> dict[str, Tensor | None]:
        """Seeded inputs on the CPU: x, residual, grad, and main's and auxiliary's parameters."""
        generator = torch.Generator().manual_seed(sum(self.shape) + self.num_main)

        def images() -> Tensor:
            values = torch.randn(self.shape, generator=generator)
            return values.to(self.dtype)

        def place(values: Tensor, other: bool) -> Tensor:
            last = (self.layout == CHANNELS_LAST) != other
            if values.dim() != 4:
                return values
            return values.contiguous(memory_format=CHANNELS_LAST if last else CONTIGUOUS)

        x = images() + self.mean
        if self.special:
            x[1, 0, 0, 0], x[0, 1, 0, 0], x[-1, 2, 0, 0] = torch.nan, torch.nan, torch.inf
        made: dict[str, Tensor | None] = {"x": place(x, False)}
        made["residual"] = place(images(), self.other_layout) if self.residual else None
        made["grad"] = place(images(), self.other_layout)
        for group in ("", "aux_"):
            values = torch.randn(4, self.shape[1], generator=generator).to(self.parameter_dtype)
            values[3] = values[3].abs() + 0.1
            for name, value in zip(PARAMETERS, values.unbind(), strict=True):
                given = self.affine if name in ("weight", "bias") else self.tracked
                made[group + name] = value.clone() if given else None
        return made

    def groups(self) -> list[tuple[int, str, slice]]:
        """Return the groups that have rows: number, prefix, rows."""
        both = [(0, "", slice(0, self.num_main)), (1, "aux_", slice(self.num_main, None))]
        return [both[0]] * (self.num_main > 0) + [both[1]] * (self.num_main < self.shape[0])


def batch_norm_chain(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Compute `F.batch_norm` in elementary operations, all in x's dtype.

    The yardstick in float32: PyTorch's CUDA kernels accumulate so, its CPU ones in float64.
    """
    like_x = (1, -1, *[1] * (x.dim() - 2))
    if training:
        dims = [0, *range(2, x.dim())]
        mean = x.mean(dims)
        var = (x - mean.view(like_x)).square().mean(dims)
        count = x.numel() // x.shape[1]
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(var.detach() * count / (count - 1), momentum)
    else:
        assert running_mean is not None and running_var is not None
        mean, var = running_mean, running_var
    y = (x - mean.view(like_x)) * (var + eps).rsqrt().view(like_x)
    y = y if weight is None else y * weight.view(like_x)
    return y if bias is None else y + bias.view(like_x)


def plain(norm: Norm, dtype: torch.dtype, batch_norm: Callable[..., Tensor]) -> dict[str, Tensor]:
    """All outputs in PyTorch's own operations, from the same inputs, in `dtype`."""
    t = {
        name: None if value is None else value.to(dtype).clone()
        for name, value in norm.tensors().items()
    }
    leaves = ("x", "residual", "weight", "bias", "aux_weight", "aux_bias")
    for name in leaves:
        if t[name] is not None:
            t[name].requires_grad_()  # type: ignore[union-attr]
    x = t["x"]
    assert x is not None
    parts = [
        batch_norm(
            x[rows],
            t[group + "running_mean"],
            t[group + "running_var"],
            t[group + "weight"],
            t[group + "bias"],
            norm.training[number],
            MOMENTA[number],
            EPSILONS[number],
        )
        for number, group, rows in norm.groups()
    ]
    y = torch.cat(parts) if t["residual"] is None else torch.cat(parts) + t["residual"]
    y = F.relu(y) if norm.relu else y
    y.backward(t["grad"])
    out = {"y": y.detach(), "dx": x.grad}
    masked = t["grad"] if not norm.relu else torch.where(y <= 0, 0, t["grad"])  # type: ignore[arg-type]
    out["dresidual"] = masked
    for name in ("running_mean", "running_var", "aux_running_mean", "aux_running_var"):
        out[name] = t[name]
    for parameter in ("weight", "bias"):
        zero = torch.zeros(norm.shape[1], dtype=dtype)
        present = {number: t[group + parameter] for number, group, _ in norm.groups()}
        rows = [present.get(number) for number in (0, 1)]
        out["d" + parameter] = torch.stack([zero if p is None else p.grad for p in rows])  # type: ignore[misc]
    return out  # type: ignore[return-value]


def statistics(norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation [2, C], zeros for an empty group, computed in `dtype`."""
    t = norm.tensors()
    x = t["x"]
    assert x is not None
    mean = torch.zeros(2, norm.shape[1], dtype=dtype)
    rstd = torch.zeros_like(mean)
    for number, group, rows in norm.groups():
        if norm.training[number]:
            values = x[rows].to(dtype).movedim(1, 0).flatten(1)
            mean[number] = values.mean(1)
            var = (values - mean[number, :, None]).square().mean(1)
        else:
            mean[number] = t[group + "running_mean"].to(dtype)  # type: ignore[union-attr]
            var = t[group + "running_var"].to(dtype)  # type: ignore[union-attr]
        rstd[number] = (var + EPSILONS[number]).rsqrt()
    return mean, rstd


def sizes(norm: Norm, mean: Tensor, rstd: Tensor) -> dict[str, float]:
    """Return the largest number met on the way to each output, of which one rounding is allowed.

    A sum that cancels, or an output the ReLU cuts off, is smaller than what it was made from.
    """
    t = {name: torch.zeros(1) if v is None else v.double() for name, v in norm.tensors().items()}
    x, grad = t["x"], t["grad"]
    found = {"mean": x.abs().max().item(), "y": 0.0, "dx": 0.0, "dweight": 0.0, "dbias": 0.0}
    like_x = (1, -1, *[1] * (x.dim() - 2))
    dims = [0, *range(2, x.dim())]
    for number, group, rows in norm.groups():
        normalized = (x[rows] - mean[number].view(like_x)) * rstd[number].view(like_x)
        weight = t[group + "weight"] if norm.affine else torch.ones(1)
        scaled = (normalized * weight.view(like_x)).abs().max() + t[group + "bias"].abs().max()
        here = {
            "y": scaled + t["residual"].abs().max(),
            "dx": grad[rows].abs().max() * (rstd[number] * weight).abs().max(),
            "dweight": (grad[rows] * normalized).abs().sum(dims).max(),
            "dbias": grad[rows].abs().sum(dims).max(),
        }
        found |= {name: max(found[name], size.item()) for name, size in here.items()}
    return found


def check(norm: Norm, op: Any, device: str) -> None:
    """Compare every output of `op.forward` and `op.backward` with float64."""
    given = norm.tensors()
    truth = plain(norm, torch.float64, F.batch_norm)
    theirs = plain(norm, torch.float32, batch_norm_chain)
    t = {name: None if v is None else v.to(device) for name, v in given.items()}
    x, residual, grad = t["x"], t["residual"], t["grad"]
    assert x is not None
    names = [group + name for group in ("", "aux_") for name in PARAMETERS]
    given_halves: list[list[Any]] = [
        [*(t[g + n] for n in PARAMETERS), norm.training[k], MOMENTA[k], EPSILONS[k]]
        for k, g in enumerate(("", "aux_"))
    ]
    halves = [Half(*one) for one in given_halves]
    y, mean, rstd, mask, _ = op.forward(x, residual, *halves, norm.num_main, norm.relu)
    ours = {"y": y} | {n: t[n] for n in names if "running" in n and t[n] is not None}
    gradients = op.backward(
        grad, x, residual, *halves, mean, rstd, mask, norm.num_main, norm.relu, list(norm.wanted)
    )
    for name, want, gradient in zip(
        ("dx", "dresidual", "dweight", "dbias"), norm.wanted, gradients, strict=True
    ):
        if want:
            ours[name] = gradient
        else:
            assert gradient.shape == (0,), f"{name} was not wanted"

    assert y.stride() == x.stride() and y.dtype == x.dtype
    assert not norm.wanted[0] or ours["dx"].stride() == x.stride()
    untouched = given["x"]
    assert untouched is not None and torch.equal(x.cpu().nan_to_num(), untouched.nan_to_num())
    mean_truth, rstd_truth = statistics(norm, torch.float64)
    size = {} if norm.special else sizes(norm, mean_truth, rstd_truth)
    for name, result in ours.items():
        if not norm.affine and name in ("dweight", "dbias"):
            continue
        if norm.special and "running" in name:
            continue  # PyTorch's own differ between devices in which of NaN and inf they hold
        yardstick = theirs[name].to(result.dtype)
        assert_as_accurate(name, result, yardstick, truth[name], size.get(name))
    if norm.mean:
        torch_y = plain(norm, torch.float32, F.batch_norm)["y"]
        assert_as_accurate("y against F.batch_norm", y, torch_y, truth["y"])
    if not norm.special:
        mean_chain, rstd_chain = statistics(norm, torch.float32)
        assert_as_accurate("mean", mean, mean_chain, mean_truth, size["mean"])
        assert_as_accurate("rstd", rstd, rstd_chain, rstd_truth)


def check_constant_channel(op: Any, device: str) -> None:
    """Check that a channel without spread gives its bias, whatever its value."""
    x = torch.full((4, 3, 3, 3), 1e3, device=device)
    bias = torch.tensor([0.5, -1.0, 2.0], device=device)
    y, _, rstd, *_ = op.forward(x, None, Half(None, bias), Half(None, bias, eps=1e-3), 2, False)
    assert torch.equal(y, bias[:, None, None].expand_as(y))
    torch.testing.assert_close(rstd[0].cpu(), torch.full((3,), 1e-5).rsqrt())


def _cases() -> dict[str, Norm]:
    base = Norm()
    cases: dict[str, Norm] = {}
    for layout, suffix in ((CHANNELS_LAST, "channels_last"), (CONTIGUOUS, "contiguous")):
        own = replace(base, layout=layout)
        for channels in (1, 3, 7, 33, 160):
            shape = (5, channels, 3, 7) if channels < 160 else (3, 160, 4, 4)
            cases[f"{channels}-channels-{suffix}"] = replace(own, shape=shape, num_main=2)
        for dtype in (torch.bfloat16, torch.float16):
            kind = str(dtype).removeprefix("torch.")
            cases[f"{kind}-{suffix}"] = replace(own, dtype=dtype, residual=True)
        cases |= {
            f"{name}-{suffix}": norm
            for name, norm in {
                "one-pixel": replace(own, shape=(9, 16, 1, 1), num_main=5),
                "one-row-a-group": replace(own, shape=(2, 5, 3, 3), num_main=1),
                "main-only": replace(own, num_main=6, residual=True),
                "aux-only": replace(own, num_main=0),
                "many-tiles": replace(own, shape=(7, 18, 5, 5), num_main=4, residual=True),
                "several-tiles-an-image": replace(own, shape=(3, 2, 33, 40), num_main=2),
                "large-mean": replace(own, shape=(8, 16, 8, 8), num_main=4, mean=1e3),
                "frozen": replace(own, training=(False, False), residual=True),
                "main-frozen": replace(own, training=(False, True)),
                "aux-frozen": replace(own, training=(True, False), relu=False),
                "no-relu": replace(own, relu=False, residual=True),
                "no-parameters": replace(own, affine=False, tracked=False),
                "bfloat16-parameters": replace(own, parameter_dtype=BF16, dtype=BF16),
                "special-values": replace(own, special=True, residual=True),
                "other-layout": replace(own, other_layout=True, residual=True),
                "dx-only": replace(own, wanted=(True, False, False, False)),
                "dresidual-only": replace(own, residual=True, wanted=(False, True, False, False)),
                "dweight-only": replace(own, wanted=(False, False, True, False)),
                "dbias-only": replace(own, wanted=(False, False, False, True), residual=True),
                "nothing": replace(own, wanted=(False, False, False, False)),
                "frozen-dx-only": replace(
                    own, training=(False, False), wanted=(True, False, False, False), relu=False
                ),
            }.items()
        }  # fmt: skip
    cases["two-dimensions"] = replace(base, shape=(9, 20), num_main=4)
    cases["three-dimensions"] = replace(base, shape=(4, 6, 10), num_main=2)
    return cases


CASES: dict[str, Callable[[Any, str], None]] = {
    name: partial(check, norm) for name, norm in _cases().items()
}
CASES["constant-channel"] = check_constant_channel
