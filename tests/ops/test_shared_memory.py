"""FOUND W8: raw ops refuse to write where they read or write something else, and name it."""

import pytest
import torch

from tests.ops import fuzz
from tests.ops.conftest import needs_extension
from tests.ops.random_tensors import Arguments
from tests.ops.valid_arguments import VALID, refusal


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
    told = refusal(fuzz.overload(name, suffix), _shared(name, target, other, start))
    assert fuzz.named(told) in (target, other) and "memory" in str(told)


@pytest.mark.parametrize(("name", "target"), sorted({(name, target) for name, target, _ in WRITES}))
@pytest.mark.parametrize("suffix", [pytest.param("", marks=needs_extension), "_reference"])
def test_an_expanded_output_is_refused(name: str, target: str, suffix: str) -> None:
    """FOUND W8: many elements in one place."""
    given = VALID[name]()
    value = given[target]
    given[target] = value.narrow(value.dim() - 1, 0, 1).clone().expand(value.shape)
    assert fuzz.named(refusal(fuzz.overload(name, suffix), given)) == target


@pytest.mark.parametrize("suffix", [pytest.param("", marks=needs_extension), "_reference"])
def test_parts_of_one_memory_that_are_apart(suffix: str) -> None:
    """Channels of one batch, rows of another, columns of a table: no element is shared."""
    given, plain = VALID["gather_perturb.out"](), VALID["gather_perturb.out"]()
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
    norm = VALID["dual_batch_norm"]() | {"running_mean": table[:, 0], "running_var": table[:, 1]}
    moved = VALID["dual_batch_norm"]() | {
        "running_mean": torch.zeros(3),
        "running_var": torch.ones(3),
    }
    assert not isinstance(fuzz.outcome(fuzz.overload("dual_batch_norm", suffix), norm), Exception)
    fuzz.outcome(fuzz.overload("dual_batch_norm", suffix), moved)
    assert torch.equal(table, torch.stack([moved["running_mean"], moved["running_var"]], 1))


def test_strided_views_of_one_memory_are_right() -> None:
    """FOUND W8: what cannot be told apart is computed before it is written, as for torch's out=."""
    for suffix in ("", "_reference"):
        given, plain = VALID["gather_perturb.out"](), VALID["gather_perturb.out"]()
        memory = torch.zeros(4, 6, 2, 5)
        memory[:, ::2] = given["x"]
        found = given | {"x": memory[:, ::2], "out": memory[1:3, ::2]}
        fuzz.outcome(fuzz.overload("gather_perturb.out", suffix), plain)
        assert not isinstance(
            fuzz.outcome(fuzz.overload("gather_perturb.out", suffix), found), Exception
        )
        assert torch.equal(found["out"], plain["out"])
