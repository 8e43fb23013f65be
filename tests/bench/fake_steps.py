"""Run in a process of its own: steps of plain PyTorch as a graph would record them, on no device.

``python -m tests.bench.fake_steps LIBRARY`` prints a JSON object, contender to None or what went
wrong. LIBRARY is bench/fake_cuda/no_cuda.cpp, compiled; it has to be loaded before torch.
"""

import ctypes
import itertools
import json
import os
import sys

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])

import traceback
from typing import cast

import torch
from torch import Tensor, nn

from bench.fake_cuda.device import CUDA, fake_tensors, prepare
from bench.step import plain
from bench.step.captured import CapturedSteps
from bench.step.plain import Plain
from bench.step.setting import Setting
from entprop_fast import models
from entprop_fast.capture import capturable_optimizer
from entprop_fast.capture.recorded import run_passes
from tests.fake_cuda import child


class NoDraws(Setting):
    """A setting of a device that is not there: neither are its generators."""

    def generator(self) -> torch.Generator:
        return cast(torch.Generator, None)


def waiting(setting: Setting, network: nn.Module) -> Plain:
    """Plain training whose third step reads its loss: the net has to hold."""
    made, calls = plain.vanilla(setting, network), itertools.count(1)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss, aux_loss = made.step(images, labels)
        return loss * loss.item() if next(calls) == 3 else loss, aux_loss

    return made._replace(step=step)


MAKERS = {make.__name__: make for make in (plain.vanilla, plain.entprop, plain.naive, waiting)}


def record(name: str) -> None:
    """Two eager steps, then one as a graph would record it; nothing may wait for the device."""
    setting = NoDraws("wrn10_0.5", 12, 8, 10, k=0.25, n=2, device="cuda")
    with fake_tensors():
        with CUDA:
            network = models.create(setting.arch, num_classes=setting.classes)
        steps = CapturedSteps(MAKERS[name](setting, network))
        capturable_optimizer(steps.optimizer, CUDA)
        images, labels = child.batch()
        for _ in range(2):
            steps._eager_step(images, labels)
        with child.OnDevice() as seen:
            copied, gradients = run_passes(steps, images, labels, update=True)
            copied.copy()
        assert all(gradient is not None for _, gradient in gradients)
        assert "entprop_fast" not in seen.namespaces, "an op of ours ran"


def main() -> None:
    """Record every step and print what became of it."""
    prepare()
    plain.use_plain_pytorch()
    found: dict[str, str | None] = {}
    for name in MAKERS:
        try:
            record(name)
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()
    print(json.dumps(found), flush=True)
    os._exit(0)  # as tests/fake_cuda/child.py does


if __name__ == "__main__":
    main()
