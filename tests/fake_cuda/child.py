"""Run in a process of its own: every case's step on fake tensors of a device that is not there.

``python -m tests.fake_cuda.child LIBRARY`` prints a JSON object, case to None or what went wrong;
stderr gets the case that runs, for when the process does not get to its end.
LIBRARY is bench/fake_cuda/no_cuda.cpp, compiled; it has to be loaded before torch.
"""

import ctypes
import functools
import json
import os
import sys

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])

import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.fake_cuda.device import CUDA, fake_tensors, prepare
from entprop_fast import convert_dual_norm, create_method
from entprop_fast.augment import (
    AUGMENTATIONS,
    Augmentation,
    Chain,
    CropFlip,
    mixing_set,
    parse_chain,
    pixmix,
)
from entprop_fast.augment.crop_flip import PADDING_MODES
from entprop_fast.capture import capturable_optimizer
from entprop_fast.capture.recorded import run_passes
from entprop_fast.counter_random import uniforms
from entprop_fast.lab.data.loader import DeviceLoader
from entprop_fast.methods import METHODS
from entprop_fast.ops import backend
from tests.methods.test_no_sync import INDEXING, READS

aten = torch.ops.aten
COPIES = (aten._to_copy, aten.copy_, aten.lift_fresh, aten._pin_memory)
CASES: dict[str, Callable[[], None]] = {}
RECORDING: list[bool] = []  # not empty while a step is recorded

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    ("entprop", {"k": 1.0, "mixup": 0.0}),
    ("entprop", {"k": 0.6, "n": 3, "accumulate": "all", "equalize": True}),
    ("entprop", {"aux_labels": "mixed", "aux_stats": "every", "n": 2}),
    ("entprop", {"selection": "global", "label_smoothing": 0.1, "max_grad_norm": 1.0}),
    ("entprop", {"normalization": ((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))}),
    ("entprop", {"criterion": nn.CrossEntropyLoss(reduction="none")}),
    ("entprop", {"amp": "bf16", "n": 3}),
    ("entprop", {"jsd": 12.0, "n": 2}),
    ("entprop", {"norms": "affine", "n": 2}),
    ("entprop", {"norms": "statistics", "equalize": True}),
    ("noisymix", {"jsd": 0.0, "amp": "bf16"}),
    ("vanilla", {"jsd": 12.0, "amp": "bf16"}),
    ("entprop_pipelined", {"k": 0.6, "aux_labels": "mixed", "max_grad_norm": 1.0}),
    ("entprop_pipelined", {"mixup": 0.0, "cutmix": 1.0, "aux_labels": "mixed", "amp": "bf16"}),
    ("entprop_pipelined", {"criterion": nn.CrossEntropyLoss(reduction="none")}),
    *(("entprop", {"score": s}) for s in ("confidence", "cross_entropy", "margin", "random")),
]


WAITS = ("item", "bool", "mask", "nonzero", "to host", "from host", "a number from host")


