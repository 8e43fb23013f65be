"""FOUND S3: raw ops refuse what does not fit, whoever implements them, and name it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from entprop_fast.ops.backend import TRITON_OPS
from tests.ops import fuzz
from tests.ops.arguments import MAKE
from tests.ops.conftest import needs_extension
from tests.ops.valid_arguments import VALID, refusal

CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
SPOILED: dict[str, Callable[[Tensor], Tensor]] = {
    "smaller": lambda t: t.narrow(0, 0, t.shape[0] - 1) if t.dim() else t.new_zeros(0),
    "larger": lambda t: torch.cat([t, t[:1]]) if t.dim() else t.new_zeros(2),
    "another dimension": lambda t: t.unsqueeze(0),
    "no dimension": lambda t: t.new_zeros(()) if t.dim() else t.new_zeros(0),
    "integers": lambda t: t.to(torch.int32),
    "complex": lambda t: t.to(torch.complex64),
    "elsewhere": lambda t: t.to("meta"),
}
# What is another valid call: nothing else has to have as many rows, or be on a device.
SIZES = ("smaller", "larger")
FITS = {
    ("select_topk", "score"): (*SIZES, "elsewhere"),
    ("gather_perturb", "index"): SIZES,
    ("perturb_", "x"): SIZES,
    ("dual_batch_norm_moments", "x"): (*SIZES, "elsewhere", "another dimension"),
    ("dual_batch_norm_merge", "gathered"): SIZES,
    ("conv3x3", "x"): SIZES,
    ("conv3x3", "weight"): SIZES,
    ("pixmix_rounds", "pool"): SIZES,
    ("prime_chains", "bands"): ("integers",),
}
BEYOND: dict[str, dict[str, list[Any]]] = {
    "dual_batch_norm": {"num_main": [-1, 5, 2**40], "eps": [0.0, -1.0], "aux_eps": [-1e-9]},
    "dual_batch_norm_backward": {"num_main": [-1, 5, -(2**40)], "wanted": [[True] * 3, []]},
    "dual_batch_norm_moments": {"num_main": [-1, 5, 2**40]},
    "dual_batch_norm_merge": {"num_batches": [None]},
    "dual_batch_norm_dx": {"num_main": [-1, 5]},
    "loss_and_entropy": {"label_smoothing": [-0.1, 1.5, float("nan")], "score": ["", "Margin"]},
    "select_topk": {"k": [-1, 6, 2**40]},
    "prime_chains": {"highest": [0, -1, 2**40], "kernel": [-3, 1, 4, 9]},
}


def _through_cuda(name: str) -> Callable[..., Any]:
    """Return the Triton launcher that is registered for CUDA, on tensors of the CPU."""
    overload = fuzz.overload(name)
    return lambda *arguments: overload.redispatch(CUDA, *arguments)


def _fake(name: str) -> Callable[..., Any]:
    """Return the op as a compiler sees it."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        with FakeTensorMode() as mode:
            given = {key: _faked(mode, value) for key, value in keywords.items()}
            return fuzz.overload(name)(*(_faked(mode, v) for v in arguments), **given)

    return call


def _faked(mode: FakeTensorMode, value: Any) -> Any:
    return mode.from_tensor(value) if isinstance(value, Tensor) else value


def _reference(name: str) -> Callable[..., Any]:
    op: Callable[..., Any] = fuzz.overload(name, "_reference")
    return op


IMPLEMENTED: dict[str, Callable[[str], Callable[..., Any]]] = {
    "cpp": fuzz.overload,
    "reference": _reference,
    "triton": _through_cuda,
    "fake": _fake,
}


@pytest.fixture(
    params=[pytest.param("cpp", marks=needs_extension), "reference", "triton", "fake"],
)
def implemented(request: pytest.FixtureRequest, name: str) -> Callable[..., Any]:
    """Return the op `name` of one implementation."""
    if request.param == "triton" and name not in TRITON_OPS:
        pytest.skip("csrc/cuda serves it: tests/kernels_aot/test_cuda_binding.py")
    return IMPLEMENTED[request.param](name)


@pytest.mark.parametrize("name", VALID)
def test_what_fits_is_taken(name: str, implemented: Callable[..., Any]) -> None:
    """Without this the refusals below could have another reason."""
    if implemented.__name__ == "<lambda>" and name in TRITON_OPS:
        pytest.skip("a launch needs a GPU")
    assert not isinstance(fuzz.outcome(implemented, VALID[name]()), Exception)


@pytest.mark.parametrize("name", VALID)
def test_a_spoiled_tensor_is_named(name: str, implemented: Callable[..., Any]) -> None:
    """FOUND S3: a smaller or larger tensor, another dtype, device or number of dimensions."""
    for argument, value in VALID[name]().items():
        if not isinstance(value, Tensor):
            continue
        for kind, spoil in SPOILED.items():
            if kind in FITS.get((name, argument), ()):
                continue
            told = refusal(implemented, VALID[name]() | {argument: spoil(value)})
            # All else is compared with these: it may be named in their place.
            leading = argument in ("x", "logits", "index", "weight", "x_adv", "gathered", "images")
            assert leading or fuzz.named(told) == argument, f"{argument}, {kind}: {told}"


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [(n, a, v) for n, all_of in BEYOND.items() for a, values in all_of.items() for v in values],
)
def test_a_number_beyond_is_named(
    name: str, argument: str, value: Any, implemented: Callable[..., Any]
) -> None:
    """FOUND S3: a negative or too large k, rows outside of the batch, an unknown score."""
    assert fuzz.named(refusal(implemented, VALID[name]() | {argument: value})) == argument


def test_a_step_without_rows_to_take_from() -> None:
    """FOUND S3: an index into no rows, read on no device."""
    x = torch.zeros(0, 3, 2, 5)
    arguments = VALID["gather_perturb"]() | {"x": x, "grad": x}
    for suffix in ("", "_reference"):
        found = fuzz.outcome(fuzz.overload("gather_perturb", suffix), arguments)
        assert isinstance(found, IndexError)


@needs_extension
def test_random_arguments() -> None:
    """FOUND S3: `python -m tests.ops.fuzz` runs more of them."""
    names = list(MAKE)
    cases = [f"{names[n % len(names)]}/test.{n}" for n in range(270)]
    assert [told for case in cases if (told := fuzz.differ(case.partition("/")[0], case))] == []
