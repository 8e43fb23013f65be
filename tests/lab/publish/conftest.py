"""A run on image files that costs no training, its export, and images to classify."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from entprop_fast.lab.cli import export
from entprop_fast.lab.files import write_json
from entprop_fast.lab.training.deploy import NetworkSpec, save_deployable

SIDE = 16
CLASSES = ("cat", "dog|x", "<owl>")
SUMMARY: dict[str, Any] = {
    "sa": 91.25,
    "ra": 70.5,
    "hscore": 79.54,
    "corruption_source": "generated, strengths of CIFAR-10-C, seed 0",
    "method": "entprop",
    "seed": 3,
    "epochs": 7,
    "train_size": 1234,
    "cost": 8.4,
    "shifts": {
        "another artist": {"accuracy": 61.25, "ece": 9.0, "drop": 30.0, "images": 1415},
        "a|b": {"accuracy": 40, "ece": 9.0, "drop": 51.25, "images": 466},
    },
}


def settled(network: nn.Module, *shape: int) -> nn.Module:
    """Give a network's norms statistics and weights that are not the first ones; eval mode."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(8, *shape))
    return network.eval()


@pytest.fixture(scope="session")
def spec() -> NetworkSpec:
    return NetworkSpec(
        arch="wrn10_0.5",
        num_classes=3,
        in_channels=3,
        stem="imagenet",
        dataset="folder:/home/somebody/photos",
        seed=0,
        image_size=SIDE,
        normalize="imagenet",
        class_names=CLASSES,
        input_size=(SIDE, SIDE),
    )


@pytest.fixture(scope="session")
def photo_run(spec: NetworkSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `load` and the commands need of a run's folder; read only."""
    folder = tmp_path_factory.mktemp("publish") / "run"
    folder.mkdir()
    save_deployable(folder / "model.safetensors", settled(spec.build(), 3, SIDE, SIDE), spec)
    write_json(folder / "summary.json", SUMMARY)
    return folder


@pytest.fixture(scope="session")
def exported(photo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in every format; read only."""
    out = tmp_path_factory.mktemp("exported") / "made" / "here"
    assert export.main([str(photo_run), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several sizes, modes and formats, and what is none."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    draw = np.random.default_rng(0)

    def picture(width: int, height: int) -> Image.Image:
        small = draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    picture(40, 23).save(folder / "wide.jpg")
    picture(19, 64).save(folder / "deeper" / "tall.png")
    picture(SIDE, SIDE).convert("L").save(folder / "grey.png")
    picture(30, 30).convert("P").save(folder / "palette.gif")
    picture(9, 11).convert("RGBA").save(folder / "tiny.webp")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


def images_in(folder: Path) -> list[Path]:
    return sorted(
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and not name.endswith(".txt")
    )
