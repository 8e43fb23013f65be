"""Machine code of the norm's switches: tiles in flight, and a second launch that begins early."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from triton.runtime.jit import JITFunction

from entprop_fast.kernels import dual_batch_norm_cut as cutting
from entprop_fast.kernels import dual_batch_norm_plan as planning
from entprop_fast.kernels.device import Card
from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.kernels.dual_batch_norm_moments import dual_batch_norm_moments
from entprop_fast.norm_half import Half
from tests.kernels_aot.compiled import Compiled, compile_launches

FIRST, SECOND = {"statistics", "_reduce"}, {"_normalize", "_apply", "_write_moments"}
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


def _launch(layout: str, residual: bool, training: bool = True) -> None:
    """Forward, backward and moments of two groups."""
    x = torch.empty(128, 160, 32, 32, dtype=torch.bfloat16, device="meta")
    x = x.to(memory_format=LAYOUTS[layout])
    other = x if residual else None
    vector, kept = (torch.empty(n, 160, device="meta") for n in (1, 2))
    half = Half(*(vector[0],) * 4, training=training)
    dual_batch_norm(x, other, half, half, 64, True)
    wanted = [True, residual, training, training]
    dual_batch_norm_backward(
        x, x, other, half, half, kept, kept, kept[:0], 64, True, wanted
    )  # fmt: skip
    dual_batch_norm_moments(x, 64, training, training)


def _compiled(
    arch: int, monkeypatch: pytest.MonkeyPatch, *given: Any, **switches: int
) -> list[Compiled]:
    with monkeypatch.context() as patch:
        patch.setattr(cutting, "CUT", cutting.CUT._replace(**switches))
        return compile_launches(lambda: _launch(*given), arch, monkeypatch)


@pytest.mark.parametrize(
    ("layout", "residual", "arch", "stages"),
    [
        *(("channels_last", False, arch, 3) for arch in (80, 90, 100)),
        ("channels_last", True, 90, 2),
        ("contiguous", True, 80, 2),
    ],
)
def test_tiles_in_flight_do_not_spill(
    layout: str, residual: bool, arch: int, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kernel in _compiled(arch, monkeypatch, layout, residual, stages=stages):
        assert (kernel.stack, kernel.local) == (0, 0), f"{kernel.name} spills"
        assert kernel.registers <= 128, f"{kernel.name}: {kernel.registers} registers"
        # Copies to shared memory that nothing waits for yet; the merge has no tiles.
        copies = kernel.sass.count("LDGSTS")
        assert (copies > 0) == (kernel.name != "_write_moments"), kernel.name


def _early(kernel: Compiled) -> tuple[bool, bool]:
    """Whether a kernel lets the next begin, and whether it waits for the one before."""
    return kernel.count("PREEXIT") > 0, kernel.count("ACQBULK") > 0


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What is launched from here on, and whether it may begin early."""
    names: list[tuple[str, bool]] = []
    run = JITFunction.run

    def recorded(self: JITFunction[Any], *arguments: Any, **options: Any) -> Any:
        names.append((self.__name__, options.get("launch_pdl", False)))
        return run(self, *arguments, **options)

    monkeypatch.setattr(JITFunction, "run", recorded)
    return names


@pytest.mark.parametrize("arch", [90, 100])
def test_a_second_launch_begins_early_and_waits(
    arch: int, launched: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "card_of", lambda device: Card(overlaps=True))
    kernels = _compiled(arch, monkeypatch, "channels_last", False, overlaps=1)
    assert {kernel.name for kernel in kernels} == FIRST | SECOND
    for kernel in kernels:
        assert _early(kernel) == (kernel.name in FIRST, kernel.name in SECOND), kernel.name
        assert (kernel.stack, kernel.local) == (0, 0) and kernel.registers <= 128
    assert launched == [(kernel.name, kernel.name in SECOND) for kernel in kernels]
    # Nothing is launched before these two, which therefore do not overlap.
    launched.clear()
    _compiled(arch, monkeypatch, "channels_last", False, False, overlaps=1)
    assert launched == [("_normalize", False), ("_apply", False)]


def test_off_or_on_an_older_gpu_nothing_begins_early(
    launched: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    off = _compiled(90, monkeypatch, "contiguous", True)
    planning._plan.cache_clear()
    with pytest.warns(UserWarning, match="ENTPROP_NORM_PDL does nothing"):
        older = _compiled(80, monkeypatch, "contiguous", True, overlaps=1)
    assert not any(any(_early(kernel)) for kernel in (*off, *older))
    assert not any(early for _, early in launched)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"ENTPROP_NORM_STAGES": "3", "ENTPROP_NORM_PDL": "1"}, "3 1"),
        ({}, "1 0"),
        ({"ENTPROP_NORM_STAGES": "many"}, "ENTPROP_NORM_STAGES must be one of 1, 2, 3, 4"),
    ],
)
def test_switches_are_read_from_the_environment(variables: dict[str, str], told: str) -> None:
    program = (
        "from entprop_fast.kernels.dual_batch_norm_cut import CUT; print(CUT.stages, CUT.overlaps)"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith("ENTPROP_NORM")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=kept | variables, capture_output=True, text=True
    )
    assert told in done.stdout + done.stderr
