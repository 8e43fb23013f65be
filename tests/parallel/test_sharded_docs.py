"""Run the example of docs/how-to/sharded.md: it trains one network, and goes on."""

import os
import re
import socket
from pathlib import Path
from typing import Any

import torch

from entprop_fast import models
from entprop_fast.lab import data
from tests.methods.support import assert_equal
from tests.processes import WORLD, start

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "sharded.md").read_text()


def run_example(rank: int, folder: str, port: int) -> None:
    """Run it with what torchrun puts into the environment."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = re.search(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    exec(found[1], {})


def run(folder: Path) -> dict[str, Any]:
    """Return the network that it leaves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start(run_example, str(folder), port)
    state: dict[str, Any] = torch.load(folder / "network.pt", weights_only=True)
    return state


def test_the_example_trains_a_plain_network_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    state = run(tmp_path)
    network: Any = models.create("wrn10_0.5", num_classes=10, in_channels=1)
    network.load_state_dict(state)
    digits = data.load("digits")
    assert isinstance(digits, data.ImageData)
    with torch.no_grad():
        right = network.eval()(digits.test_images).argmax(dim=1) == digits.test_labels
    assert right.float().mean() > 0.3  # chance is 0.1
    (tmp_path / "epoch-1").rename(tmp_path / "before")
    assert_equal(run(tmp_path), state)
