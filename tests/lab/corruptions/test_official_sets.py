"""Check published sets in their layouts: read right, refused when they are something else."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.corruptions.set_marker import MARKER
from entprop_fast.lab.data import ImageData
from entprop_fast.lab.evaluation import Evaluation, EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.choose_suite import choose_suite
from tests.lab.evaluation.support import (
    Around,
    Brightness,
    darker,
    tiny_cifar,
    write_cifar_c,
)


def official(data: ImageData, folder: Path, extra: bool = False) -> Evaluation:
    options = EvaluationOptions(corruptions="official", official_dir=folder, extra=extra)
    return evaluate_model(Brightness(4), data, options, batch_size=7)


def test_cifar_c_kind_by_kind_and_severity_by_severity(tmp_path: Path) -> None:
    data, model = tiny_cifar(), Brightness(4)
    write_cifar_c(tmp_path, data, extra=True)
    found = official(data, tmp_path, extra=True)
    everything = []
    for number, (kind, values) in enumerate((found.corruptions | found.extra).items()):
        for severity, value in zip(SEVERITIES, values, strict=True):
            images = darker(data.test_images, number, severity).float() / 255
            right = (model(images).argmax(1) == data.test_labels).double().mean().item()
            assert value == pytest.approx(100 * right), (kind, severity)
            if number < 15:
                everything.append(right)
    assert tuple(found.corruptions) == COMMON_KINDS and len(found.extra) == 4
    sa = (model(data.test_images / 255).argmax(1) == data.test_labels).double().mean().item()
    ra = sum(everything) / 75
    assert (found.sa, found.ra) == pytest.approx((100 * sa, 100 * ra))
    assert found.hscore == pytest.approx(100 * 2 * sa * ra / (sa + ra))
    assert found.hscore_interval is not None and found.mce is None
    assert found.corruption_source == "official CIFAR-10-C" == found.rows[1].source
    assert found.rows[0].low < found.sa < found.rows[0].high


def test_auto_takes_the_official_set_where_it_is_and_says_where_it_is_not(tmp_path: Path) -> None:
    data, told = tiny_cifar(), list[str]()
    options = EvaluationOptions(official_dir=tmp_path)
    generated = evaluate_model(Brightness(4), data, options, say=told.append)
    assert generated.corruption_source.startswith(
        "generated (CIFAR-C's strengths, seed 0, frost on"
    )
    assert any("CIFAR-10-C was looked for" in line for line in told)
    before = choose_suite(data, options, torch.device("cpu"))
    write_cifar_c(tmp_path, data)
    assert evaluate_model(Brightness(4), data, options).corruption_source == "official CIFAR-10-C"
    assert evaluate_model(Brightness(4), data, options, suite=before) == generated
    report = generated.markdown()
    assert "no official set" in report and "frost on procedural textures" in report
    assert "| frost (procedural) |" in report
    assert "| frost |" in evaluate_model(Brightness(4), data, options).markdown()


class Runs:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def array(change: Callable[[Any], Any], name: str = "fog") -> Callable[[Path], object]:
    return lambda root: np.save(root / f"{name}.npy", change(np.load(root / f"{name}.npy")))


def content(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / "fog.npy").write_bytes(change((root / "fog.npy").read_bytes()))


def pickled(root: Path) -> None:
    np.save(root / "fog.npy", np.array([Runs(root / "ran")], dtype=object), allow_pickle=True)


def archived(root: Path) -> None:
    np.savez(root / "fog.npz", np.load(root / "fog.npy"))
    (root / "fog.npz").rename(root / "fog.npy")


def marked(marker: object) -> Callable[[Path], object]:
    return lambda root: (root / MARKER).write_text(json.dumps(marker))


def one_other(labels: Any) -> Any:
    labels[25] = (labels[25] + 1) % 4
    return labels


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled array": (pickled, r"fog\.npy cannot be read"),
    "plain pickle": (
        lambda root: (root / "fog.npy").write_bytes(pickle.dumps(Runs(root / "ran"))),
        r"fog\.npy cannot be read",
    ),
    "truncated": (content(lambda data: data[:-100]), r"fog\.npy cannot be read"),
    "empty": (content(lambda data: b""), r"fog\.npy cannot be read"),
    "shape": (array(lambda one: one[:-1]), r"fog\.npy holds uint8 \(99, 8, 8, 3\)"),
    "dtype": (array(lambda one: one.astype(np.float32)), r"fog\.npy holds float32"),
    "archive": (archived, r"fog\.npy holds several arrays"),
    "missing": (lambda root: (root / "fog.npy").unlink(), r"fog\.npy: there is no such file"),
    "few labels": (array(lambda one: one[:20], "labels"), r"labels\.npy holds uint8 \(20,\)"),
    "label range": (array(lambda one: one + 1, "labels"), r"labels\.npy holds labels outside 0"),
    "labels differ": (array(one_other, "labels"), r"labels\.npy: the labels differ"),
    "other order": (
        array(lambda one: one.reshape(5, -1)[:, ::-1].reshape(-1), "labels"),
        r"labels\.npy: the labels are not those of tiny's test images \d",
    ),
    "marker": (marked([]), "is not what entprop_fast.corrupt writes"),
    "unfinished": (marked({"scale": "cifar-c", "complete": False}), "is a part of a set"),
    "generator": (
        marked({"scale": "cifar-c", "seed": 0, "complete": True, "generator": "new"}),
        "no known generator: 'new'",
    ),
    "seed": (marked({"scale": "cifar-c", "complete": True}), "no known scale and seed"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_no_cifar_c_is_refused(how: str, tmp_path: Path) -> None:
    data = tiny_cifar()
    root = write_cifar_c(tmp_path, data)
    damage, named = HOSTILE[how]
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=named):
        official(data, tmp_path)
    assert not (root / "ran").exists()


def test_an_official_set_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="looked for as CIFAR-10-C, cifar-10-c"):
        official(tiny_cifar(), tmp_path)
    with pytest.raises(ValueError, match="there is no such set of tiny"):
        official(tiny_cifar(official=None), tmp_path)


def test_torch_is_not_asked_for_more_than_the_batch(tmp_path: Path) -> None:
    data, sizes = tiny_cifar(count=12), list[int]()
    write_cifar_c(tmp_path, data)

    def watched(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        return x

    options = EvaluationOptions(official_dir=tmp_path)
    evaluate_model(Around(watched), data, options, batch_size=5)
    assert set(sizes) == {5, 2} and len(sizes) == 3 * 76
