"""FOUND C17: steps on a device that has no float64, as Apple's and some of Intel's.

The CPU stands in for it: plain PyTorch behind every op, and a mode under which whatever makes a
float64 tensor fails.
"""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from entprop_fast import devices, fit, update_bn
from entprop_fast.augment import AUGMENTATIONS, parse_chain
from entprop_fast.lab.corruptions.ten_kinds import CORRUPTIONS, corrupt
from entprop_fast.lab.evaluation.attacks import pgd
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics
from entprop_fast.lab.publish.fold_norms import _fused
from entprop_fast.lab.training.meter import Meter
from entprop_fast.ops import backend, pixmix_rounds, prime_chains
from entprop_fast.ops.dual_batch_norm_merge import Running
from entprop_fast.ops.dual_batch_norm_merge import _reference as merge
from tests.methods import support as s

OF_FLOAT32: list[tuple[str, dict[str, Any]]] = [
    ("entprop", {"amp": "bf16", "score": "cross_entropy"}),
    ("entprop", {"norms": "shared"}),
]


class NoFloat64(TorchDispatchMode):
    """Refuses float64 tensors, as the device does; copies of `Tensor.cpu` may become some."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_host: dict[int, Tensor] = {}  # by place in memory, which is theirs as long
        self.patched = pytest.MonkeyPatch()

    def __enter__(self) -> Any:
        self.patched.setattr(Tensor, "cpu", lambda tensor: self._to_host(tensor))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        self.patched.undo()
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def _to_host(self, tensor: Tensor) -> Tensor:
        copied = tensor.clone()
        self.on_host[_place(copied)] = copied
        return copied

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given, made = _tensors((args, kwargs)), _tensors(found)
        if given and all(_place(value) in self.on_host for value in given):
            self.on_host |= {_place(value): value for value in made}
        elif any(value.dtype == torch.float64 for value in made):
            raise TypeError(f"{func}: Cannot convert a MPS Tensor to float64 dtype")
        return found


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in pytree.tree_leaves(values) if isinstance(value, Tensor)]


@pytest.fixture(autouse=True)
def without_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without kernels, said to have no float64; `NoFloat64` takes it."""
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cpu", "mps"})
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    for public in (prime_chains, pixmix_rounds):  # a mode sees no further than an op
        module = sys.modules[public.__module__]
        monkeypatch.setattr(module, "OP", vars(module)["reference"])  # seen by the mode


def test_the_mode_refuses() -> None:
    numbers = torch.zeros(2)
    for make in (
        numbers.double,
        lambda: numbers.to(torch.float64),
        lambda: torch.zeros(2, dtype=torch.float64),
        lambda: torch.tensor(1.5, dtype=torch.float64),
        lambda: torch.from_numpy(np.zeros(2)).to("cpu", copy=True),
        lambda: numbers.cpu().add(numbers).double(),
    ):
        with NoFloat64(), pytest.raises(TypeError, match="float64"):
            make()
    with NoFloat64():
        assert numbers.cpu().double().sum().dtype == torch.float64


@pytest.mark.parametrize(("name", "options"), s.EVERY + OF_FLOAT32, ids=str)
def test_steps(name: str, options: dict[str, Any]) -> None:
    """FOUND C17: every method, two steps each (the second with waiting rows)."""
    shared = name in s.ONE_NORM or options.get("norms") == "shared"
    model = (s.plain_network if shared else s.dual_network)(dtype=torch.float32)
    method = s.make(name, model=model, generator=s.generator(), **options)
    images, labels = s.batch_for(method, dtype=torch.float32)
    meter = Meter()
    with NoFloat64():
        for step in range(2):
            meter.add(step, len(images), method(images, labels))
        meter.read()
        method.load_state_dict(copy.deepcopy(method.state_dict()))
        update_bn([images, images], model)
        method(images, labels)
    assert math.isfinite(meter.mean("loss"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*AUGMENTATIONS, "erasing:value=random,p=1"])
def test_augmentations(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """What they make differs from the other devices' by rounding, if at all."""
    if name == "pixmix":
        np.save(tmp_path / "set.npy", np.full((2, 18, 18, 3), 9, np.uint8))
        name += f":mixing_set={tmp_path}/set.npy"
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=s.generator())
    given = (images / 255).to(dtype) if dtype.is_floating_point else images.to(dtype)
    augment = parse_chain(name)
    with NoFloat64():
        found = augment(given, torch.arange(6))
    devices.WITHOUT_FLOAT64.clear()
    wanted = augment(given, torch.arange(6))
    step = 1 if dtype == torch.uint8 else 1 / 128  # of levels, and of bfloat16
    assert (found.float() - wanted.float()).abs().quantile(0.99) <= step


def test_a_whole_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """Loader, steps, validation, averaged weights, the file of the network and the last scores."""
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=s.generator()).to(torch.uint8)
    data = images, torch.arange(40) % s.CLASSES
    with NoFloat64():
        found = fit(
            *(s.plain_network(dtype=torch.float32), data, data),
            epochs=2,
            batch_size=10,
            augment="crop-flip+prime",
            normalization=(torch.tensor([0.5]), torch.tensor([0.2])),
            ema=0.9,
            device="cpu",
            corruptions="none",
        )
    assert found is not None and "epoch 2/2" in capsys.readouterr().out


def test_attacks() -> None:
    images = torch.rand(6, 3, 8, 8, generator=s.generator())
    model = s.plain_network(dtype=torch.float32).eval()
    with NoFloat64():
        moved = pgd(model, images, torch.arange(6) % s.CLASSES, steps=2)
    assert not torch.equal(moved, images)


def test_synchronised_statistics() -> None:
    """The merge of two processes' moments, which is in float64 where that is."""
    gathered = torch.rand(2, 2, 7, generator=s.generator()) + 1  # of three channels
    wanted = merge(gathered, Running(), Running())
    with NoFloat64():
        found = merge(gathered, Running(), Running())
    torch.testing.assert_close(found, wanted)


def test_norms_are_folded_on_the_host() -> None:
    """An export's weights are float64 for a moment."""
    values = [torch.rand(shape, generator=s.generator()) for shape in ((4, 3, 1, 1), *[(4,)] * 5)]
    with NoFloat64():
        weight, bias = _fused(values, 1e-5)
    assert weight.dtype == bias.dtype == torch.float32
    values[3] = values[3] + 1e-5
    torch.testing.assert_close(
        weight, values[0] * (values[4] / values[3].sqrt())[:, None, None, None]
    )


def test_evaluation(without_float64: None) -> None:
    """A neighbour of C17: what evaluates makes none either, and counts the same."""
    logits, labels = torch.randn(40, 5, generator=s.generator()), torch.arange(40) % 5
    images = torch.rand(2, 3, 16, 16, generator=s.generator())
    with NoFloat64():
        metrics = RunningMetrics(40, torch.device("cpu"))
        metrics.add(0, logits, labels)
        assert metrics.correct == int((logits.argmax(1) == labels).sum()) and 0 <= metrics.ece <= 1
        for kind in CORRUPTIONS:
            corrupt(images, kind, 3)


def test_common_corruptions_are_made_where_float64_is() -> None:
    """A neighbour of C17: their sums are float64, so they are made on the CPU for such a device."""
    assert devices.with_float64(torch.device("mps")) == torch.device("cpu")
    assert devices.with_float64(torch.device("cuda:1")) == torch.device("cuda:1")
