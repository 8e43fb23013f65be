"""`entprop init`: a recipe that explains itself, and trains as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entprop_fast.lab.cli import dispatch, init
from entprop_fast.lab.training.config import SETTINGS
from entprop_fast.lab.training.recipe import resolve
from tests.lab.conftest import Call, summary

pytestmark = pytest.mark.usefixtures("without_pictures")

QUICK = "--arch wrn10_0.5 --epochs 1 --corruptions none --workers 0 --threads 1 --device cpu"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 17 training images of 20 pixels, so that a batch of one is left."""
    folder = tmp_path_factory.mktemp("images") / "my photos"
    generator = np.random.default_rng(0)
    for split, each in (("train", 9), ("test", 4)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for number in range(each - (name == "dog")):
                pixels = generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def test_a_folder_s_recipe_trains_as_it_is(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert dispatch.main(["init", str(photos)], ("entprop",)) == 0
    said = capsys.readouterr().out
    assert "17 images, 2 classes" in said and "image_size 20: " in said
    assert said.endswith("wrote recipe.toml; train with: entprop train --recipe recipe.toml\n")

    text = " ".join((tmp_path / "recipe.toml").read_text().replace("\n#", "").split())
    assert all(f"{one.help}" in text for one in SETTINGS.values())
    config = resolve(tmp_path / "recipe.toml")
    assert (config.dataset, config.batch_size) == (f"folder:{photos}", 16)

    assert dispatch.main(["train", "--recipe", "recipe.toml", *QUICK.split()], ("entprop",)) == 0
    assert summary(tmp_path / "runs" / "my-photos-entprop")["dataset"] == f"folder:{photos}"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "PHOTOS is missing"),
        ("nowhere", "'nowhere'"),
        ("empty", "neither train/"),
        ("PHOTOS --out there.toml", "there.toml"),
        ("PHOTOS --out link.toml", "link.toml"),
        ("PHOTOS --out recipe.txt", "recipe.txt"),
        ("PHOTOS --out no/where.toml", "no/where.toml"),
        ("PHOTOS --weights none.pt", "none.pt"),
    ],
)
def test_refusals(
    words: str,
    named: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.toml").write_text("mine")
    (tmp_path / "link.toml").symlink_to("elsewhere")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    given = [str(photos) if word == "PHOTOS" else word for word in words.split()]
    assert named in call(init, given, 2)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.toml").read_text() == "mine"
