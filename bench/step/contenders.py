"""List who takes a step: what a user would otherwise run, and ours, eager and captured."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.step import plain
from bench.step.captured import CapturedSteps
from bench.step.plain import ALPHA, Make, Step
from bench.step.setting import Setting as Setting
from entprop_fast import convert_dual_norm, create_method
from entprop_fast.lab.training.allocator import keep_freed_memory

CHANNELS_LAST, CONTIGUOUS = " channels_last", " contiguous"  # the layout that is not the usual one
VANILLA, VANILLA_CHANNELS_LAST = "vanilla eager", "vanilla eager channels_last"
VANILLA_CAPTURED = "vanilla captured"
VANILLA_CAPTURED_CHANNELS_LAST = "vanilla captured channels_last"
VANILLA_COMPILED = "torch.compile of vanilla"
VANILLA_COMPILED_CHANNELS_LAST = "torch.compile of vanilla channels_last"
VANILLA_COMPILED_CAPTURED = "torch.compile of vanilla, captured channels_last"
REFERENCE, REFERENCE_CHANNELS_LAST = "reference", "reference channels_last"
REFERENCE_CAPTURED = "reference captured"
REFERENCE_CAPTURED_CHANNELS_LAST = "reference captured channels_last"
NAIVE = "naive"
COMPILED = "torch.compile of the reference"
COMPILED_CAPTURED = "torch.compile of the reference, captured"
OURS_VANILLA, OURS_VANILLA_CAPTURED = "vanilla on our kernels", "vanilla on our kernels, captured"
OURS, OURS_CONTIGUOUS = "ours", "ours contiguous"
CAPTURED, CAPTURED_CONTIGUOUS = "ours, captured", "ours, captured contiguous"
PIPELINED_REFERENCE = "reference of EntProp pipelined"
PIPELINED, PIPELINED_CONTIGUOUS = "EntProp pipelined", "EntProp pipelined contiguous"
PIPELINED_CAPTURED = "EntProp pipelined, captured"
PIPELINED_CAPTURED_CONTIGUOUS = "EntProp pipelined, captured contiguous"
# What may be better in either layout.
EAGER_VANILLA = (VANILLA, VANILLA_CHANNELS_LAST)
CAPTURED_VANILLA = (VANILLA_CAPTURED, VANILLA_CAPTURED_CHANNELS_LAST)


@dataclass(frozen=True)
class Contender:
    """Hold a row of the table.

    Attributes:
        name: what the row is called.
        make: the step for a setting.
        ours: on the kernels; the others run PyTorch's own norms, ReLUs and losses alone.
        channels_last: layout of network and images; PyTorch's default is contiguous.
        captured: as one CUDA graph, optimiser and all.
        base: the contender whose losses must be its own.
    """

    name: str
    make: Callable[[Setting, nn.Module], Step]
    ours: bool = False
    channels_last: bool = False
    captured: bool = False
    base: str = REFERENCE

    @property
    def is_vanilla(self) -> bool:
        """Whether it trains plainly, at the cost of 1."""
        return self.base == VANILLA

    def build(self, setting: Setting) -> Callable[[], tuple[Tensor, Tensor]]:
        """Make the step on its own copy of the setting's network and batch."""
        torch.backends.cudnn.benchmark = True  # no shape ever changes
        images, labels = setting.data()
        network = setting.network()
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.ours:
            keep_freed_memory()  # as a run of the train command does
        else:
            plain.use_plain_pytorch()
        step = self.make(setting, network)
        return lambda: step(images, labels)


def _eager(make: Make) -> Callable[[Setting, nn.Module], Step]:
    return lambda setting, network: make(setting, network).step


def _captured(make: Make) -> Callable[[Setting, nn.Module], Step]:
    return lambda setting, network: CapturedSteps(make(setting, network))


def _method(name: str, *, captured: bool) -> Callable[[Setting, nn.Module], Step]:
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
            plain.sgd(network),
            amp=setting.amp,
            capture="on" if captured else "off",
            generator=setting.generator(),
            **options,
        )

        def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            result = method(images, labels)
            return result.loss, result.aux_loss

        return step

    return make


