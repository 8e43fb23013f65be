"""Runs whose batches are augmented: they resume to the bit, from any data; what is refused."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from entprop_fast.lab import stopping
from entprop_fast.lab.training.fit import fit
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import Call, assert_same, stop_at, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

VIEWS = ("--augment", "crop-flip+augmix", "--jsd", "12", "--corruptions", "none")


@pytest.mark.parametrize(("method", "cost"), [("vanilla", 3.0), ("entprop", 3.2)])
def test_three_views_of_digits_go_on_after_a_stop_with_another_loader(
    method: str, cost: float, run: Call, tmp_path: Path
) -> None:
    flags = (*VIEWS, "--method", method)
    run(tmp_path / "whole", *flags)
    assert summary(tmp_path / "whole")["cost"] == pytest.approx(3 * cost)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 2, signal.SIGTERM)  # in the middle of the second epoch
        run(tmp_path / "halves", *flags, code=143)
    run(tmp_path / "halves", *flags, "--resume", "--loader", "prefetch", "--workers", "0")
    assert_same(tmp_path / "halves", tmp_path / "whole")


IMAGES = torch.randint(
    256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
)
LABELS = torch.arange(24) % 3
CHAIN = "crop-flip:padding=1+augmix"


def weights(train: Any, **more: Any) -> Tensor:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(2, 3, 8, 8))
    options: dict[str, Any] = {"method": "vanilla", "epochs": 2, "device": "cpu"}
    options["batch_size"] = None if isinstance(train, DataLoader) else 8
    fit(net, train, verbose=False, **(options | more))
    return torch.cat([one.detach().flatten() for one in net.parameters()])


class Shuffled(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return IMAGES[index], LABELS[index]


def test_tensors_and_a_data_set_are_augmented_alike_under_fit() -> None:
    found = weights((IMAGES, LABELS), augment=f"{CHAIN}:jsd=12")
    assert torch.equal(weights(Shuffled(), augment=CHAIN, jsd=12), found)
    assert not torch.equal(weights((IMAGES, LABELS), augment=CHAIN), found)
    floats = weights((IMAGES / 255, LABELS), augment=CHAIN, jsd=12)
    torch.testing.assert_close(floats, found, rtol=0, atol=0.05)  # crops keep half a level


def test_a_dataloader_is_augmented_and_goes_on(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(IMAGES, LABELS), 8, shuffle=True)
    given: dict[str, Any] = {"augment": CHAIN, "jsd": 12.0}
    whole = weights(loader, **given)
    assert not torch.equal(weights(loader), whole)
    between_steps = Trainer._between_steps

    def between(self: Trainer, *args: Any) -> None:
        between_steps(self, *args)
        if self.step == 4:  # of 6, in the middle of the second epoch
            stopping.stop(signal.SIGTERM, False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_between_steps", between)
        with pytest.raises(stopping.Stopped):
            weights(loader, out=tmp_path / "run", **given)
    assert torch.equal(weights(loader, out=tmp_path / "run", resume=True, **given), whole)


FLOATS = IMAGES / 127.5 - 1
REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "been through it already": ((FLOATS, LABELS), {"normalization": (0.5, 0.5)}),
    "floating ones in ": ((FLOATS, LABELS), {"input_range": (-1.0, 1.0)}),
    r"input_range is \(-1": (
        DataLoader(TensorDataset(FLOATS, LABELS), 8),
        {"input_range": (-1.0, 1.0)},
    ),
    "above|values": (DataLoader(TensorDataset(IMAGES.float(), LABELS), 8), {}),
    "images read from files": ((IMAGES, LABELS), {"augment": "resized-crop-flip+augmix"}),
    "jsd=12 compares": ((IMAGES, LABELS), {"augment": "crop-flip", "jsd": 12}),
    "jsd='x'": ((IMAGES, LABELS), {"augment": "augmix:jsd=x"}),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    train, settings = REFUSED[named]
    with pytest.raises(ValueError, match=named):
        weights(train, **({"augment": CHAIN} | settings))


def test_crops_alone_still_take_images_of_another_range() -> None:
    weights((FLOATS, LABELS), augment="crop-flip", input_range=(-1.0, 1.0), epochs=1)
