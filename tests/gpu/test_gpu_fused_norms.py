"""Norms that carry a network's sums and ReLUs (``fuse=True``), on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from entprop_fast import Method, convert_dual_norm, create_method, models
from entprop_fast.capture import capturable_optimizer
from entprop_fast.layers import fused_norms
from tests.methods.support import assert_equal, parameters, sgd

CLASSES, ROWS, STEPS, WARM_UP = 5, 16, 7, 3


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """In place of this folder's: deterministic convolutions in float32."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    yield
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before


def method(device: str, *, fuse: bool, capture: str = "off") -> Method:
    """EntProp on torchvision's ResNet-18, whose forward is not ours."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = convert_dual_norm(
            models.create("torchvision:resnet18", num_classes=CLASSES), fuse=fuse
        )
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    counted = sum(one.pattern in ("relu", "add+relu") for one in fused_norms(model))
    assert counted == (17 if fuse else 0)
    optimizer = sgd(model)
    if device == "cuda" and capture == "off":
        capturable_optimizer(optimizer, torch.device(device))
    generator = torch.Generator(device).manual_seed(3)
    return create_method("entprop", model, optimizer, capture=capture, generator=generator)


def losses(one: Method, device: str, steps: int) -> list[torch.Tensor]:
    found = []
    for seed in range(steps):
        source = torch.Generator().manual_seed(seed)
        images = torch.rand(ROWS, 3, 32, 32, generator=source).to(device)
        labels = torch.arange(ROWS, device=device) % CLASSES
        result = one(images.contiguous(memory_format=torch.channels_last), labels)
        found += [result.loss, result.aux_loss]
    return found


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_fused_step_is_the_networks_own(device: str) -> None:
    fused, plain = (losses(method(device, fuse=fuse), device, 1) for fuse in (True, False))
    torch.testing.assert_close(fused, plain, rtol=1e-3, atol=0)


@pytest.mark.gpu
def test_captured_fused_steps_are_the_eager_ones() -> None:
    captured, eager = (method("cuda", fuse=True, capture=capture) for capture in ("on", "off"))
    assert_equal(losses(captured, "cuda", STEPS), losses(eager, "cuda", STEPS))
    assert captured.captures.replays == STEPS - WARM_UP
    assert_equal(parameters(captured.model), parameters(eager.model))
