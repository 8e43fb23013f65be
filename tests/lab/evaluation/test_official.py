"""Published sets in their layouts: read right, and refused when they are something else."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.corruptions.set_marker import MARKER
from entprop_fast.lab.data import ImageData, UnreadableImage
from entprop_fast.lab.evaluation import Evaluation, EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.corruption_error import corruption_errors
from tests.lab.evaluation.support import (
    SIDE,
    WNIDS,
    Brightness,
    black,
    darker,
    tiny_cifar,
    tiny_imagenet,
    write_cifar_c,
    write_classes,
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
    write_cifar_c(tmp_path, data)
    assert evaluate_model(Brightness(4), data, options).corruption_source == "official CIFAR-10-C"
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


def damaged(root: Path, how: str) -> None:
    fog, labels = root / "fog.npy", root / "labels.npy"
    if how == "pickled array":
        np.save(fog, np.array([Runs(root / "ran")], dtype=object), allow_pickle=True)
    elif how == "plain pickle":
        fog.write_bytes(pickle.dumps(Runs(root / "ran")))
    elif how == "truncated":
        fog.write_bytes(fog.read_bytes()[:-100])
    elif how == "empty":
        fog.write_bytes(b"")
    elif how == "shape":
        np.save(fog, np.load(fog)[:-1])
    elif how == "dtype":
        np.save(fog, np.load(fog).astype(np.float32))
    elif how == "archive":
        np.savez(root / "fog.npz", np.load(fog))
        (root / "fog.npz").rename(fog)
    elif how == "missing":
        fog.unlink()
    elif how == "few labels":
        np.save(labels, np.load(labels)[:20])
    elif how == "label range":
        np.save(labels, np.load(labels) + 1)
    elif how == "labels differ":
        array = np.load(labels)
        array[25] = (array[25] + 1) % 4
        np.save(labels, array)
    elif how == "other order":
        array = np.load(labels).reshape(5, -1)
        np.save(labels, array[:, ::-1].reshape(-1))
    elif how == "marker":
        (root / MARKER).write_text("[]")
    elif how == "unfinished":
        (root / MARKER).write_text(json.dumps({"scale": "cifar-c", "seed": 0, "complete": False}))


HOSTILE = {
    "pickled array": r"fog\.npy cannot be read",
    "plain pickle": r"fog\.npy cannot be read",
    "truncated": r"fog\.npy cannot be read",
    "empty": r"fog\.npy cannot be read",
    "shape": r"fog\.npy holds uint8 \(99, 8, 8, 3\); uint8 \(100, 8, 8, 3\) wanted",
    "dtype": r"fog\.npy holds float32",
    "archive": r"fog\.npy holds several arrays",
    "missing": r"fog\.npy: there is no such file",
    "few labels": r"labels\.npy holds uint8 \(20,\); 100 whole numbers wanted",
    "label range": r"labels\.npy holds labels outside 0 \.\.\. 3",
    "labels differ": r"labels\.npy: the labels differ between severities",
    "other order": r"labels\.npy: the labels are not those of tiny's test images \d",
    "marker": "is not what entprop_fast.corrupt writes",
    "unfinished": "is a part of a set",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_no_cifar_c_is_refused(how: str, tmp_path: Path) -> None:
    data = tiny_cifar()
    root = write_cifar_c(tmp_path, data)
    damaged(root, how)
    with pytest.raises((ValueError, FileNotFoundError), match=HOSTILE[how]):
        official(data, tmp_path)
    assert not (root / "ran").exists()


def test_an_official_set_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="looked for as CIFAR-10-C, cifar-10-c"):
        official(tiny_cifar(), tmp_path)
    with pytest.raises(ValueError, match="there is no such set of tiny"):
        official(tiny_cifar(official=None), tmp_path)


def test_imagenet_c_folders_and_mce(tmp_path: Path) -> None:
    data, model = tiny_imagenet(tmp_path), Brightness(4)
    for number, kind in enumerate(COMMON_KINDS):
        category = ("", "blur", "weather")[number % 3]  # side by side, or as the archives unpack
        for severity in SEVERITIES:
            place = tmp_path / "imagenet-c" / category / kind / str(severity)
            write_classes(place)
            if (number + severity) % 4 == 0:  # one class of four turns black
                for path in (place / WNIDS[2]).iterdir():
                    black(path)
    options = EvaluationOptions(official_dir=tmp_path)
    found = evaluate_model(model, data, options)
    assert found.corruption_source == "official ImageNet-C" and found.sa == 100
    for number, (kind, values) in enumerate(found.corruptions.items()):
        wanted = [75.0 if (number + severity) % 4 == 0 else 100.0 for severity in SEVERITIES]
        assert values == wanted, kind
    shares = {kind: [one / 100 for one in values] for kind, values in found.corruptions.items()}
    assert found.mce == pytest.approx(corruption_errors(shares)[1])
    assert "| CE |" in found.markdown() and "mCE" in found.markdown()


def test_imagenet_c_with_missing_or_foreign_parts(tmp_path: Path) -> None:
    data = tiny_imagenet(tmp_path)
    root = tmp_path / "imagenet-c"
    for kind in COMMON_KINDS:
        for severity in SEVERITIES:
            write_classes(root / kind / str(severity), count=1)
    options = EvaluationOptions(official_dir=tmp_path)
    (root / "fog" / "3" / WNIDS[0]).rename(root / "fog" / "3" / "n09999999")
    with pytest.raises(ValueError, match="n09999999 is none of the 4 classes"):
        evaluate_model(Brightness(4), data, options)
    (root / "fog" / "3" / "n09999999").rename(root / "fog" / "3" / WNIDS[0])
    (root / "fog" / "3" / WNIDS[0] / "0.JPEG").unlink()
    with pytest.raises(ValueError, match="holds 3 images"):
        evaluate_model(Brightness(4), data, options)
    (root / "fog").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="fog/1: there is no such folder"):
        evaluate_model(Brightness(4), data, options)


def test_natural_sets_compare_their_own_classes(tmp_path: Path) -> None:
    data, model = tiny_imagenet(tmp_path), Brightness(4)
    write_classes(tmp_path / "imagenet-a", count=2)
    for wnid in WNIDS[1:3]:  # the set has two classes, whose images look like the missing ones
        for path in (tmp_path / "imagenet-a" / wnid).iterdir():
            path.unlink()
        (tmp_path / "imagenet-a" / wnid).rmdir()
    dark = Image.new("RGB", (SIDE, SIDE), (100, 100, 100))  # nearest is class 1, which it has not
    dark.save(tmp_path / "imagenet-a" / WNIDS[0] / "dark.png")
    write_classes(tmp_path / "imagenet-r", count=1)
    write_classes(tmp_path / "stylized-imagenet" / "val", side=20)  # to be resized
    options = EvaluationOptions(
        corruptions="none",
        also=("imagenet-a", "imagenet-r", "stylized"),
        official_dir=tmp_path,
    )
    clean, a, r, stylized = evaluate_model(model, data, options).rows
    assert clean.accuracy == r.accuracy == stylized.accuracy == 100
    assert a.accuracy == 100 and a.images == 5 and a.note == "among the set's 2 classes"
    assert (a.source, r.source) == ("official ImageNet-A", "official ImageNet-R")
    assert stylized.note == "" and stylized.images == 12


def test_broken_natural_sets(tmp_path: Path) -> None:
    data = tiny_imagenet(tmp_path)
    options = EvaluationOptions(corruptions="none", also=("imagenet-r",), official_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ImageNet-R is not in .*looked for imagenet-r"):
        evaluate_model(Brightness(4), data, options)
    write_classes(tmp_path / "imagenet-r", count=1)
    (tmp_path / "imagenet-r" / WNIDS[1] / "0.JPEG").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"0\.JPEG"):
        evaluate_model(Brightness(4), data, options)


def test_a_network_of_all_1000_classes_is_compared_on_the_200(tmp_path: Path) -> None:
    from entprop_fast.lab.data.natural_sets import open_natural

    names = [f"n{i:08d}" for i in range(1000)]
    write_classes(tmp_path / "imagenet-a", wnids=(names[6], names[11]), count=1)
    found = open_natural("imagenet-a", tmp_path, names, SIDE, 4)
    assert found.classes is not None and len(found.classes) == 200
    assert [label.tolist() for _, label in found.batches()] == [[6, 11]]
    write_classes(tmp_path / "imagenet-a", wnids=(names[7],), count=1)
    with pytest.raises(ValueError, match="n00000007 is no class of ImageNet-A"):
        open_natural("imagenet-a", tmp_path, names, SIDE, 4)


def test_pickles_would_have_run(tmp_path: Path) -> None:
    """The hostile file is one: without its refusal it leaves its mark."""
    pickle.loads(pickle.dumps(Runs(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_torch_is_not_asked_for_more_than_the_batch(tmp_path: Path) -> None:
    data = tiny_cifar(count=12)
    write_cifar_c(tmp_path, data)
    sizes: list[int] = []

    class Watched(Brightness):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    options = EvaluationOptions(official_dir=tmp_path)
    evaluate_model(Watched(4), data, options, batch_size=5)
    assert set(sizes) == {5, 2} and len(sizes) == 3 * 76
