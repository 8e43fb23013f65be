"""A study of a data set that is not embedded."""

from __future__ import annotations

from pathlib import Path

import pytest

from entprop_fast.lab.data.cifar import FORMS
from entprop_fast.lab.experiments.studies import size
from entprop_fast.lab.experiments.studies.form import Options
from tests.tiny_data.archives import cifar_files, make_official, write_folder


def test_the_folder_reaches_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = FORMS["cifar10"][1]
    write_folder(tmp_path / form.folder, cifar_files("cifar10", form))
    make_official(monkeypatch, "cifar10")
    options = Options(
        out=tmp_path / "out", recipe="cifar10", data_dir=str(tmp_path), train_size=None
    )
    assert size.sizes_of(options, size.MULTIPLES) == [12, 25, 50]  # of 50 images
