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
from tests.lab.conftest import Call, model, summary
from tests.tiny_data.archives import Bytes, cifar_files, cifar_images, make_official, write_folder

pytestmark = pytest.mark.usefixtures("without_pictures")

SHARED = ("sa", "ra", "hscore", "corruptions", "corruption_source")


def by_brightness(pixels: Bytes, labels: Bytes) -> tuple[Bytes, Bytes]:
    """The same labels, of images that a few epochs can tell apart."""
    return (pixels // 8 + 22 * labels[:, None]).astype(np.uint8), labels


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tiny CIFAR-10, and CIFAR-10-C made of its test images, each kind and severity darker."""
    form = FORMS["cifar10"][1]
    train_split, (pixels, labels) = (by_brightness(*one) for one in cifar_images("cifar10"))
    splits = (train_split, (pixels, labels))
    write_folder(tmp_path / form.folder, cifar_files("cifar10", form, splits))
    make_official(monkeypatch, "cifar10")
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    root = tmp_path / "CIFAR-10-C"
    root.mkdir()
    for number, kind in enumerate(COMMON_KINDS):
        darker = [(images * (1 - 0.1 * severity)).astype(np.uint8) for severity in SEVERITIES]
        darker[number % 5] = images
        np.save(root / f"{kind}.npy", np.concatenate(darker))
    np.save(root / "labels.npy", np.tile(labels, len(SEVERITIES)))
    small = "--recipe cifar10 --method vanilla --arch wrn10_0.5 --batch-size 25 --epochs 12"
    where = ["--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    return [*small.split(), *"--threads 1 --device cpu".split(), *where]


def test_official_files_are_what_a_run_is_scored_on(flags: list[str], tmp_path: Path) -> None:
    out, scores = tmp_path / "run", tmp_path / "scores.json"

    def scored(*more: str) -> dict[str, Any]:
        """What the run says of itself, which the evaluate command says too."""
        where = ["--data-dir", str(tmp_path), "--device", "cpu", "--out", str(scores)]
        assert evaluate.main([str(out), *where, *more]) == 0
        evaluated, found = json.loads(scores.read_text()), summary(out)
        assert {name: evaluated[name] for name in SHARED} == {name: found[name] for name in SHARED}
        return found

    assert train.main(flags) == 0
    official, network = scored(), model(out)
    assert official["corruption_source"] == "official CIFAR-10-C"
    assert len({value for values in official["corruptions"].values() for value in values}) > 2
    # A finished run is only evaluated again; its network stays.
    assert train.main([*flags, "--resume", "--corruptions", "generated"]) == 0
    assert model(out) == network
    generated = scored("--corruptions", "generated")
    assert generated["corruption_source"].startswith("generated (CIFAR-C's strengths, seed 0")
    assert generated["sa"] == official["sa"]
    assert generated["corruptions"] != official["corruptions"]


def test_a_set_that_cannot_be_used_is_refused_before_the_first_step(
    flags: list[str], call: Call, tmp_path: Path
) -> None:
    root = tmp_path / "CIFAR-10-C"
    order, whole = np.load(root / "labels.npy"), (root / "fog.npy").read_bytes()
    cases: dict[str, Callable[[], Any]] = {
        "fog.npy cannot be read": lambda: (root / "fog.npy").write_bytes(whole[:500]),
        "the labels are not those of cifar10's test images": lambda: (
            (root / "fog.npy").write_bytes(whole),
            # As often, in another order.
            np.save(root / "labels.npy", np.tile(np.roll(order[:10], 1), 5)),
        ),
        "CIFAR-10-C was looked for": lambda: root.rename(tmp_path / "elsewhere"),
    }
    for message, damage in cases.items():
        damage()
        assert message in call(train, [*flags, "--corruptions", "official"], 2)
        assert not (tmp_path / "run").exists()
    # Without the word it is no error: the run says what it takes instead, before it begins.
    said = call(train, [*flags, "--epochs", "1"])
    assert said.index("its corruptions are generated") < said.index("epoch 1/")


def test_without_corruptions_there_is_no_ra(run: Call, tmp_path: Path) -> None:
    run(tmp_path, "--epochs", "1")
    (tmp_path / "corruptions.png").write_bytes(b"of the first evaluation")
    said = run(tmp_path, "--epochs", "1", "--resume", "--corruptions", "none")
    assert "corruptions behind RA: none" in said
    (line,) = [one.split() for one in said.splitlines() if one.startswith("entprop  ")]
    assert line[2:4] == ["–", "–"]
    found = summary(tmp_path)
    assert (found["ra"], found["hscore"], found["corruptions"]) == (None, None, {})
    assert found["corruption_source"] == "" and found["sa"] > 0
    assert not (tmp_path / "corruptions.png").exists()
