"""One command on a tiny ImageNet: official corruptions, natural sets and an attack together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entprop_fast.lab.cli import evaluate
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.training.deploy import NetworkSpec, save_deployable
from tests.lab.evaluation.support import SIDE, WNIDS, write_classes


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """The documented folder with four classes, and the official sets within it."""
    for name in ("train", "val", "imagenet-a", "imagenet-r", "stylized-imagenet/val"):
        write_classes(tmp_path / "data" / name, count=2)
    for kind in COMMON_KINDS:
        for severity in SEVERITIES:
            write_classes(tmp_path / "data" / "imagenet-c" / kind / str(severity), count=2)
    return tmp_path / "data"


def test_the_full_report_in_one_command(
    imagenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = NetworkSpec("wrn10_0.5", len(WNIDS), 3, "imagenet", "imagenet", 0, image_size=SIDE)
    network, out = tmp_path / "model.safetensors", tmp_path / "report"
    save_deployable(network, spec.build(), spec)
    arguments = [str(network), "--data-dir", str(imagenet), "--device", "cpu", "--out", str(out)]
    sets = ["--also", "imagenet-a", "imagenet-r", "stylized", "--pgd", "2"]
    assert evaluate.main([*arguments, *sets]) == 0
    (found,) = json.loads((out / "evaluation.json").read_text())["evaluations"]
    assert [row["source"] for row in found["rows"]] == [
        "imagenet test set",
        "official ImageNet-C",
        "official ImageNet-A",
        "official ImageNet-R",
        "official Stylized-ImageNet",
        "imagenet test set, attacked through the main norms",
    ]
    assert found["ra"] == found["sa"] and found["mce"] is not None  # the copies are not corrupted
    assert len({row["accuracy"] for row in found["rows"][:5]}) == 1
    assert "ImageNet-C" in capsys.readouterr().out
