"""Check sets of image files: ImageNet-C and its order, the natural sets, the whole report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from entprop_fast.lab.cli import evaluate
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data import FileList, UnreadableImage
from entprop_fast.lab.data.class_folders import in_order
from entprop_fast.lab.data.natural_sets import open_natural
from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.corruption_error import corruption_errors
from entprop_fast.lab.evaluation.intervals import hscore_by_image
from entprop_fast.lab.training.deploy import NetworkSpec, save_deployable
from tests.lab.evaluation.support import (
    SIDE,
    WNIDS,
    Brightness,
    black,
    tiny_imagenet,
    write_classes,
)


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
    (root / "fog" / "3" / "notes.txt").touch()
    with pytest.warns(RuntimeWarning, match=r"imagenet-c: left out: .*notes\.txt"):
        evaluate_model(Brightness(4), data, options)
    (root / "fog" / "3" / "notes.txt").unlink()
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


def test_natural_sets_count_or_name_what_they_hold(tmp_path: Path) -> None:
    """As where the data set is of folders: an image further down counts, no file is silent."""
    root = tmp_path / "imagenet-r"
    write_classes(root, count=2)
    (root / WNIDS[0] / "more").mkdir()
    (root / WNIDS[0] / "1.JPEG").rename(root / WNIDS[0] / "more" / "1.JPEG")
    (root / "README.txt").touch()
    (root / WNIDS[1] / "Thumbs.db").touch()
    found = open_natural("imagenet-r", tmp_path, WNIDS, SIDE, 8)
    assert found.images == 8
    assert [labels.tolist() for _, labels in found.batches([0])] == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert "imagenet-r/README.txt" in found.note and f"{WNIDS[1]}/Thumbs.db" in found.note
    options = EvaluationOptions(corruptions="none", also=("imagenet-r",), official_dir=tmp_path)
    evaluation = evaluate_model(Brightness(4), tiny_imagenet(tmp_path), options)
    assert "Thumbs.db" in evaluation.markdown()


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
    names = [f"n{i:08d}" for i in range(1000)]
    write_classes(tmp_path / "imagenet-a", wnids=(names[6], names[11]), count=1)
    found = open_natural("imagenet-a", tmp_path, names, SIDE, 4)
    assert found.classes is not None and len(found.classes) == 200
    assert [label.tolist() for _, label in found.batches([0])] == [[6, 11]]
    write_classes(tmp_path / "imagenet-a", wnids=(names[7],), count=1)
    with pytest.raises(ValueError, match="n00000007 is no class of ImageNet-A"):
        open_natural("imagenet-a", tmp_path, names, SIDE, 4)


def test_an_interval_of_the_hscore_where_folders_have_the_clean_images_names(
    tmp_path: Path,
) -> None:
    data, root = tiny_imagenet(tmp_path), tmp_path / "imagenet-c"
    # Of class i, image i % 3 is wrong when clean and image (i + 1) % 3 under fog.
    for number, wnid in enumerate(WNIDS):
        black(tmp_path / "val" / wnid / f"{number % 3}.JPEG")
    for kind in COMMON_KINDS:
        for severity in SEVERITIES:
            write_classes(root / kind / str(severity))
            if kind == "fog":
                for number, wnid in enumerate(WNIDS):
                    black(root / kind / str(severity) / wnid / f"{(number + 1) % 3}.JPEG")
    rows = [(number, i) for number in range(4) for i in range(3)]
    # Black is right for the first class.
    clean = torch.tensor([float(n == 0 or i != n % 3) for n, i in rows]).double()
    shares = torch.tensor([1 - (n > 0 and i == (n + 1) % 3) / 15 for n, i in rows]).double()
    options = EvaluationOptions(official_dir=tmp_path)

    order = [5, 0, 11, 2, 7, 1, 10, 3, 9, 4, 8, 6]  # as a flat val/ may have it
    shuffled = replace(data, test=data.test.kept(order))
    for given, rows_of in ((data, list(range(12))), (shuffled, order)):
        found = evaluate_model(Brightness(4), given, options, batch_size=5, workers=0)
        assert (found.sa, found.ra) == pytest.approx((75, 100 * (1 - 3 / 12 / 15)))
        low, high = hscore_by_image(clean[rows_of], shares[rows_of])
        assert found.hscore_interval == pytest.approx((100 * low, 100 * high))

    place = root / "snow" / "4" / WNIDS[1]
    (place / "2.JPEG").rename(place / "renamed.JPEG")
    found = evaluate_model(Brightness(4), shuffled, options)
    assert found.hscore_interval is None and found.ra == pytest.approx(100 * (1 - 3 / 12 / 15))


def test_a_name_that_a_class_has_twice_tells_nothing(tmp_path: Path) -> None:
    files = FileList(tmp_path, ["a/0.png", "b/0.png", "a/1.png"], [0, 0, 0])
    assert in_order(files, files.names()) is None
    named = FileList(tmp_path, ["b/0.jpg", "b/1.JPEG", "a/0.png"], [1, 1, 0])
    ordered = in_order(named, [(0, "0"), (1, "1"), (1, "0")])
    assert ordered is not None
    assert [ordered.path(i).name for i in range(3)] == ["0.png", "1.JPEG", "0.jpg"]
    assert ordered.labels.tolist() == [0, 1, 1]
    assert in_order(named, [(0, "0"), (1, "1"), (0, "0")]) is None


def test_the_full_report_in_one_command(tmp_path: Path) -> None:
    """Official corruptions, natural sets and an attack together, in the documented folder."""
    data = tmp_path / "data"
    corrupted = [
        f"imagenet-c/{kind}/{severity}" for kind in COMMON_KINDS for severity in SEVERITIES
    ]
    natural = ["imagenet-a", "imagenet-r", "stylized-imagenet/val"]
    for name in ("train", "val", *natural, *corrupted):
        write_classes(data / name, count=1)
    spec = NetworkSpec("wrn10_0.5", len(WNIDS), 3, "imagenet", "imagenet", 0, image_size=SIDE)
    network, out = tmp_path / "model.safetensors", tmp_path / "report"
    save_deployable(network, spec.build(), spec)
    flags = "--device cpu --also imagenet-a imagenet-r stylized --pgd 2".split()
    command = [str(network), "--data-dir", str(data), "--out", str(out), *flags]
    assert evaluate.main(command) == 0
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
