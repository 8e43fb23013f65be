"""Deliberately broken copies of the Triton kernels: the value cases must notice each of them."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import entprop_fast.kernels
from tests.kernel_cases import dual_batch_norm as norm_cases
from tests.kernel_cases import dual_batch_norm_sums as sum_cases
from tests.kernel_cases import image_chains as chain_cases
from tests.kernel_cases import loss_and_entropy as loss_cases
from tests.kernel_cases import prime_chains as prime_cases
from tests.kernel_cases import select_topk as topk_cases

MODULES = (
    "select_topk", "loss_and_entropy", "dual_batch_norm", "dual_batch_norm_backward",
    "image_chains", "prime_chains",
)  # fmt: skip
KERNELS = Path(entprop_fast.kernels.__file__).parent
TOPK = {
    "tie": ("other[None, :] < row[:, None]", "other[None, :] > row[:, None]"),
    "nan": ("tl.where(score != score, 0x7FFFFFFF, key)", "key"),
    "zero": ("score = tl.where(score == 0, 0.0, score)", "pass"),
    "negative": ("tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)", "bits"),
    "tail": ("& (other < rows)[None, :]", ""),
    "stride": ("score + other * stride", "score + other"),
}
LOSS = {
    "shift": ("x - tl.max(x, axis=0)", "x"),
    "smoothing": ("+ smoothing / classes", ""),
    "lam": ("(1.0 - weight) * is_b", "weight * is_b"),
    "label": ("valid = valid_a & (y_b >= 0) & (y_b < classes)", "valid = valid_a"),
    "zero": ("tl.where(p == 0, 0.0, p * log_p)", "p * log_p"),
    "margin": ("inside & ~is_a", "inside"),
    "row stride": ("row * stride_units * ALIGN + column", "row * classes + column"),
    "tail": ("tl.where(inside, tl.exp(shifted), 0.0)", "tl.exp(tl.where(inside, shifted, 0.0))"),
    "gradient": ("tl.where(valid, p - target, nan)", "tl.where(valid, p, nan)"),
    "confidence": ("value = -1.0 / total", "value = 1.0 / total"),
    "score's label": (
        "tl.where(valid_a, -tl.sum(tl.where(is_a,",
        "tl.where(y_a > -1, -tl.sum(tl.where(is_a,",
    ),
}
STATISTICS = {
    "unshifted": ("value - shift[None, :], 0.0)", "value, 0.0)"),
    "rounding of the mean": ("return mean, delta - (mean - origin),", "return mean, delta,"),
    "spread": ("within + apart * apart * weight[:, None]", "within"),
    "weight": ("moved * weight[:, None]", "moved"),
    "frozen": ("if tl.where(is_aux, aux_training, training) == 0:", "if training == 0:"),
    "tail": ("tl.where(mask, value - shift[None, :], 0.0)", "value - shift[None, :]"),
    "last tile": ("tl.range(first + 1, last,", "tl.range(first + 1, last - 1,"),
    "merging": ("in range(0, own, MERGE)", "in range(0, MERGE, MERGE)"),
    "merged spread": ("spread + step * step *", "spread + 0.0 * step *"),
    "merged mean": ("delta += step * tl.div_rn(here, count + here)", "delta += step"),
}
FORWARD = {
    "biased": ("var * (count / (count - 1.0))", "var"),
    "momentum": ("rate = tl.where(is_aux, aux_momentum,", "rate = tl.where(~is_aux, aux_momentum,"),
    "eps": ("tl.where(is_aux, tl.cast(aux_eps", "tl.where(~is_aux, tl.cast(aux_eps"),
    "nan": ("tl.where(value < 0, 0.0, value)", "tl.where(value > 0, value, 0.0)"),
    "root": ("tl.sqrt_rn(var + eps)", "(var + eps)"),
    "residual": ("value += tl.load(residual", "value -= tl.load(residual"),
    "last tile": ("tl.range(0, last - first,", "tl.range(1, last - first,"),
    "statistics kept": ("store_group_row(rstd_out, rstd,", "store_group_row(rstd_out, mean,"),
}
BACKWARD = {  # the ReLU's sign, then _reduce, then _apply, then their launcher
    "sign": ("tl.where(output <= 0, 0.0, value)", "tl.where(output < -1, 0.0, value)"),
    "mask nan": ("tl.where(output <= 0, 0.0, value)", "tl.where(output > 0, value, 0.0)"),
    "last tile summed": ("tl.range(first, last,", "tl.range(first, last - 1,"),
    "centred": ("tl.where(mask, g * centered, 0.0)", "g * (centered + mean[None, :])"),
    "dweight": ("tl.sum(product, axis=0) * rstd", "tl.sum(product, axis=0)"),
    "masked gradient": (
        "total += within_threads(g,",
        "total += within_threads(tl.where(g > 0, g, 0.0),",
    ),
    "within threads": ("product += within_threads(g,", "product += 0.5 * within_threads(g,"),
    "merging": ("in range(0, own, MERGE)", "in range(0, MERGE, MERGE)"),
    "last tile": ("tl.range(0, last - first,", "tl.range(1, last - first,"),
    "mean of g": ("g - mean_g[None, :] - centered", "g - centered"),
    "slope": ("- centered * slope[None, :]", ""),
    "rstd": ("slope = tl.div_rn(product * rstd, count)", "slope = tl.div_rn(product, count)"),
    "frozen": (
        "trains = tl.where(is_aux, aux_training, training) != 0",
        "trains = is_aux | ~is_aux",
    ),
    "affine": ("result = g * scale[None, :]", "result = g * rstd[None, :]"),
    "dbias": ("store_group_row(dbias, total", "store_group_row(dbias, product"),
    "dresidual": (
        "grad, residual, relu, dresidual, again = dresidual, None, False, None, None",
        "relu, dresidual = False, None",
    ),
}
_SUMMED, _NORM, _BACK = ("dual_batch_norm" + end for end in ("_statistics", "", "_backward"))
SUMS = {
    "statistics": (_SUMMED, ("value = rounded.to(tl.float32)", "value = value - value")),
    "total": (_SUMMED, ("tl.store(total + base + offset,", "tl.store(total + offset,")),
    "counted by each": (_NORM, ("if tl.program_id(0) == 0:", "if tl.program_id(0) >= 0:")),
    "counter": (_NORM, ("tl.store(aux, tl.load(aux) + 1)", "tl.store(main, tl.load(main) + 1)")),
    "again": (_BACK, ("value += tl.load(again +", "value -= tl.load(again +")),
    "rounding": (_BACK, ("value.to(grad.dtype.element_ty).to(tl.float32)", "value")),
    "dtotal": (_BACK, ("result += tl.load(dtotal +", "result -= tl.load(dtotal +")),
    "rounding of dx": (_BACK, ("0.0).to(dx.dtype.element_ty).to(tl.float32)", "0.0)")),
}
SUM_CASES = ("bfloat16-channels_last", "float16-channels_last")
PLAN = {
    "group": ("group = tl.where(is_aux, num_main, 0)", "group = tl.where(is_aux, 0 * num_main, 0)"),
    "aux parameters": ("tl.load(aux + column", "tl.load(main + column"),
    "tail": ("(start + element < inner)[:, None]", "(start + element < inner - 1)[:, None]"),
    "empty group": ("tl.zeros_like(value)", "value"),
    "count": ("image * inner + tl.minimum(", "tl.minimum("),
}
CHAIN_TABLES = {
    "equalize's step": ("(step // 2 + below)", "(below)"),
    "threshold": ("level.to(tl.float32) < strength", "level.to(tl.float32) <= strength"),
    "no number": ("tl.where(strength == strength, strength, 0.0)", "strength"),
    "bounds": ("tl.minimum(tl.maximum(strength, -LARGEST), LARGEST)", "strength"),
}
CHAIN_PIXELS = {
    "bilinear weight": ("(u >> SHIFT) & MASK)", "((u >> SHIFT) & MASK) + 1)"),
    "mixture": ("tl.floor(mixed + 0.5)", "tl.floor(mixed)"),
    "order": ("codes + row * depth + step", "codes + row * depth"),
}
PRIME = {
    "clamp": ("_within(result / unit, 1.0)", "result / unit"),
    "mirror": ("tl.where(bright, 1 - x, x)", "x"),
    "order": ("tl.load(codes + chain * slots + slot)", "tl.load(codes + chain * slots)"),
    "mixture": ("tl.floor(result * 255 + 0.5)", "tl.floor(result * 255)"),
    "weights": ("weights + image * WIDTH + w", "weights + image * WIDTH"),
}
PRIME_DRAWS = {
    "identity": ("(KERNEL + 1) // 2 * (KERNEL + 1)", "KERNEL"),
    "modes that look alike": ("in range(0, cut + height, 2", "in range(0, 1, 2"),
    "rows": ("y * spread * height", "y * spread * width"),
}
PRIME_CASES = (
    "filter-2x1x1x6-planes-levels", "warp-2x3x9x14-planes-float", "color-1x3x5x7-last-levels",
    "chains-2x3x8x13-last-levels",
)  # fmt: skip
# Two or three tiles an image or group, both groups, everything wanted, and what is special.
NORM_CASES = (
    "special-values-channels_last", "no-relu-contiguous", "main-frozen-channels_last",
    "main-only-channels_last", "many-tiles-contiguous", "many-tiles-channels_last",
    "large-mean-contiguous",
)  # fmt: skip


@pytest.fixture
def mutated(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Return a copy of the kernels with one replacement, imported as a package of its own."""
    file, (right, wrong) = request.param
    name = f"mutant_{tmp_path.name}"
    package = Path(shutil.copytree(KERNELS, tmp_path / name))
    source = (package / f"{file}.py").read_text()
    assert right in source, "the kernel no longer reads so: mend the mutant"
    (package / f"{file}.py").write_text(source.replace(right, wrong))
    monkeypatch.syspath_prepend(tmp_path)
    for module in MODULES:
        importlib.import_module(f"{name}.{module}")
    return importlib.import_module(name)


