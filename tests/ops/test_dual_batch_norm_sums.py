"""dual_batch_norm with the sums around it, and its counters: the bits of what it stands for."""

import copy
from collections.abc import Callable
from itertools import cycle, product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from entprop_fast.norm_half import Half, Normed
from entprop_fast.ops import dual_batch_norm
from entprop_fast.ops.dual_batch_norm import BACKWARD, OP, dual_batch_norm_outputs
from entprop_fast.ops.dual_batch_norm_schema import flat
from tests.ops.checks import LAYOUTS
from tests.ops.test_dual_batch_norm import EPS, MOMENTUM, Case, make_case

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPES = ((4, 3, 1, 1), (6, 7, 5, 3), (3, 33, 7, 7), (70, 16, 4, 4), (2, 40, 17, 17))
TRAINING = ((True, True), (True, False), (False, False))


def half(*values: Any, **settings: Any) -> Half:
    return Half(*values, **settings)


def halves(case: Case, counted: bool) -> tuple[Half, Half]:
    """Return both halves on clones of what moves."""
    running = case.running_mean.clone(), case.running_var.clone()
    groups = zip(case.weight, case.bias, *running, case.training, MOMENTUM, EPS, strict=True)
    counters = [torch.tensor(2**40 + k) if counted else None for k in (0, 1)]
    main, aux = (half(*group, counter) for group, counter in zip(groups, counters, strict=True))
    return main, aux


