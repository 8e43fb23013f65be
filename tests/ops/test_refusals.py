"""FOUND S3, W8: raw ops refuse what does not fit, whoever implements them, and name it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from entprop_fast.ops.backend import TRITON_OPS
from tests.ops import fuzz
from tests.ops.arguments import MAKE, Arguments
from tests.ops.conftest import needs_extension

CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


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


def _refusal(op: Callable[..., Any], arguments: Arguments) -> Exception:
    found = fuzz.outcome(op, arguments)
    assert isinstance(found, Exception), "taken"
    assert type(found) in fuzz.REFUSALS, repr(found)
    return found


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
            told = _refusal(implemented, VALID[name]() | {argument: spoil(value)})
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
    assert fuzz.named(_refusal(implemented, VALID[name]() | {argument: value})) == argument


def test_a_step_without_rows_to_take_from() -> None:
    """FOUND S3: an index into no rows, read on no device."""
    x = torch.zeros(0, 3, 2, 5)
    arguments = VALID["gather_perturb"]() | {"x": x, "grad": x}
    for suffix in ("", "_reference"):
        found = fuzz.outcome(fuzz.overload("gather_perturb", suffix), arguments)
        assert isinstance(found, IndexError)


def _shared(name: str, target: str, other: str, start: int = 1) -> Arguments:
    """`target` a few elements into the memory of `other`."""
    given = VALID[name]()
    big, small = given[other], given[target]
    memory = torch.cat([big.flatten(), torch.zeros(small.numel() + start, dtype=big.dtype)])
    view = memory[start : start + small.numel()].view(small.shape)
    return given | {other: memory[: big.numel()].view(big.shape), target: view}


WRITES = [("gather_perturb.out", "out", n) for n in ("x", "grad", "alpha", "eps", "lo", "hi")]
WRITES += [("perturb_", "x_adv", n) for n in ("x", "grad", "alpha", "eps", "lo", "hi")]
MOVED = ("running_mean", "running_var", "aux_running_mean", "aux_running_var")
WRITES += [("dual_batch_norm_merge", n, "gathered") for n in MOVED]
WRITES += [
    ("dual_batch_norm", moved, other)
    for moved in MOVED
    for other in ("x", "residual", "addend", "weight", "aux_bias", *MOVED)
    if moved != other
]


@pytest.mark.parametrize(("name", "target", "other"), WRITES)
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("suffix", [pytest.param("", marks=needs_extension), "_reference"])
def test_shared_memory_is_refused(
    name: str, target: str, other: str, start: int, suffix: str
) -> None:
    """FOUND W8: what an op writes, in the memory of what it reads or writes too."""
    told = _refusal(fuzz.overload(name, suffix), _shared(name, target, other, start))
    assert fuzz.named(told) in (target, other) and "memory" in str(told)


@pytest.mark.parametrize(("name", "target"), sorted({(name, target) for name, target, _ in WRITES}))
@pytest.mark.parametrize("suffix", [pytest.param("", marks=needs_extension), "_reference"])
def test_an_expanded_output_is_refused(name: str, target: str, suffix: str) -> None:
    """FOUND W8: many elements in one place."""
    given = VALID[name]()
    value = given[target]
    given[target] = value.narrow(value.dim() - 1, 0, 1).clone().expand(value.shape)
    assert fuzz.named(_refusal(fuzz.overload(name, suffix), given)) == target


@pytest.mark.parametrize("suffix", [pytest.param("", marks=needs_extension), "_reference"])
def test_parts_of_one_memory_that_are_apart(suffix: str) -> None:
    """Channels of one batch, rows of another, columns of a table: no element is shared."""
    given, plain = _step("out"), _step("out")
    wide = torch.zeros(4, 6, 2, 5)
    wide[:, :3] = given["x"]
    both = {"x": wide[:, :3], "out": wide[:2, 3:]}
    rows = torch.cat([given["x"], given["out"]])
    apart = {"x": rows[:4], "out": rows[4:]}
    expected = fuzz.outcome(fuzz.overload("gather_perturb.out", suffix), plain)
    assert not isinstance(expected, Exception)
    for change in (both, apart):
        found = fuzz.outcome(fuzz.overload("gather_perturb.out", suffix), given | change)
        assert not isinstance(found, Exception), found
        assert torch.equal(found[-1], plain["out"])
    table = torch.stack([torch.zeros(3), torch.ones(3)], 1)
    norm = _norm() | {"running_mean": table[:, 0], "running_var": table[:, 1]}
    moved = _norm() | {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    assert not isinstance(fuzz.outcome(fuzz.overload("dual_batch_norm", suffix), norm), Exception)
    fuzz.outcome(fuzz.overload("dual_batch_norm", suffix), moved)
    assert torch.equal(table, torch.stack([moved["running_mean"], moved["running_var"]], 1))


def test_strided_views_of_one_memory_are_right() -> None:
    """FOUND W8: what cannot be told apart is computed before it is written, as for torch's out=."""
    for suffix in ("", "_reference"):
        given, plain = _step("out"), _step("out")
        memory = torch.zeros(4, 6, 2, 5)
        memory[:, ::2] = given["x"]
        found = given | {"x": memory[:, ::2], "out": memory[1:3, ::2]}
        fuzz.outcome(fuzz.overload("gather_perturb.out", suffix), plain)
        assert not isinstance(
            fuzz.outcome(fuzz.overload("gather_perturb.out", suffix), found), Exception
        )
        assert torch.equal(found["out"], plain["out"])


@needs_extension
def test_random_arguments() -> None:
    """FOUND S3: `python -m tests.ops.fuzz` runs more of them."""
    names = list(MAKE)
    cases = [f"{names[n % len(names)]}/test.{n}" for n in range(270)]
    assert [told for case in cases if (told := fuzz.differ(case.partition("/")[0], case))] == []
