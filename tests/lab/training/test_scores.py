"""A run's own scores are those that the evaluate command prints, on the same corrupted images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data.cifar import FORMS
from tests.lab.conftest import Args
from tests.tiny_data.archives import Bytes, cifar_files, cifar_images, make_official, write_folder

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("without_pictures")

SHARED = ("sa", "ra", "hscore", "corruptions", "corruption_source")


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny CIFAR-10, and CIFAR-10-C made of its test images, each kind and severity darker."""
    form = FORMS["cifar10"][1]
    data_dir = tmp_path / "data"
    train_split, (pixels, labels) = (by_brightness(*one) for one in cifar_images("cifar10"))
    splits = (train_split, (pixels, labels))
    write_folder(data_dir / form.folder, cifar_files("cifar10", form, splits))
    make_official(monkeypatch, "cifar10")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    root = data_dir / "CIFAR-10-C"
    root.mkdir()
    for number, kind in enumerate(COMMON_KINDS):
        darker = [(images * (1 - 0.1 * severity)).astype(np.uint8) for severity in SEVERITIES]
        darker[number % 5] = images
        np.save(root / f"{kind}.npy", np.concatenate(darker))
    np.save(root / "labels.npy", np.tile(labels, len(SEVERITIES)))
    return data_dir


def by_brightness(pixels: Bytes, labels: Bytes) -> tuple[Bytes, Bytes]:
    """The same labels, of images that a few epochs can tell apart."""
    return (pixels // 8 + 22 * labels[:, None]).astype(np.uint8), labels


def flags(data_dir: Path, out: Path, *more: str) -> list[str]:
    small = "--recipe cifar10 --method vanilla --arch wrn10_0.5 --batch-size 25 --epochs 12"
    where = ["--data-dir", str(data_dir), "--out", str(out)]
    return [*small.split(), *"--threads 1 --device cpu".split(), *where, *more]


def summary_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def evaluated(run: Path, *more: str) -> dict[str, Any]:
    out = run.parent / "scores.json"
    assert evaluate.main([str(run), "--device", "cpu", "--out", str(out), *more]) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_official_files_are_what_a_run_is_scored_on(cifar: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main(flags(cifar, out)) == 0
    summary = summary_of(out)
    assert summary["corruption_source"] == "official CIFAR-10-C"
    assert len({value for values in summary["corruptions"].values() for value in values}) > 2
    again = evaluated(out, "--data-dir", str(cifar))
    assert {name: summary[name] for name in SHARED} == {name: again[name] for name in SHARED}
    # A finished run is only evaluated again; its network stays.
    network = (out / "model.safetensors").read_bytes()
    assert train.main(flags(cifar, out, "--resume", "--corruptions", "generated")) == 0
    assert (out / "model.safetensors").read_bytes() == network
    generated = summary_of(out)
    assert generated["corruption_source"].startswith("generated (CIFAR-C's strengths, seed 0")
    assert generated["sa"] == summary["sa"] and generated["corruptions"] != summary["corruptions"]
    again = evaluated(out, "--data-dir", str(cifar), "--corruptions", "generated")
    assert {name: generated[name] for name in SHARED} == {name: again[name] for name in SHARED}


def test_a_set_that_cannot_be_used_is_refused_before_the_first_step(
    cifar: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "run"
    fog, labels = (cifar / "CIFAR-10-C" / f"{name}.npy" for name in ("fog", "labels"))
    order, whole = np.load(labels), fog.read_bytes()
    cases: dict[str, Callable[[], Any]] = {
        "fog.npy cannot be read": lambda: fog.write_bytes(whole[:500]),
        "the labels are not those of cifar10's test images": lambda: (
            fog.write_bytes(whole),
            np.save(labels, np.tile(np.roll(order[:10], 1), 5)),  # as often, in another order
        ),
        "CIFAR-10-C was looked for": lambda: (cifar / "CIFAR-10-C").rename(cifar / "elsewhere"),
    }
    for message, damage in cases.items():
        damage()
        assert train.main(flags(cifar, out, "--corruptions", "official")) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not out.exists()
    # Without the word it is no error: the run says what it takes instead, before it begins.
    assert train.main(flags(cifar, out)) == 0
    said = capsys.readouterr().out
    assert said.index("its corruptions are generated") < said.index("epoch 1/")
    assert said.count("its corruptions are generated") == 1  # the suite is opened once


def test_without_corruptions_there_is_no_ra(tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    assert train.main(tiny(out, "--epochs", "1")) == 0
    (out / "corruptions.png").write_bytes(b"of the first evaluation")
    capsys.readouterr()
    assert train.main(tiny(out, "--epochs", "1", "--resume", "--corruptions", "none")) == 0
    printed = capsys.readouterr().out
    assert "corruptions behind RA: none" in printed
    (line,) = [one.split() for one in printed.splitlines() if one.startswith("entprop  ")]
    assert line[2:4] == ["–", "–"]
    summary = summary_of(out)
    assert (summary["ra"], summary["hscore"], summary["corruptions"]) == (None, None, {})
    assert summary["corruption_source"] == "" and summary["sa"] > 0
    assert not (out / "corruptions.png").exists()
