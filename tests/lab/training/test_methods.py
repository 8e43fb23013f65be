"""Every method through the command, from the recipe to the deployed network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast import build_info, convert_dual_norm, create_method, models
from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.data import load
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.layers import DualLayerNorm
from entprop_fast.methods import METHODS
from entprop_fast.ops import backend
from tests.lab.conftest import Call, model, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

COSTS = {  # in passes over the data: of batches of 20, 4 or a share of 0.2 of them attacked
    "vanilla": 1.0,
    "mixup": 1.0,
    "cutmix": 1.0,
    "mixprop": 2.0,
    "entprop": 1.2,
    "fast_advprop": 1.2,
    "advprop": 7.0,
    "free_at": 4.0,
    "noisymix": 3.0,
    "entprop_pipelined": 1.1,  # the first of two batches takes no rows along
}
ONCE = ("--epochs", "1", "--corruptions", "none")


def saved(run: Path, part: str) -> Any:
    return torch.load(run / "checkpoint.pt", weights_only=True)[part]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method(method: str, run: Call, tmp_path: Path) -> None:
    views = ("--augment", "augmix") if method == "noisymix" else ()
    run(tmp_path, "--method", method, *views, *ONCE)
    found = summary(tmp_path)
    assert (found["method"], found["cost"]) == (method, COSTS[method])
    load_deployable(tmp_path / "model.safetensors")  # a plain network, whatever was trained
    assert evaluate.main([str(tmp_path / "checkpoint.pt"), "--corruptions", "none"]) == 0


def test_shared_norms_train_a_plain_network(run: Call, call: Call, tmp_path: Path) -> None:
    run(tmp_path, "--norms", "shared", *ONCE)
    assert not [name for name in saved(tmp_path, "model") if "aux_bn" in name]
    assert "aux" in call(evaluate, [str(tmp_path / "checkpoint.pt"), "--norms", "aux"], 2)


def delta(state: Any) -> bool:
    return bool(0 < state["delta"].abs().max() <= 0.1 + 1e-6)


def rows_that_wait(state: Any) -> bool:
    waiting = state["waiting"]
    return len(waiting["images"]) == 4 and waiting["labels"].shape == waiting["labels_b"].shape


def centres(state: Any) -> bool:
    found = state["criterion"]["centres"]
    return found.shape == (10, 10) and not torch.equal(found, torch.eye(10))  # they learn


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ("--method free_at", delta),
        ("--method entprop_pipelined --aux-labels mixed", rows_that_wait),
        ("--method vanilla --criterion gpaco", centres),
        ("--criterion gpaco", centres),
    ],
)
def test_what_a_method_keeps_is_resumed(
    flags: str, kept: Callable[[Any], bool], finished: Path, run: Call, tmp_path: Path
) -> None:
    run(tmp_path, *flags.split(), "--epochs", "2", "--corruptions", "none")
    whole = model(tmp_path)
    assert len(whole) == len(model(finished))  # without the centres
    (tmp_path / "checkpoint.prev.pt").replace(tmp_path / "checkpoint.pt")
    for name in ("summary.json", "model.safetensors"):
        (tmp_path / name).unlink()
    assert kept(saved(tmp_path, "method"))
    assert train.main(["--resume", "--out", str(tmp_path)]) == 0
    assert model(tmp_path) == whole


def test_a_vision_transformer_trains_through_dual_layer_norms(run: Call, tmp_path: Path) -> None:
    # 8x8 images: 4 patches of 4x4 in place of 196 of 16x16.
    arch = "timm:vit_tiny_patch16_224,img_size=8,patch_size=4"
    run(tmp_path, *ONCE, "--arch", arch, "--optimizer", "adamw", "--lr", "1e-3")
    names = [f"blocks.0.norm1.{half}weight" for half in ("", "aux_ln.")]
    halves = [saved(tmp_path, "model")[name] for name in names]
    assert len({tuple(half.tolist()) for half in (*halves, torch.ones(192))}) == 3  # both moved
    plain, spec = load_deployable(tmp_path / "model.safetensors")
    assert spec.arch == arch == summary(tmp_path)["arch"]
    assert not any(isinstance(module, DualLayerNorm) for module in plain.modules())


@pytest.mark.skipif("cpu" not in build_info().backends, reason="the C++ kernels are not built")
def test_the_same_curve_whichever_backend_serves_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, in which a sign flips once in a lifetime."""
    images, curves = load("digits", train_size=64, seed=0), []
    assert "cpu" in backend.KERNEL_DEVICES
    for _ in range(2):
        torch.manual_seed(0)
        net = convert_dual_norm(models.create("wrn10_0.5", num_classes=10, in_channels=1))
        net.double().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        settings = {"k": 0.4, "n": 2, "alpha": 0.1, "generator": torch.Generator().manual_seed(1)}
        step = create_method("entprop", net, optimizer, **settings)
        results = [step(images.train_images.double(), images.train_labels) for _ in range(25)]
        curves.append(torch.stack([torch.stack((r.loss, r.aux_loss)) for r in results]))
        monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    found, expected = curves
    assert expected[-1, 0] < 0.7 * expected[0, 0]  # it learns
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
