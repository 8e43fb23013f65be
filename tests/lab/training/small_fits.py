"""Networks, images and settings so small that a test of `fit` can afford several runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

CLASSES, SIZE, BATCH = 4, 48, 12
SMALL: dict[str, Any] = {"epochs": 2, "eps": 0.1, "alpha": 0.1, "device": "cpu", "verbose": False}


class Net(nn.Module):
    """A network that views its activations as rows, as many do."""

    def __init__(self, output: type | None = None) -> None:
        super().__init__()
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1)
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(4 * 4 * 4, CLASSES)
        self.output = output

    def forward(self, x: Tensor) -> Any:
        x = self.features(x)
        logits = self.classify(x.view(len(x), -1))
        return logits if self.output is None else self.output(logits=logits)


def net(**options: Any) -> Net:
    torch.manual_seed(0)
    return Net(**options)


def pair(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] whose labels are their brightness."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(size) % CLASSES
    noise = 0.2 * torch.rand(size, 3, 6, 6, generator=generator)
    return noise + 0.2 * labels.view(-1, 1, 1, 1), labels


class Noisy(Dataset[tuple[Tensor, int]]):
    """A data set with draws of its own, from every global generator."""

    def __init__(self) -> None:
        self.images, self.labels = pair()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index] * (0.9 + 0.1 * torch.rand(()))
        return image, int(self.labels[index])


def same(found: nn.Module, wanted: nn.Module) -> bool:
    pairs = zip(found.state_dict().values(), wanted.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class Items(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


IMAGES, LABELS = pair()
PAIRS = TensorDataset(IMAGES, LABELS)
LOADER = DataLoader(PAIRS, BATCH)
