"""Run the example of docs/distributed.md: it trains one network in two processes."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast import models
from entprop_fast.lab import data
from tests.methods.support import assert_equal
from tests.processes import WORLD, start

PAGE = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
SAVING = "if distributed.get_rank() == 0:\n"


def example() -> str:
    found = re.search(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None and found[1].count(SAVING) == 1
    return found[1]


def run_example(rank: int, folder: str, port: int) -> None:
    """Run it with what torchrun puts into the environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    os.chdir(folder)
    torch.set_num_threads(1)
    own = "torch.save(dict(network.named_parameters()), f'{distributed.get_rank()}.pt')\n"
    exec(example().replace(SAVING, own + SAVING), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the example and return its folder."""
    path = tmp_path_factory.mktemp("example")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start(run_example, str(path), port)
    return path


def test_the_example_trains_a_plain_network(folder: Path) -> None:
    network: Any = models.create("wrn10_0.5", num_classes=10, in_channels=1)
    network.load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    digits = data.load("digits")
    assert isinstance(digits, data.ImageData)
    with torch.no_grad():
        right = network.eval()(digits.test_images).argmax(dim=1) == digits.test_labels
    assert right.float().mean() > 0.5  # chance is 0.1


def test_its_ranks_stay_alike(folder: Path) -> None:
    one, other = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    assert any("aux_bn" in name for name in one)
    assert_equal(one, other)