def assert_same(ours: Any, theirs: Any) -> None:
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a is not None:
            assert torch.equal(a, b), f"result {number} differs by {(a - b).abs().max()}"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_have_the_bits_of_sums_outside(
    ops: SimpleNamespace, dtype: torch.dtype, layout: str, shape: tuple[int, ...]
) -> None:
    rows = ((0, True), (shape[0] // 2, False), (shape[0], True))
    layouts = cycle(LAYOUTS.values())
    for ((num_main, residual), training), lay in zip(product(rows, TRAINING), layouts):  # noqa: B905
        case = make_case(
            shape, dtype, layout, num_main=num_main, training=training, residual=residual
        )
        addend, again, dtotal = (lay(case.grad.roll(k, 0) * k) for k in (1, 2, 3))
        main, aux = halves(case, counted=True)
        found = ops.dual_batch_norm(
            *flat(case.x, case.residual, main, aux, num_main, case.relu, addend)
        )
        own, other = halves(case, counted=False)
        total = torch.empty_like(case.x).copy_(case.x + addend)
        expected = ops.dual_batch_norm(*flat(total, case.residual, own, other, num_main, case.relu))
        assert_same(found[:4], expected[:4])
        assert torch.equal(found[4], total) and found[4].stride() == total.stride()
        assert expected[4].shape == (0,)
        for ours, theirs in zip((main, aux), (own, other), strict=True):
            assert_same(ours.tensors, theirs.tensors)
        counts = [half.num_batches.item() - 2**40 for half in (main, aux)]  # type: ignore[union-attr]
        assert counts == [training[0] * (num_main > 0), 1 + training[1] * (num_main < shape[0])]

        *_, mean, rstd, mask, _ = found
        kept = None if mask.numel() else case.residual
        affine = (main.weight, main.bias, aux.weight, aux.bias)
        settings = (num_main, *training, case.relu, [True, residual, True, True])
        given = (*affine, mean, rstd, mask, *settings)
        ours = ops.dual_batch_norm_backward(case.grad, total, kept, *given, again, dtotal)
        both = torch.empty_like(case.x).copy_(case.grad + again)
        dx, *others = ops.dual_batch_norm_backward(both, total, kept, *given)
        assert_same(ours, (dx + dtotal, *others))
        assert ours[0].stride() == dx.stride()


def composed(
    x: Tensor, addend: Tensor, main: Half, aux: Half, num_main: int, relu: bool
) -> Normed:  # fmt: skip
    """The same by sums that autograd does itself."""
    total = x + addend
    y = dual_batch_norm(total, main, aux, num_main, relu=relu)
    return Normed(y, y, total)


def fused(
    x: Tensor, addend: Tensor, main: Half, aux: Half, num_main: int, relu: bool
) -> Normed:  # fmt: skip
    return dual_batch_norm_outputs(x, main, aux, num_main, relu=relu, addend=addend, twice=True)


USES: dict[str, Callable[[Normed], Tensor]] = {
    "all": lambda n: n.y.sin().sum() + n.again.cos().sum() + n.total.square().sum(),
    "the first": lambda n: n.y.sin().sum(),
    "the second": lambda n: n.again.cos().sum(),
    "the sum": lambda n: n.total.square().sum(),
    "two": lambda n: n.y.sin().sum() + n.again.cos().sum(),
    "no second": lambda n: n.y.sin().sum() + n.total.square().sum(),
}


def arguments(dtype: torch.dtype, layout: str = "channels_last") -> list[Tensor]:
    torch.manual_seed(5)
    images = [LAYOUTS[layout](torch.randn(5, 6, 3, 2).to(dtype)) for _ in range(2)]
    return [*images, *((torch.rand(6) + 0.5).to(dtype) for _ in range(4))]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_have_the_bits_of_autograd(
    backend: str, layout: str, dtype: torch.dtype, use: str
) -> None:
    results: list[list[Tensor | None]] = []
    for function in (composed, fused):
        leaves = [t.requires_grad_() for t in arguments(dtype, layout)]
        x, addend, *affine = leaves
        normed = function(x, addend, half(*affine[:2]), half(*affine[2:]), num_main=3, relu=True)
        USES[use](normed).backward()
        results.append([*normed, *(t.grad for t in leaves)])
    composed_found, fused_found = results
    for number, (a, b) in enumerate(zip(composed_found, fused_found, strict=True)):
        assert (a is None) == (b is None), number
        assert a is None or b is None or torch.equal(a, b), number


@pytest.mark.parametrize("use", ["all", "no second", "the second"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_and_second_gradients(backend: str, training: bool, use: str) -> None:
    """Against numerical ones; a second derivative runs through what was normalised, too."""
    running = torch.linspace(-1, 1, 6, dtype=torch.float64), torch.linspace(1, 2, 6).double()

    def function(x: Tensor, addend: Tensor, *affine: Tensor) -> Tensor:
        main, aux = (
            half(*affine[:2], *(t.clone() for t in running), training),
            half(*affine[2:]),
        )
        return USES[use](fused(x, addend, main, aux, num_main=3, relu=True))

    inputs = tuple(t.requires_grad_() for t in arguments(torch.float64))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_only_what_asks_for_a_gradient_gets_one(backend: str) -> None:
    x, addend, weight, bias, *_ = arguments(torch.float32)
    own = Half(weight.requires_grad_(), bias)
    normed = fused(x, addend, own, own, num_main=5, relu=True)
    assert normed.y.requires_grad and normed.again.requires_grad
    assert not normed.total.requires_grad  # as of a sum of what needs none
    for asks in ((True, False), (False, True)):
        one, two = (t.clone().requires_grad_(a) for t, a in zip((x, addend), asks, strict=True))
        USES["all"](fused(one, two, own, own, num_main=5, relu=True)).backward()
        assert (one.grad is not None, two.grad is not None) == asks


@pytest.mark.parametrize("changed", ["y", "again", "total"])
@pytest.mark.parametrize("change", [torch.relu_, lambda t: t.mul_(2), lambda t: t.add_(1)])
def test_a_change_in_place_is_refused_or_right(backend: str, changed: str, change: Any) -> None:
    """Never silently wrong: the sum of all uses has the gradient of the graph without views."""
    results: list[list[Tensor | None] | None] = []
    for function in (composed, fused):
        leaves = [t.requires_grad_() for t in arguments(torch.float64)]
        x, addend, *affine = leaves
        normed = function(x, addend, half(*affine[:2]), half(*affine[2:]), num_main=3, relu=True)
        if function is composed:  # one tensor there: a change reaches both readers
            change(getattr(normed, changed))
            try:
                USES["all"](normed).backward()
            except RuntimeError:
                results.append(None)
                continue
        else:
            try:
                change(getattr(normed, changed))
                USES["all"](normed).backward()
            except RuntimeError as error:
                assert "in-place" in str(error) or "inplace" in str(error)
                return
        results.append([t.grad for t in leaves])
    assert results[0] is not None, "refused without views, taken with them"
    assert_same(results[1], results[0])


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_a_checkpoint(backend: str, reentrant: bool) -> None:
    results: list[list[Tensor | None]] = []
    for recompute in (False, True):
        leaves = [t.requires_grad_() for t in arguments(torch.float32)]

        def function(x: Tensor, addend: Tensor, *affine: Tensor) -> Tensor:
            halves = half(*affine[:2]), half(*affine[2:])
            return USES["all"](fused(x, addend, *halves, num_main=3, relu=True))

        if recompute:
            checkpoint(function, *leaves, use_reentrant=reentrant).backward()
        else:
            function(*leaves).backward()
        results.append([t.grad for t in leaves])
    assert_same(*results)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiled(backend: str, layout: str) -> None:
    def function(counter: Tensor, x: Tensor, addend: Tensor, *affine: Tensor) -> Tensor:
        main = half(*affine[:2], num_batches=counter)
        return USES["all"](fused(x, addend, main, half(*affine[2:]), num_main=3, relu=True))

    results = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        leaves, counter = [t.requires_grad_() for t in arguments(torch.float32)], torch.tensor(7)
        run(counter, *leaves).backward()
        results.append([t.grad for t in leaves])
        assert counter == 8
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("given", [(True, False), (False, True), (True, True)])
def test_opcheck(device: str, layout: str, given: tuple[bool, bool]) -> None:
    case = make_case((5, 9, 4, 3), layout=layout, num_main=2)
    main, aux = halves(case, counted=True)
    addend = case.grad if given[0] else None
    if not given[1]:
        aux = aux._replace(num_batches=None)
    args = flat(case.x, None, main, aux, 2, True, addend)
    torch.library.opcheck(OP, args)
    _, mean, rstd, mask, _ = OP(*args)
    affine = (main.weight, main.bias, aux.weight, aux.bias)
    settings = (2, True, True, True, [True, False, True, False])
    more = [case.grad if wanted else None for wanted in given]
    torch.library.opcheck(
        BACKWARD, (case.x, case.x, None, *affine, mean, rstd, mask, *settings, *more)
    )


def test_torch_func_and_forward_mode_take_the_sums(backend: str) -> None:
    """The differentiable path: `again` is `y` itself there."""
    x, addend, *affine = arguments(torch.float64)
    halves = half(*affine[:2]), half(*affine[2:])

    def function(x: Tensor) -> Tensor:
        return USES["all"](fused(x, addend, *halves, num_main=3, relu=True))

    expected = x.clone().requires_grad_()
    function(expected).backward()
    torch.testing.assert_close(torch.func.grad(function)(x), expected.grad)


def test_a_refused_call_counts_nothing(backend: str) -> None:
    counter = torch.tensor(3)
    own = Half(num_batches=counter)
    with pytest.raises(ValueError, match="addend"):
        dual_batch_norm_outputs(torch.randn(4, 3, 2, 2), own, addend=torch.randn(4, 3, 2, 1))
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        dual_batch_norm(torch.randn(1, 3, 1, 1), own)
    for wrong in (torch.tensor(3.0), torch.zeros(1, dtype=torch.int64)):
        with pytest.raises(ValueError, match="num_batches"):
            dual_batch_norm(torch.randn(4, 3, 2, 2), Half(num_batches=wrong))
    assert counter == 3
    dual_batch_norm(torch.randn(4, 3, 2, 2), own, copy.deepcopy(own), 4)
    assert counter == 4
