"""Define the steps that are timed: what a user would otherwise run, and ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import convert_dual_norm, create_method, models, reference, route
from entprop_fast.lab.training.allocator import keep_freed_memory
from entprop_fast.layers.routing import dual_layers, frozen_statistics
from entprop_fast.models import resnet, wrn

ALPHA = 1 / 255
BRANCH = 0.1
VANILLA, VANILLA_CHANNELS_LAST = "vanilla eager", "vanilla eager channels_last"
REFERENCE, NAIVE = "reference", "naive"
COMPILED = "torch.compile of the reference"
OURS_VANILLA, OURS, CAPTURED = "vanilla on our kernels", "ours", "ours, captured"
PIPELINED_REFERENCE, PIPELINED = "reference of EntProp pipelined", "EntProp pipelined"
# One optimiser step on a batch: the main and the auxiliary loss (0 without one).
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Setting:
    """Hold one row group of the table: a network, its batch, and EntProp's k and n."""

    arch: str
    batch: int
    pixels: int
    classes: int
    k: float
    n: int
    device: str

    def __str__(self) -> str:
        size = f"{self.batch}x3x{self.pixels}x{self.pixels}"
        return f"{self.arch}-{size}-{self.device}-k{self.k}-n{self.n}"

    @property
    def amp(self) -> Literal["bf16"] | None:
        """Autocast of every contender: PyTorch's default on the CPU, bf16 on CUDA."""
        return "bf16" if self.device == "cuda" else None

    def data(self) -> tuple[Tensor, Tensor]:
        """Make a batch of random images and labels, contiguous."""
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, 3, self.pixels, self.pixels)
        images = torch.rand(shape, generator=generator)
        labels = torch.randint(self.classes, (self.batch,), generator=generator)
        return images.to(self.device), labels.to(self.device)

    def network(self) -> nn.Module:
        """Make the plain network, the same weights for every contender."""
        torch.manual_seed(0)
        small = self.arch in resnet.LAYOUTS and self.pixels <= 64
        stem: resnet.Stem = "cifar" if small else "imagenet"
        network = models.create(self.arch, num_classes=self.classes, stem=stem)
        for module in network.modules():
            if isinstance(module, resnet.Bottleneck):
                # With branches as strong as the shortcuts the losses of a second step differ by a
                # tenth between PyTorch's own two layouts, and there is nothing to compare with.
                nn.init.constant_(module.bn3.weight, BRANCH)
        return network.to(self.device).train()

    def generator(self) -> torch.Generator:
        """Make the same draws for every contender."""
        return torch.Generator(self.device).manual_seed(1)


@dataclass(frozen=True)
class Contender:
    """Hold a row of the table.

    Attributes:
        name: what the row is called.
        ours: on the kernels; the others run PyTorch's own norms, ReLUs and losses alone.
        channels_last: layout of network and images; PyTorch's default is contiguous.
        make: the step for a setting.
        base: the contender whose losses must be its own.
    """

    name: str
    make: Callable[[Setting, nn.Module], Step]
    ours: bool = False
    channels_last: bool = False
    base: str = REFERENCE

    def build(self, setting: Setting) -> Callable[[], tuple[Tensor, Tensor]]:
        """Make the step on its own copy of the setting's network and batch."""
        images, labels = setting.data()
        network = setting.network()
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.ours:
            keep_freed_memory()  # as a run of the train command does
        else:
            use_plain_pytorch()
        step = self.make(setting, network)
        return lambda: step(images, labels)


def use_plain_pytorch() -> None:
    """Put PyTorch's own modules and functions in the place of the ops, for all of the process."""
    from entprop_fast.ops import backend

    backend.KERNEL_DEVICES.clear()
    for module in (wrn, resnet):
        mock.patch.object(module, "norm_relu", _norm_relu).start()


def _norm_relu(norm: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    y = norm(x)
    return F.relu(y if residual is None else y + residual)


def _sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)


def _autocast(setting: Setting) -> torch.autocast:
    return torch.autocast(setting.device, torch.bfloat16, enabled=setting.amp is not None)


def vanilla(setting: Setting, network: nn.Module) -> Step:
    """Make plain training with `torch.optim`'s defaults."""
    optimizer = _sgd(network)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        optimizer.zero_grad()
        with _autocast(setting):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach(), torch.zeros(())

    return step


def reference_step(setting: Setting, network: nn.Module, **compiled: Any) -> Step:
    """Make `entprop_fast.reference`: input gradients alone for i < n, a backward per forward."""
    dual = convert_dual_norm(network)
    optimizer, generator = _sgd(dual), setting.generator()
    model: Any = torch.compile(dual, **compiled) if compiled else dual

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with _autocast(setting):
            return reference.entprop_step(
                model, optimizer, images, labels, k=setting.k, n=setting.n, generator=generator
            )

    return step


