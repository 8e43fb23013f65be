"""dual_batch_norm: values against float64, statistics, layouts, special values."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.ops import Half, dual_batch_norm
from entprop_fast.ops.dual_batch_norm_schema import flat
from tests.ops.checks import LAYOUTS, assert_no_worse
from tests.ops.conftest import needs_extension

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
SHAPES = ((4, 1, 3, 3), (4, 3, 1, 1), (6, 7, 5, 3), (3, 33, 7, 7), (8, 16, 4, 4), (2, 40, 17, 17))
EPS = (1e-5, 1e-3)
MOMENTUM = (0.1, 0.3)


class Case(NamedTuple):
    """Inputs of one call; the [2, C] tensors hold main's and the auxiliary group's values."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    grad: Tensor
    num_main: int
    training: tuple[bool, bool]
    relu: bool


def make_case(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    *,
    num_main: int | None = None,
    training: tuple[bool, bool] = (True, True),
    relu: bool = True,
    residual: bool = False,
    mean: float = 0.5,
) -> Case:
    torch.manual_seed(sum(shape))
    lay = LAYOUTS[layout]
    x = lay((torch.randn(shape) + mean).to(dtype))
    channels = shape[1]
    return Case(
        x,
        lay(torch.randn(shape).to(dtype)) if residual else None,
        (torch.rand(2, channels) + 0.5).to(dtype),
        torch.randn(2, channels).to(dtype),
        (torch.randn(2, channels) + mean).to(dtype),
        (torch.rand(2, channels) + 0.5).to(dtype),
        lay(torch.randn(shape).to(dtype)),
        shape[0] // 2 if num_main is None else num_main,
        training,
        relu,
    )