def _mutants(file: str, mutants: dict[str, tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "mutated", [(file, pair) for pair in mutants.values()], ids=list(mutants), indirect=True
    )


def _check_select_topk(mutated: ModuleType) -> None:
    for kind in ("special", "ties", "normal"):
        topk_cases.CASES[f"{kind}-40-40-float32"](mutated.select_topk.select_topk, "cpu")


def _check_loss_and_entropy(mutated: ModuleType) -> None:
    for check in loss_cases.CASES.values():
        check(mutated.loss_and_entropy.loss_and_entropy, "cpu")


def _check_norm(mutated: ModuleType) -> None:
    _check_cases(mutated, *(norm_cases.CASES[name] for name in NORM_CASES))


def _check_sums(mutated: ModuleType) -> None:
    _check_cases(mutated, *(sum_cases.CASES[name] for name in SUM_CASES))


def _check_cases(mutated: ModuleType, *cases: Callable[[Any, str], None]) -> None:
    op = SimpleNamespace(
        forward=mutated.dual_batch_norm.dual_batch_norm,
        backward=mutated.dual_batch_norm_backward.dual_batch_norm_backward,
    )
    cut = mutated.dual_batch_norm_cut
    small = {"tile_bytes": 1024, "plane_tile_bytes": 1024, "max_chunks": 5, "merge_size": 32}
    small["sum_bytes"] = 2**20  # never more chunks than that
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "CUT", cut.CUT._replace(**small))
        for case in cases:
            case(op, "cpu")


