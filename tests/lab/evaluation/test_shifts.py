"""Further sets of the same classes: each is measured by itself; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from entprop_fast.lab.cli.evaluate import main
from entprop_fast.lab.data import ImageData, ImageSet
from entprop_fast.lab.data.image_data import ShiftSet
from entprop_fast.lab.evaluation import Evaluation, EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.evaluation_tables import markdown
from entprop_fast.lab.experiments.comparison.comparison_tables import cells
from entprop_fast.lab.experiments.comparison.method_rows import method_rows
from tests.lab.evaluation.support import DATA, IMAGES, LABELS, Brightness


def carrying() -> ImageData:
    """A data set with a shift of its own, whose images are darker, and one that is the test set."""
    images, labels = DATA.test_images, DATA.test_labels
    dark = ShiftSet("dark", (images / 4).to(torch.uint8)[:10], labels[:10])
    return replace(DATA, shifts=(dark, ShiftSet("same", images, labels)))


def measured(data: ImageSet, *shift: str) -> Evaluation:
    options = EvaluationOptions(corruptions="none", shift=shift)
    return evaluate_model(Brightness(4), data, options)


def test_what_is_carried_is_measured_by_itself(tmp_path: Path) -> None:
    np.savez(tmp_path / "new.npz", images=IMAGES, labels=LABELS)
    data = carrying()
    found = measured(data, f"new={tmp_path / 'new.npz'}")
    assert list(found.shifts) == ["dark", "same", "new"]
    model = Brightness(4)
    right = (model(data.shifts[0].images / 255).argmax(1) == data.shifts[0].labels).float()
    assert found.shifts["dark"]["accuracy"] == pytest.approx(100 * float(right.mean()))
    clean = found.rows[0]
    assert found.shifts["same"] == {
        **{"accuracy": found.sa, "ece": clean.ece, "drop": 0.0, "images": 20}
    }
    for row, (name, one) in zip(found.rows[1:], found.shifts.items(), strict=True):
        assert (row.test, row.accuracy, row.ece) == (f"shift {name}", one["accuracy"], one["ece"])
        assert one["drop"] == found.sa - one["accuracy"]
    page = markdown([found.as_dict()])
    assert "## Natural shifts" in page and "| dark |" in page
    assert "Natural shifts" not in markdown([measured(DATA).as_dict()])


def bad() -> dict[str, tuple[Callable[[Path], str], str]]:
    def arrays(**more: Any) -> Callable[[Path], str]:
        def write(folder: Path) -> str:
            np.savez(folder / "a.npz", **({"images": IMAGES, "labels": LABELS} | more))
            return f"x={folder / 'a.npz'}"

        return write

    def beside_labels(labels: Any) -> Callable[[Path], str]:
        def write(folder: Path) -> str:
            np.save(folder / "labels.npy", labels)
            np.save(folder / "fog.npy", IMAGES)
            return f"x={folder}"

        return write

    def folders(*paths: str) -> Callable[[Path], str]:
        def write(folder: Path) -> str:
            for one in paths:
                (folder / one).mkdir(parents=True)
                Image.fromarray(IMAGES[0]).save(folder / one / "a.png")
            return f"x={folder}"

        return write

    names = np.array(["class0", "class1", "dog", "class3"])
    return {
        "no path": (lambda folder: "x", "NAME=PATH"),
        "no name": (lambda folder: f"={folder}", "NAME=PATH"),
        "a path for a name": (lambda folder: f"{folder}/a={folder}", "NAME=PATH"),
        "nothing": (lambda folder: f"x={folder / 'none'}", "no such file or folder"),
        "an empty folder": (lambda folder: f"x={folder}", "no image"),
        "no such file": (lambda folder: f"x={folder / 'a.npz'}", "no such file or folder"),
        "twice": (lambda folder: f"dark={folder}", "two of that name"),
        "another class": (arrays(class_names=names), "'dog' where tiny has 'class2'"),
        "fewer classes": (arrays(labels=LABELS % 2, class_names=names[:2]), "has 2 classes"),
        "more classes": (arrays(labels=LABELS + 1), "5 classes, tiny 4"),
        "other sizes": (arrays(images=IMAGES[:, :4]), r"images \[3, 4, 8\]"),
        "floats": (arrays(images=IMAGES / 2), r"\[0, 1\]"),
        "no name but blanks": (lambda folder: f" ={folder}", "NAME=PATH"),
        "a form and no path": (lambda folder: "x=npz:", "names no path"),
        "a form, and nothing there": (lambda folder: f"x=npz:{folder / 'no'}", "x=npz:.*no such"),
        "names that are one": (arrays(class_names=np.array("a")), "class_names"),
        "one label": (beside_labels(np.int64(3)), "labels"),
        "no label": (beside_labels(LABELS[:0]), "no image"),
        "a number twice": (folders("1", "01"), "two folders of one number"),
        "classes beside kinds": (folders("class1", "fog/3/class1"), "fog is none"),
        "none": (arrays(images=IMAGES[:0], labels=LABELS[:0]), "no image"),
    }


@pytest.mark.parametrize("name", bad())
def test_what_does_not_fit_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, words = bad()[name]
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        measured(carrying(), make(tmp_path))


def test_compare_has_a_column_and_paired_differences() -> None:
    def summary(sa: float, dark: float | None) -> dict[str, Any]:
        shifts = {} if dark is None else {"shifts": {"dark": {"accuracy": dark}}}
        return {"sa": sa, "ra": 50.0, "hscore": 50.0, "cost": 1.0, "seconds": 1.0, **shifts}

    runs = {
        "vanilla": {0: summary(60, 30), 1: summary(62, 32), 2: summary(61, 31)},
        "entprop": {0: summary(60, 33), 1: summary(62, 36), 2: summary(61, None)},
    }
    rows = method_rows(runs, "vanilla")
    found = rows[1].differences["shift dark"]
    assert (found.mean, found.count) == (3.5, 2)
    lines = cells(rows, "vanilla")
    assert [line["shift dark"] for line in lines] == ["31.0 ± 1.0", "34.5 ± 2.1"]
    without = {name: {0: summary(60, None)} for name in runs}
    assert "shift dark" not in cells(method_rows(without, "vanilla"), "vanilla")[0]


def test_the_command_takes_several(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).random((20, 8, 8))
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 10)
    shifts = [f"{name}=npz:{tmp_path / 'a.npz'}" for name in ("one", "two")]
    flags = ["--corruptions", "none", "--test-size", "20", "--device", "cpu"]
    assert main([str(finished), *flags, "--shift", *shifts]) == 0
    out = capsys.readouterr().out
    assert "shift one" in out and "shift two" in out and "20 clean test images" in out
    assert main([str(finished), *flags, "--shift", "one"]) == 2
    assert main([str(finished), *flags, "--shift", shifts[0], "--shift", shifts[1]]) == 2
    assert "--shift is given twice" in capsys.readouterr().err
