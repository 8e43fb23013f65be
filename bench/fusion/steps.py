"""Define what is timed: EntProp's step on a network of torchvision or timm, fused and not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.memory import peaks_of
from bench.rows import Row
from bench.timing import Timer, medians, spreads, take_turns, wall_timer
from entprop_fast import convert_dual_norm, create_method, models
from entprop_fast.lab.training.allocator import keep_freed_memory
from entprop_fast.layers import fused_norms

CLASSES = 100
ROUNDS = {"cpu": 15, "cuda": 30}


@dataclass(frozen=True)
class Case:
    """Hold a network and its batch."""

    arch: str
    batch: int
    pixels: int

    def __str__(self) -> str:
        return f"{self.arch}-{self.batch}x3x{self.pixels}x{self.pixels}"


CASES = (
    Case("torchvision:resnet18", 64, 32),
    Case("torchvision:resnet18", 16, 96),
    Case("timm:regnetx_002", 32, 64),
)


def stepper(case: Case, device: str, *, fuse: bool) -> tuple[Callable[[], list[torch.Tensor]], int]:
    """Make a call that takes a step and returns its losses, and count the fused norms."""
    keep_freed_memory()
    torch.manual_seed(0)
    model = models.create(case.arch, num_classes=CLASSES)
    model = convert_dual_norm(model, fuse=fuse).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    generator = torch.Generator(device).manual_seed(1)
    method = create_method("entprop", model, optimizer, generator=generator, capture="off")
    images = torch.rand(case.batch, 3, case.pixels, case.pixels, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(case.batch, device=device) % CLASSES

    def step() -> list[torch.Tensor]:
        result = method(images, labels)
        if device == "cuda":
            torch.cuda.synchronize()
        return [result.loss, result.aux_loss]

    return step, sum(one.pattern in ("relu", "add+relu") for one in fused_norms(model))


def measure(case: Case, device: str) -> Row:
    """Let both steps take turns; their first losses have to agree."""
    plain, _ = stepper(case, device, fuse=False)
    fused, count = stepper(case, device, fuse=True)
    first = [float(x) for x in (*plain(), *fused())]
    torch.testing.assert_close(torch.tensor(first[2:]), torch.tensor(first[:2]), rtol=1e-3, atol=0)
    timers: dict[str, Timer] = {"plain": wall_timer(plain), "fused": wall_timer(fused)}
    samples = take_turns(timers, rounds=ROUNDS[device])
    seconds = medians(samples)
    return {
        "case": str(case),
        "device": device,
        "fused_norms": count,
        "seconds": seconds,
        "quartiles": spreads(samples),
        "peak_memory": peaks_of({"plain": plain, "fused": fused}, device),
        "ratio": seconds["fused"] / seconds["plain"],
        "rounds": ROUNDS[device],
    }
