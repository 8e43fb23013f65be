"""`entprop_fast.load` gives the plain network of a run, and what a user of it must know."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

import entprop_fast
from entprop_fast.lab import checkpoint
from entprop_fast.lab.training.deploy import NetworkSpec, load_deployable, save_deployable
from entprop_fast.models.normalized import core
from tests.lab.publish.conftest import CLASSES


class Own(nn.Module):
    """A network of the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(images).mean((2, 3)))
        return logits


def test_a_run_its_checkpoint_and_its_file(finished: Path) -> None:
    images = torch.rand(3, 1, 8, 8)
    network, spec = entprop_fast.load(finished)
    deployed, _ = load_deployable(finished / "model.safetensors")
    expected = deployed.eval()(images)
    for path in (finished, finished / "checkpoint.pt", finished / "model.safetensors"):
        network, spec = entprop_fast.load(path)
        assert not any(module.training for module in network.modules())
        assert not any("aux" in name for name in network.state_dict())
        torch.testing.assert_close(network(images), expected)
    assert spec.classes == tuple("0123456789") and spec.class_names == spec.classes
    assert (spec.preprocessing.channels, spec.preprocessing.height) == (1, 8)


def test_of_a_run_the_deployed_file_counts(finished: Path, tmp_path: Path) -> None:
    """The checkpoint may be of other weights: those of an average, or of the best epoch."""
    for name in ("checkpoint.pt", "model.safetensors"):
        shutil.copy(finished / name, tmp_path)
    deployed, spec = load_deployable(tmp_path / "model.safetensors")
    for parameter in deployed.parameters():
        nn.init.constant_(parameter, 0.5)
    save_deployable(tmp_path / "model.safetensors", deployed, spec)
    network, _ = entprop_fast.load(tmp_path)
    assert all((one == 0.5).all() for one in network.parameters())
    trained, _ = entprop_fast.load(tmp_path / "checkpoint.pt")
    assert not any((one == 0.5).all() for one in trained.parameters())


def test_a_file_that_an_earlier_version_wrote(spec: NetworkSpec, tmp_path: Path) -> None:
    new = ("class_names", "input_size", "mean", "std")
    old = {name: value for name, value in asdict(spec).items() if name not in new}
    tensors = core(spec.build()).state_dict()
    file = tmp_path / "model.safetensors"
    whole = {name: value.contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(whole, file, {"entprop_fast": json.dumps(old)})
    _, found = entprop_fast.load(file)
    assert found == replace(spec, class_names=(), input_size=())
    assert found.preprocessing == spec.preprocessing


def test_the_same_network_is_written_to_the_same_bytes(spec: NetworkSpec, tmp_path: Path) -> None:
    network = spec.build()
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for file in files:
        save_deployable(file, network, replace(spec))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert entprop_fast.load(files[0])[1].classes == CLASSES


def test_a_network_of_one_s_own_is_given(spec: NetworkSpec, tmp_path: Path) -> None:
    """No name out of a file is imported; the weights go into the module that is there."""
    own = Own()
    file = tmp_path / "model.safetensors"
    save_deployable(file, own, replace(spec, arch="model:Own", normalize="none"))
    given = Own()
    network, found = entprop_fast.load(file, model=given)
    assert network is given and found.own
    assert given.head.weight.equal(own.head.weight)
    with pytest.raises(ValueError, match="model="):
        entprop_fast.load(file)
    with pytest.raises(ValueError, match="head"):
        entprop_fast.load(file, model=nn.Sequential(nn.Linear(3, 3)))


@pytest.mark.usefixtures("without_pictures")
def test_an_unfinished_run_says_so(finished: Path, tmp_path: Path) -> None:
    state = checkpoint.read(finished / "checkpoint.pt")
    checkpoint.write(tmp_path / "checkpoint.pt", state | {"epoch": 1})
    with pytest.warns(UserWarning, match="1 of 3 epochs"):
        entprop_fast.load(tmp_path)


@pytest.mark.parametrize(
    ("made", "error"),
    [(None, FileNotFoundError), ("folder", ValueError), (b"", ValueError), (b"x" * 99, ValueError)],
)
def test_refusals(made: Any, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    if made == "folder":
        path.mkdir()
    elif made is not None:
        path.write_bytes(made)
    with pytest.raises(error, match=str(path)):
        entprop_fast.load(path)


def test_an_empty_name_is_no_run() -> None:
    with pytest.raises(ValueError, match="path"):
        entprop_fast.load("")


@pytest.mark.usefixtures("without_pictures")
def test_what_fit_trained(tmp_path: Path) -> None:
    """The data set's names of its classes, the size and normalisation of its images."""
    made: Any = TensorDataset(torch.rand(12, 3, 6, 6) * 2 - 1, torch.arange(12) % 3)
    made.classes = list(CLASSES)
    both: ConcatDataset[Any] = ConcatDataset([Subset(made, range(9)), Subset(made, range(9, 12))])
    loader = DataLoader(both, batch_size=6)
    half = ((0.5,) * 3, (0.5,) * 3)
    trained, out = Own(), tmp_path / "run"
    entprop_fast.fit(trained, loader, epochs=1, normalization=half, device="cpu", out=out)
    network, spec = entprop_fast.load(out, model=Own())
    assert spec.own and spec.classes == CLASSES and spec.input_size == (6, 6)
    assert (spec.preprocessing.mean, spec.preprocessing.std) == half
    images = torch.ones(1, 3, 6, 6)
    torch.testing.assert_close(network(images), trained.eval()(images))