def compiled_step(setting: Setting, network: nn.Module) -> Step:
    """Make the reference with its whole network compiled.

    Inductor's own CUDA graphs (`reduce-overhead`, `max-autotune`) refuse a second pass before the
    first one's backward is done with.
    """
    return reference_step(setting, network, mode="default")


def naive_step(setting: Setting, network: nn.Module) -> Step:
    """Make `loss.backward()` in every pass, all graphs kept until one backward of the sum."""
    dual = convert_dual_norm(network)
    optimizer, generator = _sgd(dual), setting.generator()
    halves = [layer.aux for layer in dual_layers(dual)]
    m, eps = reference.num_selected(setting.k, setting.batch), (setting.n + 1) * ALPHA
    eps = ALPHA if setting.n == 1 else eps

    def forward(x: Tensor, target: Literal["main", "aux"], last: bool) -> Tensor:
        with _autocast(setting), route(dual, target), frozen_statistics(() if last else halves):
            return reference.full_precision(dual(x))

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        lam = reference.draw_lam(1.0, images, generator)
        partners = reference.draw_partners(images, generator)
        x = reference.mix(images, partners, lam).requires_grad_()
        logits = forward(x, "main", last=True)
        loss_a, loss_b = (F.cross_entropy(logits, y) for y in (labels, labels[partners]))
        main_loss = reference.mixed_loss(loss_a, loss_b, lam)
        main_loss.backward(retain_graph=True)
        assert x.grad is not None
        chosen = reference.select_topk(reference.entropy(logits.detach()), m)
        x_0, y, gradient = x.detach()[chosen], labels[chosen], x.grad[chosen]
        x_a = x_0
        for i in range(1, setting.n + 1):
            x_a = reference.perturb(
                x_a.detach(), gradient, x_0, alpha=ALPHA, eps=eps, low=0.0, high=1.0
            ).requires_grad_()
            aux_loss = F.cross_entropy(forward(x_a, "aux", last=i == setting.n), y)
            if i < setting.n:
                aux_loss.backward()
                assert x_a.grad is not None
                gradient = x_a.grad
        optimizer.zero_grad()
        (main_loss + aux_loss).backward()
        optimizer.step()
        return main_loss.detach(), aux_loss.detach()

    return step


def pipelined_reference_step(setting: Setting, network: nn.Module) -> Step:
    """Make `entprop_fast.reference`'s pipelined step."""
    dual = convert_dual_norm(network)
    optimizer, generator = _sgd(dual), setting.generator()
    waiting: reference.Waiting | None = None

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal waiting
        with _autocast(setting):
            main, aux, waiting = reference.entprop_pipelined_step(
                dual, optimizer, images, labels, waiting, k=setting.k, generator=generator
            )
        return main, aux

    return step


def _method(name: str, capture: str = "off") -> Callable[[Setting, nn.Module], Step]:
    def make(setting: Setting, network: nn.Module) -> Step:
        options: dict[str, Any] = {}
        if name != "vanilla":
            network = convert_dual_norm(network)
            options = {"k": setting.k, "alpha": ALPHA}
        if name == "entprop":
            options["n"] = setting.n
        method = create_method(
            name,
            network,
            _sgd(network),
            amp=setting.amp,
            capture=capture,
            generator=setting.generator(),
            **options,
        )

        def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            result = method(images, labels)
            return result.loss, result.aux_loss

        return step

    return make


CONTENDERS = (
    Contender(VANILLA, vanilla, base=VANILLA),
    Contender(VANILLA_CHANNELS_LAST, vanilla, channels_last=True, base=VANILLA),
    Contender(REFERENCE, reference_step),
    Contender("reference channels_last", reference_step, channels_last=True),
    Contender(NAIVE, naive_step),
    Contender(COMPILED, compiled_step, channels_last=True),
    Contender(OURS_VANILLA, _method("vanilla"), ours=True, channels_last=True, base=VANILLA),
    Contender(OURS, _method("entprop"), ours=True, channels_last=True),
    Contender(CAPTURED, _method("entprop", capture="on"), ours=True, channels_last=True),
    Contender(PIPELINED_REFERENCE, pipelined_reference_step, base=PIPELINED_REFERENCE),
    Contender(  # captured where that can be
        PIPELINED,
        _method("entprop_pipelined", capture="auto"),
        ours=True,
        channels_last=True,
        base=PIPELINED_REFERENCE,
    ),
)
