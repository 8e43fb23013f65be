"""kernels/device.py: what `launch` remembers is launched as Triton itself would launch it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
import triton
from torch import Tensor

from entprop_fast.kernels import device
from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.norm_half import Half
from tests.kernels_aot.compiled import AbsentGpu

CHANNELS_LAST = torch.channels_last


class Launched(NamedTuple):
    """One launch as the driver gets it."""

    binary: bytes
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]


class _Recorder(AbsentGpu):
    """A driver that takes binaries and writes down their launches."""

    def __init__(self) -> None:
        super().__init__(90)
        self.launched: list[Launched] = []
        self.utils = self
        self.binaries: list[bytes] = []

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}

    def load_binary(self, name: str, binary: bytes, *rest: Any) -> tuple[int, ...]:
        self.binaries.append(binary)
        return 0, len(self.binaries) - 1, 0, 0, 1024  # module, function, registers, spills, threads

    def unload_module(self, module: int) -> None:
        """Asked for by Triton 3.9, for a kernel that nobody holds."""

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launcher(*arguments: Any) -> None:
            x, y, z, _stream, function, _packed, _metadata, _enter, _leave, *own = arguments
            self.launched.append(Launched(self.binaries[function], (x, y, z), tuple(own)))

        return launcher


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Recorder]:
    """Active, with nothing remembered; kernels of other drivers are forgotten before and after."""
    recorder = _Recorder()
    monkeypatch.setattr(device, "_COMPILED", {})
    kernels = [
        value
        for launcher in (dual_batch_norm, dual_batch_norm_backward)
        for value in launcher.__globals__.values()
        if isinstance(value, triton.runtime.jit.JITFunction)
    ]
    for kernel in kernels:
        kernel.device_caches.clear()
    triton.runtime.driver.set_active(recorder)
    yield recorder
    for kernel in kernels:
        kernel.device_caches.clear()


def _unaligned(size: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(size + 1, dtype=dtype)[1:]


class Call(NamedTuple):
    """A norm's forward and backward."""

    shape: tuple[int, ...] = (6, 16, 4, 4)
    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = CHANNELS_LAST
    num_main: int = 4
    relu: bool = True
    residual: bool = False
    affine: bool = True
    parameter_dtype: torch.dtype = torch.float32
    aligned: bool = True
    training: bool = True
    momentum: float = 0.1

    def run(self) -> None:
        x = torch.ones(self.shape, dtype=self.dtype).to(memory_format=self.layout)
        residual = torch.ones_like(x) if self.residual else None
        channels = self.shape[1]
        vector = torch.ones(channels, dtype=self.parameter_dtype)
        weight = vector if self.aligned else _unaligned(channels, self.parameter_dtype)
        scale, shift = (weight, vector) if self.affine else (None, None)
        one = Half(scale, shift, vector.clone(), vector.clone(), self.training, self.momentum)
        halves = one, one._replace(training=True, momentum=0.2, eps=1e-3)
        kept = dual_batch_norm(x, residual, *halves, self.num_main, self.relu)[1:4]
        wanted = [True, self.residual, True, True]
        dual_batch_norm_backward(x, x, residual, *halves, *kept, self.num_main, self.relu, wanted)


# Neighbours differ in what tells compiled kernels apart, or in what must not.
CALLS = {
    "first": Call(),
    "another batch": Call(shape=(7, 16, 4, 4), num_main=0),
    "other rows": Call(num_main=1),
    "frozen": Call(training=False),
    "another momentum": Call(momentum=1),
    "bfloat16": Call(dtype=torch.bfloat16),
    "bfloat16 parameters": Call(parameter_dtype=torch.bfloat16),
    "contiguous": Call(layout=torch.contiguous_format),
    "one channel": Call(shape=(6, 1, 4, 4)),
    "17 channels": Call(shape=(6, 17, 4, 4)),
    "one pixel": Call(shape=(6, 16, 1, 1)),
    "32 pixels": Call(shape=(6, 16, 1, 32), layout=torch.contiguous_format),
    "17 pixels": Call(shape=(6, 16, 1, 17), layout=torch.contiguous_format),  # in equal tiles
    "no relu": Call(relu=False),
    "residual": Call(residual=True),
    "no parameters": Call(affine=False),
    "unaligned": Call(aligned=False),
}


def _comparable(launched: list[Launched]) -> list[tuple[Any, ...]]:
    """Tensors, which every call allocates anew, by what a kernel sees of them."""
    return [
        (
            one.binary,
            one.grid,
            [
                (a.dtype, a.shape, a.stride()) if isinstance(a, Tensor) else (type(a), a)
                for a in one.arguments
            ],
        )
        for one in launched
    ]


def test_as_triton_launches_it(driver: _Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_REMEMBERS", False)
    expected = {}
    for name, call in CALLS.items():
        call.run()
        expected[name] = _comparable(driver.launched)
        driver.launched.clear()
    assert device._COMPILED == {}
    monkeypatch.setattr(device, "_REMEMBERS", True)
    for turn in ("compiled", "remembered"):
        for name, call in CALLS.items():
            call.run()
            assert _comparable(driver.launched) == expected[name], (turn, name)
            driver.launched.clear()


def test_what_is_remembered_asks_triton_nothing(
    driver: _Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    CALLS["first"].run()
    assert len(device._COMPILED) == len(driver.launched) == 4
    driver.launched.clear()

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("Triton was asked")

    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", refuse)
    for name in ("first", "another batch", "other rows", "frozen", "another momentum"):
        CALLS[name].run()
    assert len(driver.launched) == 20
    with pytest.raises(AssertionError, match="Triton was asked"):
        CALLS["unaligned"].run()