class OnDevice(TorchDispatchMode):
    """Fails on what would wait for the device, or copy to or from it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.namespaces: set[str] = set()
        self.casts: Counter[int] = Counter()  # of each parameter, to another dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        self.namespaces.add(func.namespace)
        assert packet not in READS, f"{func} waits for the device"
        if packet in INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{func} with a mask waits for the device"
        result = func(*args, **kwargs or {})
        if packet is aten._to_copy and isinstance(args[0], nn.Parameter):
            self.casts[id(args[0])] += result.dtype != args[0].dtype
        for value in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            if isinstance(value, Tensor) and value.device != CUDA:
                # A Python number becomes a 0-dim tensor, which reaches a kernel as an argument.
                number = value.ndim == 0 and packet not in COPIES
                assert number, f"{func} meets a tensor on the host, {value.device}"
        return result


def network() -> nn.Module:
    """Convolutions, norms and a linear layer on the fake device."""
    with CUDA:
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, bias=False),
            nn.BatchNorm2d(32, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 5),
        )
    return convert_dual_norm(model)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """With momentum, whose first step differs from the others."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """Adam."""
    return torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def batch(views: int = 1) -> tuple[Tensor, Tensor]:
    """Twelve images, so many views of each, and labels on the fake device."""
    images = torch.rand(views * 12, 3, 8, 8, device=CUDA).to(memory_format=torch.channels_last)
    return images, torch.randint(5, (12,), device=CUDA)


def step(
    name: str,
    options: dict[str, Any],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    model: Callable[[], nn.Module] = network,
    *,
    kernels: bool = True,
) -> None:
    """Two eager steps, which may fill caches, then one as a graph would record it.

    Args:
        name: of the method.
        options: its own.
        optimizer: makes one.
        model: makes one, on the fake device.
        kernels: through the ops (their fakes: no launcher runs), or through plain PyTorch.
    """
    backend.KERNEL_DEVICES.clear()
    backend.KERNEL_DEVICES.update({"cuda"} if kernels else ())
    with fake_tensors():
        net = model()
        held = optimizer(net)
        capturable_optimizer(held, CUDA)
        method = create_method(name, net, held, check=False, capture="off", **options)
        images, labels = batch(method.views)
        # The first batch of a shape may be refused: it copies state.
        method._seen.add(torch.Size((len(labels), *images.shape[1:])))
        for _ in range(2):
            method(images, labels)
        RECORDING.append(True)
        with OnDevice() as seen:
            copied, gradients = run_passes(method, images, labels, update=True)
            result = copied.copy()
        assert {value.device for value in result} == {CUDA}
        assert any(gradient is not None for _, gradient in gradients)
        assert ("entprop_fast" in seen.namespaces) == kernels
        # Autocast casts a weight once, however many passes a step has.
        assert set(seen.casts.values()) == ({1} if options.get("amp") else set())


class Darker(Augmentation):
    """Each image by a share of its own."""

    name = "darker"

    def apply(self, images: Tensor, keys: Tensor) -> Tensor:
        return (images * uniforms(keys, 1)[:, :, None, None]).to(images.dtype)


def loading(augment: Augmentation, views: int = 1) -> None:
    """The draws of an epoch, then a batch; the data set is bytes on the fake device."""
    with fake_tensors():
        images, labels = batch()
        order = torch.randperm(len(images), device=CUDA)
        loader = DeviceLoader(
            (255 * images).to(torch.uint8),
            labels,
            5,
            seed=0,
            drop_last=False,
            device=CUDA,
            augment=augment,
            views=views,
            normalize=((0.5, 0.4, 0.3), (0.2, 0.2, 0.3)),
        )
        with OnDevice():
            draws = loader.augmented.draw(7, 1, order)
            made = loader._made(loader.images, order[5:10], draws and draws.of(slice(5, 10)))
        assert made.device == CUDA and made.dtype == torch.float32
        assert made.shape == (5 * views, 3, 8, 8)
        assert made.is_contiguous(memory_format=torch.channels_last)


def augmenting(text: str, *, kernels: bool = True) -> None:
    """A chain, after a first call that may fill caches, for uint8 and floating images."""
    backend.KERNEL_DEVICES.clear()
    backend.KERNEL_DEVICES.update({"cuda"} if kernels else ())
    vars(pixmix)["pictures_of"] = functools.cache(mixing_set.pictures_of)  # as a device keeps them
    with fake_tensors():
        chain = parse_chain(text)
        floating = batch()[0]
        keys = torch.arange(len(floating), device=CUDA)
        for images in (floating, (floating * 255).to(torch.uint8)):
            chain.apply(images, keys)
            with OnDevice():
                made = chain.apply(images, keys)
            assert made.device == CUDA and made.dtype == images.dtype
            assert made.shape == images.shape and made.stride() == images.stride()


def waits(kind: str) -> Callable[[], None]:
    """A model that waits for the device: the net has to hold."""

    class Waits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not RECORDING:
                return x
            if kind == "item":
                return x * x.mean().item()
            if kind == "bool":
                return x if x.sum() > 0 else -x
            if kind == "mask":
                x[x > 0.5].sum()
            elif kind == "nonzero":
                torch.nonzero(x)
            elif kind == "to host":
                x.cpu()
            elif kind == "from host":
                return x * torch.ones(8).to(x.device)
            elif kind == "a number from host":
                return x * torch.tensor(2.0, device=x.device)
            return x

    def case() -> None:
        try:
            step("vanilla", {}, sgd, lambda: nn.Sequential(Waits(), network()))
        except AssertionError as error:
            assert "waits for the device" in str(error) or "host" in str(error), error
            return
        raise RuntimeError(f"{kind} was not noticed")

    return case


for _name, _options in OPTIONS:
    for _kernels in (True, False):
        _case = f"{_name} {_options} {'kernels' if _kernels else 'plain'}"
        CASES[_case] = partial(step, _name, _options, sgd, kernels=_kernels)
for _optimizer in (adam, adamw):
    CASES[f"entprop {_optimizer.__name__}"] = partial(step, "entprop", {}, _optimizer)
for _mode in PADDING_MODES:
    CASES[f"loader {_mode}"] = partial(loading, CropFlip(padding_mode=_mode))
for _name in sorted(AUGMENTATIONS):
    for _kernels in (True, False):
        _case = f"augmentation {_name} {'kernels' if _kernels else 'plain'}"
        CASES[_case] = partial(augmenting, _name, kernels=_kernels)
CASES["augmentation chain"] = partial(augmenting, "crop-flip+augmix+erasing")
CASES["loader views"] = partial(loading, Chain(parts=(CropFlip(), Darker())), views=3)
for _kind in WAITS:
    CASES[f"a model with {_kind}"] = waits(_kind)


def main() -> None:
    """Run every case and print what became of it."""
    prepare()
    found: dict[str, str | None] = {}
    for case, run in CASES.items():
        print(case, file=sys.stderr, flush=True)
        RECORDING.clear()
        try:
            run()
            found[case] = None
        except Exception:
            found[case] = traceback.format_exc()
    print(json.dumps(found), flush=True)
    # At the interpreter's end torch now and then aborts on threads of a device that is not there.
    os._exit(0)


if __name__ == "__main__":
    main()
