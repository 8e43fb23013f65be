"""Which corrupted file is of which clean image: what the Hscore's interval needs to know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.data import FileList
from entprop_fast.lab.data.class_folders import in_order
from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.intervals import hscore_by_image
from tests.lab.evaluation.support import WNIDS, Brightness, black, tiny_imagenet, write_classes


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
        found = evaluate_model(Brightness(4), given, options, batch_size=5)
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
