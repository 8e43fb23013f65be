"""bench/step's contenders on the CPU: what they record, whose losses they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch

from bench.step import captured, plain
from bench.step import contenders as c
from bench.step.contenders import Contender, Setting
from entprop_fast.methods.base import Method
from entprop_fast.ops import backend
from tests.bench.fake_steps import MAKERS
from tests.capture.conftest import recorder as recorder
from tests.capture.recording import RecordingGraphs
from tests.children import printed, run_python
from tests.fake_cuda.device import library_or_skip

SMALL = Setting("wrn10_0.5", 12, 8, 10, k=0.25, n=1, device="cpu")
STEPS = 7  # of the pipelined one the sixth is the second replay
# Fused SGD rounds otherwise, and the attack's sign may flip where a gradient is all but zero.
CLOSE = 1e-4
CAPTURED = [one for one in c.CONTENDERS if one.captured]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Put back what a contender changes for all of its process."""
    devices, benchmark = set(backend.KERNEL_DEVICES), torch.backends.cudnn.benchmark
    yield
    mock.patch.stopall()
    backend.KERNEL_DEVICES.clear()
    backend.KERNEL_DEVICES.update(devices)
    torch.backends.cudnn.benchmark = benchmark


def losses(contender: Contender, setting: Setting = SMALL) -> list[tuple[float, float]]:
    run = contender.build(setting)
    found = [tuple(map(float, run())) for _ in range(STEPS)]
    return [(main, aux) for main, aux in found]


@pytest.fixture
def compile_modes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes that something is compiled in; nothing is."""
    modes: list[str] = []

    def compiled(network: Any, *, mode: str) -> Any:
        modes.append(mode)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    return modes


@pytest.mark.parametrize("contender", CAPTURED, ids=lambda one: one.name)
def test_a_captured_step_is_replayed_and_has_the_losses_of_its_base(
    contender: Contender,
    recorder: RecordingGraphs,
    compile_modes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(steps: Any, *arguments: Any, **options: Any) -> None:
        recorder.method = steps
        made(steps, *arguments, **options)

    kind = Method if contender.ours else captured.CapturedSteps
    made = kind.__init__
    monkeypatch.setattr(kind, "__init__", told)
    if not contender.ours:
        monkeypatch.setattr(kind, "state_dict", lambda steps: {}, raising=False)
    found = losses(contender)
    pipelined = contender.base == c.PIPELINED_REFERENCE  # its first step has a shape of its own
    eager = 4 if pipelined else 3
    assert recorder.log == ["eager"] * eager + ["capture"] + ["replay"] * (STEPS - eager)
    expected = losses(c.BY_NAME[contender.base])
    assert torch.tensor(found).sub(torch.tensor(expected)).abs().max() < CLOSE
    assert len(set(found)) == STEPS and (found[-1][1] == 0) == contender.is_vanilla
    assert bool(compile_modes) == ("compile" in contender.name)


@pytest.mark.parametrize("contender", [*c.CONTENDERS], ids=lambda one: one.name)
def test_what_each_contender_runs_on(contender: Contender, compile_modes: list[str]) -> None:
    """cuDNN chooses for all of them; who is not ours has no kernel of ours."""
    torch.backends.cudnn.benchmark = False
    kernels = bool(backend.KERNEL_DEVICES)
    if not contender.captured:  # which is refused on the CPU
        contender.build(SMALL)()
    else:
        with pytest.raises((ValueError, RuntimeError), match="needs a CUDA device"):
            contender.build(SMALL)()
    assert torch.backends.cudnn.benchmark
    assert bool(backend.KERNEL_DEVICES) == (kernels and contender.ours)
    assert c.layout_of(contender.name) in ("channels_last", "contiguous")


class OnCuda(Setting):
    """A setting of a device that is not there: neither are its generators."""

    def generator(self) -> torch.Generator:
        return torch.Generator()


def test_inductor_has_graphs_of_its_own_only_where_no_other_is_around_them(
    compile_modes: list[str],
) -> None:
    alone = "max-autotune-no-cudagraphs"
    plain.compiled_entprop(OnCuda(**(vars(SMALL) | {"device": "cuda"})), SMALL.network())
    assert compile_modes.pop() == alone  # a second pass comes before the first one's backward
    for name in (c.VANILLA_COMPILED, c.VANILLA_COMPILED_CHANNELS_LAST, c.VANILLA_COMPILED_CAPTURED):
        c.BY_NAME[name].make(SMALL, SMALL.network())
        assert compile_modes.pop() == (alone if c.BY_NAME[name].captured else "max-autotune")


def test_captured_plain_steps_do_not_wait_for_their_device() -> None:
    library = library_or_skip()
    told = printed(run_python("-m", "tests.bench.fake_steps", library, OMP_NUM_THREADS="1"))
    found = json.loads(told.splitlines()[-1])
    assert "waits for the device" in str(found.pop("waiting"))
    assert found == dict.fromkeys(MAKERS.keys() - {"waiting"}), found
