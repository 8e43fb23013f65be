"""The setting `augment`: who does what of a chain, what of its text is the method's, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from entprop_fast.augment import AugMix, Chain, CropFlip
from entprop_fast.lab.cli import train
from entprop_fast.lab.training.augment_setting import (
    AugmentSetting,
    appended,
    read_augment,
    without_options,
    without_reading,
)
from entprop_fast.lab.training.recipe import resolve, to_toml
from tests.lab.conftest import Call

CROP = "resized-crop-flip"


@pytest.mark.parametrize(
    ("text", "reading", "parts"),
    [
        ("none", "none", ()),
        ("crop-flip", "none", (CropFlip(),)),
        (CROP, CROP, ()),
        (f"{CROP}+augmix", CROP, (AugMix(),)),
        (
            "crop-flip:padding=2 + augmix:severity=1",
            "none",
            (CropFlip(padding=2), AugMix(severity=1)),
        ),
        ("augmix+augmix", "none", (AugMix(), AugMix())),
    ],
)
def test_readers_crop_and_the_device_does_the_rest(
    text: str, reading: str, parts: tuple[Any, ...]
) -> None:
    assert read_augment(text) == AugmentSetting(reading, Chain(parts=parts))


def test_chains_are_appended_and_cut() -> None:
    assert appended("none", "augmix") == "augmix" and appended("augmix", "none") == "augmix"
    assert appended("crop-flip", "augmix+prime") == "crop-flip+augmix+prime"
    assert appended("none", "none") == without_reading(CROP) == "none"
    assert without_reading(f"{CROP}+augmix") == "augmix" and without_reading("prime") == "prime"
    taken = without_options("crop-flip + augmix:jsd=12,severity=1")
    assert taken == ("crop-flip+augmix:severity=1", {"jsd": "12"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("augmx", "'augmx'; nearest: augmix"),
        ("none+augmix", "none stands alone"),
        (f"augmix+{CROP}", f"{CROP} comes first"),
        (f"{CROP}:size=3", f"{CROP} has no options"),
        ("crop-flip+crop-flip", "crop-flip is named twice"),
        ("augmix:sevrity=1", "'sevrity'; nearest: severity"),
        ("augmix:severity=0", "severity=0"),
        ("augmix:", "option=value"),
        ("augmix:jsd=1+prime:jsd=2", "gives jsd twice"),
        ("augmix+", "unknown augmentation ''"),
    ],
)
def test_a_wrong_chain_is_refused_before_data_are_read(
    text: str, named: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=named):
        resolve("digits", augment=text)
    said = call(train, ["--augment", text, "--dataset", "folder:absent"], 2)
    assert "--augment" in said and "absent" not in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "emoji", "idx:absent", "npz:absent"])
def test_crops_of_files_are_refused_of_tensors_before_these_are_read(
    name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for chain in (CROP, f"{CROP}+augmix"):
        said = call(train, ["--dataset", name, "--augment", chain, "--data-dir", "absent"], 2)
        assert "--augment" in said and repr(name) in said and "whole tensors" in said
    assert resolve("folder", dataset="folder:absent", augment=CROP).augment == CROP


def test_options_of_the_method_leave_the_text() -> None:
    config = resolve("digits", method="vanilla", augment="crop-flip+augmix:jsd=12")
    assert (config.augment, config.options["jsd"]) == ("crop-flip+augmix", 12.0)
    assert config == resolve("digits", method="vanilla", augment="crop-flip+augmix", jsd=12.0)
    assert config == resolve("digits", method="vanilla", augment="crop-flip+augmix:jsd=12", jsd=12)


def test_a_consistency_drops_the_recipes_mixing_alone(tmp_path: Path) -> None:
    path = tmp_path / "mixing.toml"
    text = to_toml(resolve("digits", mixup=0.3, augment="crop-flip"))
    path.write_text(text)
    config = resolve(path, augment="crop-flip+augmix:jsd=12")
    assert (config.options["mixup"], config.options["jsd"]) == (0.0, 12.0)
    assert resolve(path).options["mixup"] == 0.3
    assert resolve(path, augment="augmix:jsd=0").options["mixup"] == 0.3
    path.write_text(to_toml(config))
    assert resolve(path) == config
    text = text.replace("mixup = 0.3", "mixup = 0.0").replace("jsd = 0.0\n", "")
    path.write_text(text.replace('"crop-flip"', '"augmix:jsd=6"'))
    assert resolve(path).options["jsd"] == 6 and resolve(path, jsd=2).options["jsd"] == 2
    assert resolve(path, augment="augmix").options["jsd"] == 0  # the text that held it is replaced


REFUSED: dict[str, dict[str, Any]] = {
    "sets jsd, and so does jsd=6": {"augment": "augmix:jsd=12", "jsd": 6},
    "jsd=12 compares augmented views": {"augment": "crop-flip", "jsd": 12},
    "'mixup' has no option 'jsd'": {"augment": "augmix:jsd=12", "method": "mixup"},
    "jsd='many'": {"augment": "augmix:jsd=many"},
    "jsd=-1": {"augment": "augmix:jsd=-1"},
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_does_not_go_together(named: str) -> None:
    with pytest.raises(ValueError, match=named):
        resolve("digits", **REFUSED[named])


def test_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="augment=3"):
        resolve("digits", augment=3)