def _plain(
    name: str,
    make: Make,
    *,
    captured: bool = False,
    channels_last: bool = False,
    base: str = REFERENCE,
) -> Contender:
    step = (_captured if captured else _eager)(make)
    return Contender(name, step, captured=captured, channels_last=channels_last, base=base)


def _ours(
    name: str,
    method: str = "entprop",
    *,
    captured: bool = False,
    channels_last: bool = True,
    base: str = REFERENCE,
) -> Contender:
    step = _method(method, captured=captured)
    return Contender(name, step, True, channels_last, captured, base)


_PLAINLY = partial(_plain, base=VANILLA)
_PIPELINED = partial(_ours, method="entprop_pipelined", base=PIPELINED_REFERENCE)
# Inductor's CUDA graphs, which `max-autotune` brings, and none, for a graph of the whole step.
_TUNED, _TUNED_ALONE = (
    partial(plain.vanilla, mode=mode) for mode in ("max-autotune", "max-autotune-no-cudagraphs")
)

CONTENDERS = (
    _PLAINLY(VANILLA, plain.vanilla),
    _PLAINLY(VANILLA_CHANNELS_LAST, plain.vanilla, channels_last=True),
    _PLAINLY(VANILLA_CAPTURED, plain.vanilla, captured=True),
    _PLAINLY(VANILLA_CAPTURED_CHANNELS_LAST, plain.vanilla, captured=True, channels_last=True),
    _PLAINLY(VANILLA_COMPILED, _TUNED),
    _PLAINLY(VANILLA_COMPILED_CHANNELS_LAST, _TUNED, channels_last=True),
    _PLAINLY(VANILLA_COMPILED_CAPTURED, _TUNED_ALONE, captured=True, channels_last=True),
    _plain(REFERENCE, plain.entprop),
    _plain(REFERENCE_CHANNELS_LAST, plain.entprop, channels_last=True),
    _plain(REFERENCE_CAPTURED, plain.entprop, captured=True),
    _plain(REFERENCE_CAPTURED_CHANNELS_LAST, plain.entprop, captured=True, channels_last=True),
    _plain(NAIVE, plain.naive),
    _plain(COMPILED, plain.compiled_entprop, channels_last=True),
    _plain(COMPILED_CAPTURED, plain.compiled_entprop, captured=True, channels_last=True),
    _ours(OURS_VANILLA, "vanilla", base=VANILLA),
    _ours(OURS_VANILLA_CAPTURED, "vanilla", captured=True, base=VANILLA),
    _ours(OURS),
    _ours(OURS_CONTIGUOUS, channels_last=False),
    _ours(CAPTURED, captured=True),
    _ours(CAPTURED_CONTIGUOUS, captured=True, channels_last=False),
    _plain(PIPELINED_REFERENCE, plain.pipelined, base=PIPELINED_REFERENCE),
    _PIPELINED(PIPELINED),
    _PIPELINED(PIPELINED_CONTIGUOUS, channels_last=False),
    _PIPELINED(PIPELINED_CAPTURED, captured=True),
    _PIPELINED(PIPELINED_CAPTURED_CONTIGUOUS, captured=True, channels_last=False),
)
BY_NAME = {one.name: one for one in CONTENDERS}


def with_layout(name: str) -> str:
    """Write a contender's name, and the layout of its network and images."""
    return f"{without_layout(name)} ({layout_of(name)})"


def layout_of(name: str) -> str:
    """Name the layout of a contender's network and images."""
    return "channels_last" if BY_NAME[name].channels_last else "contiguous"


def without_layout(name: str) -> str:
    """Write a contender's name alone; another one may have the same in another layout."""
    return name.removesuffix(CHANNELS_LAST).removesuffix(CONTIGUOUS)


def untimed_bases(contenders: list[Contender]) -> list[Contender]:
    """Return those that take no turns but whose losses others must have."""
    names = {one.name for one in contenders}
    bases = dict.fromkeys(one.base for one in contenders)
    return [BY_NAME[name] for name in bases if name not in names]
