"""The same training curve whichever backend serves the ops."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from entprop_fast import build_info, convert_dual_norm, create_method, models
from entprop_fast.lab.data import load
from entprop_fast.ops import backend
from tests.lab.conftest import Call, rows

pytestmark = pytest.mark.skipif(
    "cpu" not in build_info().backends, reason="the C++ kernels are not built"
)
KEYS = ("loss", "aux_loss", "entropy_selected", "entropy_unselected")


def losses(steps: int) -> torch.Tensor:
    """Main and auxiliary loss of each step in float64, in which a sign flips once in a lifetime."""
    images = load("digits", train_size=64, seed=0)
    torch.manual_seed(0)
    model = convert_dual_norm(models.create("wrn10_0.5", num_classes=10, in_channels=1))
    model.double().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    step = create_method("entprop", model, optimizer, k=0.4, n=2, alpha=0.1, generator=generator)
    results = [step(images.train_images.double(), images.train_labels) for _ in range(steps)]
    return torch.stack([torch.stack((r.loss, r.aux_loss)) for r in results])


def test_the_same_curve_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cpu" in backend.KERNEL_DEVICES
    found = losses(25)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    expected = losses(25)
    assert expected[-1, 0] < 0.7 * expected[0, 0]  # it learns
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.usefixtures("without_pictures")
def test_the_same_curve_of_a_run(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32, for as long as rounding has not moved a row in or out of the selection."""
    curves = []
    for name in ("kernels", "reference"):
        said = run(tmp_path / name, "--corruptions", "none")
        assert said.count("every op in plain PyTorch (the reference backend)") == len(curves)
        curves.append([row[key] for row in rows(tmp_path / name) for key in KEYS])
        monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