def torch_chain(
    case: Case, dtype: torch.dtype, batch_norm: Callable[..., Tensor] = F.batch_norm
) -> dict[str, Tensor]:
    """Split, `batch_norm` twice, cat, add, ReLU, and autograd, all in `dtype`."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype, copy=True).requires_grad_()

    x, weight, bias = leaf(case.x), leaf(case.weight), leaf(case.bias)
    residual = None if case.residual is None else leaf(case.residual)
    running_mean, running_var = case.running_mean.to(dtype, copy=True), case.running_var.to(dtype)
    running_var = running_var.clone()
    parts = []
    for group, rows in enumerate((x[: case.num_main], x[case.num_main :])):
        if len(rows) == 0:
            continue
        arguments = (running_mean[group], running_var[group], weight[group], bias[group])
        parts.append(
            batch_norm(rows, *arguments, case.training[group], MOMENTUM[group], EPS[group])
        )
    y = torch.cat(parts)
    y = y if residual is None else y + residual
    y = F.relu(y) if case.relu else y
    results = {"y": y, "running_mean": running_mean, "running_var": running_var}
    leaves = {"dx": x, "dweight": weight, "dbias": bias}
    leaves |= {} if residual is None else {"dresidual": residual}
    grads = torch.autograd.grad(y, [*leaves.values()], case.grad.to(dtype))
    return results | {"y": y.detach()} | dict(zip(leaves, grads, strict=True))


def run_ops(
    ops: SimpleNamespace, case: Case, wanted: tuple[bool, ...] = (True,) * 4
) -> dict[str, Tensor]:
    running = case.running_mean.clone(), case.running_var.clone()
    groups = zip(case.weight, case.bias, *running, case.training, MOMENTUM, EPS, strict=True)
    main, aux = (Half(*group) for group in groups)
    y, mean, rstd, mask, _ = ops.dual_batch_norm(
        *flat(case.x, case.residual, main, aux, case.num_main, case.relu)
    )
    residual = None if mask.numel() else case.residual
    affine = (main.weight, main.bias, aux.weight, aux.bias)
    dx, dresidual, dweight, dbias = ops.dual_batch_norm_backward(
        case.grad, case.x, residual, *affine, mean, rstd, mask, case.num_main,
        *case.training, case.relu, list(wanted),
    )  # fmt: skip
    results = {"y": y, "running_mean": running[0], "running_var": running[1]}
    results |= {"dx": dx, "dweight": dweight, "dbias": dbias, "mean": mean, "rstd": rstd}
    return results if case.residual is None else results | {"dresidual": dresidual}


def addends(case: Case) -> dict[str, float]:
    """Return the largest term, or sum of magnitudes, that each result is rounded against."""
    before_relu = torch_chain(case._replace(relu=False), torch.float64)["y"]
    grad = case.grad.double()
    if case.relu:
        grad = grad * (torch_chain(case, torch.float64)["y"] > 0)
    largest = {"dx": 0.0, "dweight": 0.0, "dbias": 0.0}
    for group, part in enumerate((slice(0, case.num_main), slice(case.num_main, None))):
        rows, g = case.x[part].double(), grad[part]
        if len(rows) == 0:
            continue
        var, mean = torch.var_mean(rows, (0, 2, 3), correction=0)
        if not case.training[group]:
            mean, var = case.running_mean[group].double(), case.running_var[group].double()
        rstd = (var + EPS[group]).rsqrt()[:, None, None]
        normalised = (rows - mean[:, None, None]) * rstd
        terms = {
            "dx": (g * rstd * case.weight[group].double()[:, None, None]).abs().max(),
            "dweight": (g * normalised).abs().sum((0, 2, 3)).max(),
            "dbias": g.abs().sum((0, 2, 3)).max(),
        }
        largest = {name: max(largest[name], term.item()) for name, term in terms.items()}
    return largest | {"y": max(before_relu.abs().max().item(), case.bias.abs().max().item())}


def check(ops: SimpleNamespace, case: Case) -> None:
    result = run_ops(ops, case)
    truth = torch_chain(case, torch.float64)
    chains = [torch_chain(case, case.x.dtype, batch_norm) for batch_norm in ops.batch_norms]
    scale = addends(case)
    for name, expected in truth.items():
        errors = [(chain[name].double() - expected).abs().max().item() for chain in chains]
        same = chains[errors.index(max(errors))][name]
        assert_no_worse(result[name], same, expected, addend=scale.get(name, 0.0), name=name)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values(
    ops: SimpleNamespace,
    dtype: torch.dtype,
    layout: str,
    shape: tuple[int, ...],
    relu: bool,
    residual: bool,
) -> None:
    for num_main in (0, shape[0] // 2, shape[0]):
        check(ops, make_case(shape, dtype, layout, num_main=num_main, relu=relu, residual=residual))


@pytest.mark.parametrize("training", [(False, False), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("residual", [False, True])
def test_frozen_groups(
    ops: SimpleNamespace, residual: bool, layout: str, training: tuple[bool, bool]
) -> None:
    check(ops, make_case((6, 7, 5, 3), layout=layout, training=training, residual=residual))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grad_layout", LAYOUTS)
def test_gradient_in_another_layout(ops: SimpleNamespace, layout: str, grad_layout: str) -> None:
    case = make_case((6, 9, 4, 5), layout=layout, residual=True)
    case = case._replace(grad=LAYOUTS[grad_layout](case.grad))
    check(ops, case)
    assert run_ops(ops, case)["dx"].stride() == torch.empty_like(case.x).stride()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_far_mean_a_constant_channel_and_more_rows_than_a_tile(
    ops: SimpleNamespace, layout: str
) -> None:
    check(ops, make_case((16, 24, 9, 9), layout=layout, relu=False, mean=1e3))
    case = make_case((6, 5, 4, 4), layout=layout, relu=False)
    case.x[:, 1] = 7.25
    check(ops, case)
    check(ops, make_case((5, 3, 61, 31), layout=layout, num_main=3, residual=True))
    check(ops, make_case((3, 2, 100, 101), layout=layout, num_main=1))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_first_image_far_from_the_others(ops: SimpleNamespace, layout: str) -> None:
    """A shift taken from the first values must not decide the accuracy of the variance."""
    case = make_case((16, 24, 9, 9), layout=layout, relu=False, num_main=16, mean=1e3)
    case.x[0] = 0
    check(ops, case)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_threads(ops: SimpleNamespace, layout: str, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(ops, make_case((13, 24, 17, 17), layout=layout, num_main=4, residual=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_not_finite(ops: SimpleNamespace, layout: str, training: bool, value: float) -> None:
    case = make_case((6, 5, 4, 4), layout=layout, training=(training, training), residual=True)
    case.x[1, 2, 3, 3] = value
    result, expected = run_ops(ops, case), torch_chain(case, torch.float32)
    for name in expected:
        if "running" in name and result[name].is_cuda:
            continue  # which of NaN and infinity they become differs between PyTorch's devices
        torch.testing.assert_close(
            result[name], expected[name], equal_nan=True, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("wanted", [tuple(bool(n >> b & 1) for b in range(4)) for n in range(16)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_only_what_is_wanted(ops: SimpleNamespace, layout: str, wanted: tuple[bool, ...]) -> None:
    case = make_case((4, 9, 3, 3), layout=layout, residual=True)
    everything, some = run_ops(ops, case), run_ops(ops, case, wanted)
    for want, name in zip(wanted, ("dx", "dresidual", "dweight", "dbias"), strict=True):
        expected = everything[name] if want else torch.empty(0)
        assert some[name].shape == expected.shape
        torch.testing.assert_close(some[name], expected)


def test_statistics_of_an_empty_group_are_zero(ops: SimpleNamespace) -> None:
    for num_main, empty in ((0, 0), (4, 1)):
        result = run_ops(ops, make_case((4, 5, 3, 3), num_main=num_main))
        assert not result["mean"][empty].any() and not result["rstd"][empty].any()
        assert not result["dweight"][empty].any() and not result["dbias"][empty].any()


def test_half_and_mixed_parameters(ops: SimpleNamespace) -> None:
    case = make_case((6, 8, 4, 4))
    for dtype in (torch.float16, torch.bfloat16):
        mixed = case._replace(x=case.x.to(dtype), grad=case.grad.to(dtype))
        result, truth = run_ops(ops, mixed), torch_chain(mixed, torch.float64)
        assert result["y"].dtype == result["dx"].dtype == dtype
        tolerance = torch.finfo(dtype).eps * 8
        torch.testing.assert_close(result["y"].double(), truth["y"], rtol=0, atol=tolerance)
        torch.testing.assert_close(result["dx"].double(), truth["dx"], rtol=0, atol=tolerance)


def test_unused_residual_is_not_kept_for_backward(backend: str) -> None:
    if backend != "cpp":
        return  # the GPU kernels recompute the sign, and for that read the residual
    x = torch.randn(4, 8, 3, 3, requires_grad=True)
    residual = torch.randn(4, 8, 3, 3)
    y = dual_batch_norm(x, num_main=2, residual=residual, relu=True)
    kept = [t for t in y.grad_fn.saved_tensors if t is not None]  # type: ignore[union-attr]
    assert all(t.data_ptr() != residual.data_ptr() for t in kept)


@needs_extension
def test_error_of_the_reference_reaches_the_caller() -> None:
    """Where the kernels cover nothing (float16) the error passes through C++."""
    # torch.stable's C interface hands on what an op raised.
    tells = torch.__version__ >= torch.torch_version.TorchVersion("2.13")
    mixed = Half(torch.ones(6).half(), torch.zeros(6))
    with pytest.raises(RuntimeError, match="expected scalar type" if tells else "stderr"):
        dual_batch_norm(torch.randn(4, 6, 3, 3).half(), mixed)
