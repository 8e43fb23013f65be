"""A vision transformer trains through the command as any network does, with dual layer norms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from entprop_fast.lab.cli import train
from entprop_fast.lab.corruptions import suites
from entprop_fast.lab.data import load
from entprop_fast.lab.evaluation import metrics
from entprop_fast.lab.training.deploy import load_deployable
from entprop_fast.layers import DualLayerNorm
from tests.lab.conftest import summary

# 8x8 images: 4 patches of 4x4 in place of 196 of 16x16.
ARCH = "timm:vit_tiny_patch16_224,img_size=8,patch_size=4"


@pytest.mark.usefixtures("without_pictures")
def test_vit_tiny_trains_an_epoch_on_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suites, "CORRUPTIONS", ("blur",))  # most of the time is evaluation
    flags = "--epochs 1 --train-size 128 --optimizer adamw --lr 1e-3 --threads 1".split()
    assert train.main([*flags, "--arch", ARCH, "--out", str(tmp_path)]) == 0
    found = summary(tmp_path)
    assert (found["arch"], found["method"]) == (ARCH, "entprop")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    main, aux = (state["model"][f"blocks.0.norm1.{half}weight"] for half in ("", "aux_ln."))
    assert main.shape == aux.shape == (192,)
    assert len({tuple(half.tolist()) for half in (main, aux, torch.ones(192))}) == 3  # both moved
    plain, spec = load_deployable(tmp_path / "model.safetensors")
    assert spec.arch == ARCH
    assert not any(isinstance(module, DualLayerNorm) for module in plain.modules())
    images = load("digits", seed=0)
    sa = metrics.accuracy(plain, [(images.test_images, images.test_labels)])
    assert found["sa"] == pytest.approx(100 * sa)