def _check_image_chains(mutated: ModuleType) -> None:
    chain_cases.same(mutated.image_chains, chain_cases.large(), "cpu")
    images, *others = (value[:3] for value in chain_cases.mixtures((3, 5, 7), 2, 2))
    chain_cases.same(mutated.image_chains, (images, *others), "cpu")


def _check_prime_chains(mutated: ModuleType) -> None:
    for name in PRIME_CASES:
        prime_cases.CASES[name](mutated.prime_chains.prime_chains, "cpu")


CHECKS = (
    _check_select_topk, _check_loss_and_entropy, _check_norm, _check_sums,
    _check_image_chains, _check_prime_chains,
)  # fmt: skip


@_mutants("device", {"nothing changed": ("import torch", "import torch")})
@pytest.mark.parametrize("check", CHECKS)
def test_an_intact_copy_passes(mutated: ModuleType, check: Callable[[ModuleType], None]) -> None:
    """Without this the mutants could fail for a reason that has nothing to do with them."""
    check(mutated)


@_mutants("select_topk", TOPK)
def test_select_topk(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_select_topk(mutated)


@_mutants("loss_and_entropy", LOSS)
def test_loss_and_entropy(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_loss_and_entropy(mutated)


@_mutants("dual_batch_norm_statistics", STATISTICS)
def test_statistics(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_norm(mutated)


@_mutants("dual_batch_norm", FORWARD)
def test_forward(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_norm(mutated)


@_mutants("dual_batch_norm_backward", BACKWARD)
def test_backward(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_norm(mutated)


@pytest.mark.parametrize("mutated", SUMS.values(), ids=list(SUMS), indirect=True)
def test_sums(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_sums(mutated)


@_mutants("dual_batch_norm_plan", PLAN)
def test_plan(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_norm(mutated)


@_mutants("image_chains_statistics", CHAIN_TABLES)
def test_tables_of_image_chains(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_image_chains(mutated)


@_mutants("image_chains", CHAIN_PIXELS)
def test_pixels_of_image_chains(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_image_chains(mutated)


@_mutants("prime_chains", PRIME)
def test_prime_chains(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_prime_chains(mutated)


@_mutants("prime_draws", PRIME_DRAWS)
def test_draws_of_prime_chains(mutated: ModuleType) -> None:
    with pytest.raises(AssertionError):
        _check_prime_chains(mutated)
