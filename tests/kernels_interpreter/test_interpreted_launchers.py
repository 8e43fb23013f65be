"""entprop_fast/ops/triton.py: what a kernel covers reaches it, the rest the reference op."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.norm_half import Half
from entprop_fast.ops import triton
from entprop_fast.ops.library import CHECKS, NAMESPACE
from tests.kernel_cases.accuracy import assert_as_accurate


def _norm(x: Tensor) -> tuple[Any, ...]:
    """Both groups, no residual: on the CPU the reference packs a mask with one, Triton none."""
    parameters = torch.linspace(0.5, 1.5, 8 * x.shape[1]).view(8, -1).to(x.dtype).unbind()
    return (x, None, *parameters, 2, True, True, 0.1, 0.2, 1e-5, 1e-3, True)


def _norm_backward(x: Tensor) -> tuple[Any, ...]:
    arguments = _norm(x)
    wide = x.double()
    parts = (wide[:2].movedim(1, 0).flatten(1), wide[2:].movedim(1, 0).flatten(1))
    mean = torch.stack([part.mean(1) for part in parts])
    rstd = torch.stack([(part.var(1, correction=0) + 1e-3).rsqrt() for part in parts])
    kept = [t if x.dtype == torch.float64 else t.float() for t in (mean, rstd)]
    affine = (*arguments[2:4], *arguments[6:8])
    mask = torch.empty(0, dtype=torch.uint8)
    return (x.sin(), x, None, *affine, *kept, mask, 2, True, True, True, [True, False, True, True])


def _moments(x: Tensor) -> tuple[Any, ...]:
    return (x, 3, True, True)


def _merge(x: Tensor) -> tuple[Any, ...]:
    """Moments of three processes, some of no rows; main moves by momentum, auxiliary to a mean."""
    gathered = x + 5
    gathered[:, :, -1] = torch.tensor([[6, 0], [0, 7], [9, 2]])
    gathered[gathered[:, :, -1] == 0] = 0
    running = torch.ones(4, x.shape[2] // 2, dtype=x.dtype).unbind()
    counters = [torch.tensor([count]).squeeze() for count in (3, 4)]
    return (gathered, *running[:2], counters[0], *running[2:], counters[1], 0.1, None)


def _norm_dx(x: Tensor) -> tuple[Any, ...]:
    grad, *given, _ = _norm_backward(x)
    kept = given[6]
    sums = torch.linspace(-3, 3, 4 * x.shape[1]).view(2, 2, -1).to(kept.dtype)
    count = torch.tensor([40, 50], dtype=kept.dtype)
    return (grad, *given[:9], sums, count, *given[9:])


def _loss(logits: Tensor) -> tuple[Any, ...]:
    labels = torch.arange(len(logits)) % logits.shape[1]
    return (logits, labels, labels.flip(0), torch.tensor(0.3), 0.1, "margin")


def _topk(score: Tensor) -> tuple[Any, ...]:
    return (score, 3)


MAKE: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
    "dual_batch_norm": _norm,
    "dual_batch_norm_backward": _norm_backward,
    "dual_batch_norm_moments": _moments,
    "dual_batch_norm_dx": _norm_dx,
    "dual_batch_norm_merge": _merge,
    "loss_and_entropy": _loss,
    "select_topk": _topk,
}
NORMS = list(MAKE)[:4]
SHAPES: dict[str, tuple[int, ...]] = dict.fromkeys(NORMS, (4, 6, 3, 3))
SHAPES |= {"dual_batch_norm_merge": (3, 2, 301), "loss_and_entropy": (4, 6), "select_topk": (7,)}
_MERGE = "dual_batch_norm_merge"  # takes what the moments are of, float32
ANY_LAYOUT: dict[str, Callable[[Tensor], Tensor]] = {
    "sliced": lambda x: torch.stack([x, x + 1], 2)[:, :, 0],
    "expanded": lambda x: x[:, :, :1, :1].expand(x.shape),
    "permuted": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
}
COVERED: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    **{f"{name}-float32": (name, lambda x: x) for name in MAKE},
    **{f"{name}-bfloat16": (name, lambda x: x.bfloat16()) for name in MAKE if name != _MERGE},
    **{f"{name}-{layout}": (name, ANY_LAYOUT[layout]) for name in NORMS for layout in ANY_LAYOUT},
}
UNCOVERED: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    *((name, lambda x: x.double()) for name in MAKE),
    ("loss_and_entropy", lambda x: x.T.contiguous().T),
    ("loss_and_entropy", lambda x: x.repeat(1, 1366)),  # 8196 classes
]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels' launchers, as they are called."""
    calls: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        run = getattr(triton.kernel_of(name), name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return run(*arguments)

        return call

    for name in MAKE:
        monkeypatch.setattr(triton.kernel_of(name), name, watched(name))
    return calls


def _results(function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Tensor]:
    """Return the outputs, and the tensors that may have been changed in place."""
    own = [a.clone() if isinstance(a, Tensor) and a.dim() < 2 else a for a in arguments]
    returned = function(*own)
    changed = [a for a in own if isinstance(a, Tensor) and a.dim() < 2]
    return [*([returned] if isinstance(returned, Tensor) else returned), *changed]


def _compare(name: str, x: Tensor) -> list[Tensor]:
    """Return the launcher's results; they err no more than the reference op's in the same dtype."""
    launch = triton.launcher_of(name)
    reference = getattr(getattr(torch.ops, NAMESPACE), f"{name}_reference").default
    wide = (
        a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in MAKE[name](x)
    )
    results = _results(launch, MAKE[name](x))
    same, truth = _results(reference, MAKE[name](x)), _results(reference, tuple(wide))
    for number, three in enumerate(zip(results, same, truth, strict=True)):
        if three[0].is_floating_point():
            assert_as_accurate(f"result {number}", *three)
        else:
            assert torch.equal(three[0], three[2])
    return results


def _input(name: str) -> Tensor:
    return torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", COVERED)
def test_covered_input_goes_to_the_kernel(kind: str, called: list[str]) -> None:
    name, make = COVERED[kind]
    x = make(_input(name))
    results = _compare(name, x)
    assert called == [name]
    if results[0].shape == x.shape and name in NORMS:
        assert results[0].stride() == torch.empty_like(x).stride()
    kernel = getattr(triton.kernel_of(name), name)
    unpack = CHECKS[name][1] or (lambda *arguments: arguments)
    direct_results = _results(lambda *arguments: kernel(*unpack(*arguments)), MAKE[name](x))
    for result, direct in zip(results, direct_results, strict=True):
        assert torch.equal(result, direct)


@pytest.mark.parametrize(("name", "make"), UNCOVERED)
def test_the_rest_goes_to_the_reference(
    name: str, make: Callable[[Tensor], Tensor], called: list[str]
) -> None:
    _compare(name, make(_input(name)))
    assert called == []


@pytest.mark.parametrize(
    ("shape", "covered"),
    [
        ((4, 8, 2**13, 2**13), True),
        ((2, 2**5, 2**13, 2**13), False),  # 2^31 elements an image
        ((2**18, 3, 2**7, 2**7), False),  # 2^32 a channel
        ((2**18, 2**9, 2**6), True),  # 2^33 elements, but 2^24 a channel
        ((2, 2**23), False),
        ((0, 3, 4, 4), False),
        ((7,), False),
    ],
)
def test_sizes_of_the_norm(shape: tuple[int, ...], covered: bool) -> None:
    x = torch.empty(shape, device="meta", dtype=torch.bfloat16)
    mean, rstd = torch.empty(2, 2, 3, device="meta").unbind()
    kept = (mean, rstd, x.new_empty(0), 2, True, [True] * 4)
    assert triton.kernel_of("dual_batch_norm").covers(x, None, Half(), Half(), 2, True) == covered
    assert (
        triton.kernel_of("dual_batch_norm_backward").covers(x, x, None, Half(), Half(), *kept)
        == covered
    )


def test_tensors_of_another_device_are_not_covered() -> None:
    x, parameter = torch.randn(4, 3, 2, 2), torch.ones(3)
    norm, none = triton.kernel_of("dual_batch_norm"), Half()
    assert norm.covers(x, x, Half(parameter), none, 2, True)
    assert not norm.covers(x, x.to("meta"), Half(parameter), none, 2, True)
    assert not norm.covers(x, x, Half(parameter.to("meta")), none, 2, True)
    assert not norm.covers(x, x, none, Half(running_var=parameter.to("meta")), 2, True)
    loss, labels, lam = triton.kernel_of("loss_and_entropy"), torch.zeros(4).long(), torch.ones(())
    assert loss.covers(x[:, :, 0, 0].contiguous(), labels, labels, lam)
    assert not loss.covers(x[:, :, 0, 0].contiguous(), labels, labels, lam.to("meta"))
