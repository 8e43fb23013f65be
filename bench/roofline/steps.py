"""Take the steps that are counted, on a CUDA device that need not be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.fake_cuda.device import CUDA, fake_tensors
from bench.roofline.counting import Counts, count
from bench.step import contenders as c
from bench.step.plain import use_plain_pytorch
from entprop_fast import convert_dual_norm, create_method, models
from entprop_fast.capture import capturable_optimizer
from entprop_fast.capture.recorded import run_passes
from entprop_fast.lab.training.deploy import stem_for
from entprop_fast.ops import backend


@dataclass(frozen=True)
class Step:
    """Hold a row of the table.

    Attributes:
        name: what the row is called.
        method: None for plain training with PyTorch's own norms.
        options: of the method.
        eager, captured: contenders of bench/step that take such steps.
    """

    name: str
    method: str | None
    options: dict[str, Any] = field(default_factory=dict)
    eager: str | None = None
    captured: str | None = None

    @property
    def k_and_n(self) -> tuple[float, int] | None:
        """Return the method's k and n; None where there is nothing to select."""
        return (self.options["k"], self.options.get("n", 1)) if "k" in self.options else None


PLAIN = Step(
    "vanilla, PyTorch's norms",
    None,
    eager=c.VANILLA_CHANNELS_LAST,
    captured=c.VANILLA_CAPTURED_CHANNELS_LAST,
)
VANILLA = Step("vanilla", "vanilla", eager=c.OURS_VANILLA, captured=c.OURS_VANILLA_CAPTURED)
ENTPROP = Step("EntProp(0.2, 1)", "entprop", {"k": 0.2, "n": 1}, c.OURS, c.CAPTURED)
STRONG = Step("EntProp(0.6, 5)", "entprop", {"k": 0.6, "n": 5}, c.OURS, c.CAPTURED)
PIPELINED = Step(
    "EntProp pipelined (0.2)", "entprop_pipelined", {"k": 0.2}, c.PIPELINED, c.PIPELINED_CAPTURED
)
STEPS = (PLAIN, VANILLA, ENTPROP, STRONG, PIPELINED)


@dataclass(frozen=True)
class Size:
    """Hold a network and its batch."""

    arch: str
    batch: int
    pixels: int
    classes: int

    def network(self) -> nn.Module:
        """Make the network on the device, channels_last, as bench/step has it."""
        stem = stem_for(self.arch, self.pixels)
        with CUDA:
            network = models.create(self.arch, num_classes=self.classes, stem=stem)
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 4:  # `Module.to` cannot change fake parameters
                    moved = parameter.detach().to(memory_format=torch.channels_last)
                    setattr(module, name, nn.Parameter(moved))
        return network.train()

    def data(self) -> tuple[Tensor, Tensor]:
        """Make a batch on the device."""
        shape = (self.batch, 3, self.pixels, self.pixels)
        images = torch.rand(shape, device=CUDA).to(memory_format=torch.channels_last)
        return images, torch.randint(self.classes, (self.batch,), device=CUDA)


def counted(size: Size, step: Step) -> Counts:
    """Count a step as a graph would hold it, once it is like all later ones.

    Its process was prepared by `bench.fake_cuda.device`. Plain training with PyTorch's own norms
    has to come after all others: it patches the ops away for good.
    """
    with fake_tensors():
        if step.method is None:
            use_plain_pytorch()
            run = _plain(size)
        else:
            backend.KERNEL_DEVICES.clear()
            backend.KERNEL_DEVICES.add("cuda")
            run = _method(size, step.method, step.options)
        run()
        return count(run, CUDA)


def _sgd(network: nn.Module) -> torch.optim.SGD:
    """Make what bench/step has, in the form that a graph holds."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    capturable_optimizer(optimizer, CUDA)
    return optimizer


def _plain(size: Size) -> Callable[[], object]:
    network, (images, labels) = size.network(), size.data()
    optimizer = _sgd(network)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(images)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return run


def _method(size: Size, name: str, options: dict[str, Any]) -> Callable[[], object]:
    network, (images, labels) = size.network(), size.data()
    if name != "vanilla":
        network = convert_dual_norm(network)
    settings = {"check": False, "capture": "off", "amp": "bf16", **options}
    method = create_method(name, network, _sgd(network), **settings)
    method._seen.add(images.shape)  # the first batch of a shape may be refused: it copies state
    for _ in range(2):  # from the second on rows wait, where the method lets any wait
        method(images, labels)
    return lambda: run_passes(method, images, labels, update=True)
