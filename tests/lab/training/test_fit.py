"""A network of one's own is trained, in place, by the trainer of the commands."""

from __future__ import annotations

import copy
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import entprop_fast
from entprop_fast.lab.cli import evaluate as evaluate_command
from entprop_fast.lab.cli import export as export_command
from entprop_fast.lab.cli import report as report_command
from entprop_fast.lab.cli import train as train_command
from entprop_fast.layers import DualBatchNorm2d
from tests.lab.conftest import rows, summary
from tests.lab.training.small_fits import (
    BATCH,
    LABELS,
    SIZE,
    SMALL,
    net,
    pair,
    same,
)

pytestmark = pytest.mark.usefixtures("without_pictures")


def test_scores_are_those_of_evaluate_model() -> None:
    model = net()
    found = entprop_fast.fit(model, pair(), pair(8), **SMALL, corruptions="digits")
    options = entprop_fast.EvaluationOptions(corruptions="digits")
    wanted = entprop_fast.evaluate_model(model, pair(8), options)
    assert (found.sa, found.ra, found.hscore) == (wanted.sa, wanted.ra, wanted.hscore)
    assert found.corruptions == wanted.corruptions and found.corruption_source
    assert (found.dataset, found.arch, found.train_size) == ("data:tensors", "model:Net", SIZE)


def test_without_validation_nothing_is_measured(tmp_path: Path) -> None:
    found = entprop_fast.fit(net(), pair(), out=tmp_path / "run", **SMALL)
    assert (found.sa, found.ra, found.hscore, found.corruptions) == (None, None, None, {})
    assert [row["sa"] for row in rows(tmp_path / "run")] == [None, None]
    assert summary(tmp_path / "run")["sa"] is None


def test_no_file_is_left_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    assert entprop_fast.fit(net(), pair(), **SMALL).folder == ""
    assert [*tmp_path.rglob("*")] == [tmp_path / "tmp"]


@pytest.mark.parametrize("training", [True, False])
def test_what_is_left_of_the_model_and_the_generators(training: bool) -> None:
    model: Any = net().train(training)
    model.features[1].eval()  # a frozen norm
    parameters = dict(model.named_parameters())
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    entprop_fast.fit(model, pair(), **SMALL)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert (model.training, model.features[1].training) == (training, False)
    assert dict(model.named_parameters()) == parameters  # the same objects: in place
    assert model.state_dict().keys() == before.keys()
    assert not torch.equal(before["classify.weight"], model.classify.weight)
    frozen = torch.equal(before["features.1.running_mean"], model.features[1].running_mean)
    assert frozen is training  # put into training mode as a whole, where it was not


def test_the_model_stays_dual_where_that_is_wanted() -> None:
    model: Any = net()
    dual: Any = entprop_fast.convert_dual_norm(net())
    half = dual.features[1].aux_bn
    entprop_fast.fit(model, pair(), strip=False, **SMALL)
    assert isinstance(model.features[1], DualBatchNorm2d)
    entprop_fast.fit(dual, pair(), strip=False, **SMALL)
    assert dual.features[1].aux_bn is half and same(dual, model)
    entprop_fast.fit(dual, pair(), **SMALL)
    assert type(dual.features[1]) is nn.BatchNorm2d


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_dtypes(dtype: torch.dtype) -> None:
    found = entprop_fast.fit(net().to(dtype), pair(), pair(), **SMALL, corruptions="none")
    assert found.sa is not None and found.sa >= 25


def test_averaged_weights_are_what_the_model_ends_with(tmp_path: Path) -> None:
    model = net()
    entprop_fast.fit(model, pair(), batch_size=BATCH, ema=0.5, out=tmp_path / "run", **SMALL)
    plain = net()
    entprop_fast.fit(plain, pair(), batch_size=BATCH, **SMALL)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert not same(model, plain)


def test_loggers_write_where_there_is_a_folder(tmp_path: Path) -> None:
    entprop_fast.fit(net(), pair(), out=tmp_path / "csv", **SMALL)
    entprop_fast.fit(net(), pair(), out=tmp_path / "none", log=(), **SMALL)
    assert (tmp_path / "csv" / "metrics.csv").exists()
    assert not (tmp_path / "none" / "metrics.csv").exists()


def test_a_criterion_of_ones_own_is_trained() -> None:
    criterion = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.5)
    models = [net(), net()]
    entprop_fast.fit(models[0], pair(), criterion=criterion, **SMALL)
    entprop_fast.fit(models[1], pair(), label_smoothing=0.5, **SMALL)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_images_of_four_channels_have_no_corruption() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 4))
    data = torch.rand(SIZE, 4, 6, 6), LABELS
    found = entprop_fast.fit(model, data, data, **SMALL)
    assert found.sa is not None and found.ra is None


def test_the_page_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "fit.md").read_text()
    example, code = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["logits"].shape == (1, 4) and type(names["model"][1]) is nn.BatchNorm2d
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()
    (tmp_path / "my_code.py").write_text(code)
    lines = re.findall(r"^python -m entprop_fast\.(\w+) (.*)$", page, re.M)
    modules = train_command, evaluate_command, report_command, export_command
    commands = {module.__name__.rpartition(".")[2]: module for module in modules}
    for name, words in lines:
        if name in commands:  # compare trains six of them, in other processes
            assert commands[name].main(shlex.split(words)) == 0
    assert (tmp_path / "runs" / "own" / "report.html").exists()
    assert (tmp_path / "runs" / "own" / "export" / "model.onnx").exists()
    sys.modules.pop("my_code")
