"""Check the command that writes a corrupted set: its layout; it passes for no official one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entprop_fast.lab.cli import corrupt
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import GENERATOR, common_corruption, to_bytes
from entprop_fast.lab.corruptions.suites import generated_source
from entprop_fast.lab.data import load
from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from tests.lab.evaluation.support import (
    WNIDS,
    Brightness,
    arrays,
    by_another_generator,
    folders,
    tiny_cifar,
    tiny_imagenet,
    write_classes,
)


def test_digits_in_cifar_cs_layout(tmp_path: Path) -> None:
    out = tmp_path / "digits-c"
    arguments = ["--dataset", "digits", "--out", str(out), "--kinds", "snow", "contrast"]
    assert corrupt.main([*arguments, "--seed", "4", "--device", "cpu"]) == 0
    assert {one.name for one in out.iterdir()} == {
        *("snow.npy", "contrast.npy", "labels.npy", "entprop_fast.json")
    }
    data = load("digits", seed=4)
    labels = np.load(out / "labels.npy")
    assert labels.dtype == np.uint8 and (labels == np.tile(data.test_labels.numpy(), 5)).all()
    snow = np.load(out / "snow.npy")
    assert snow.dtype == np.uint8 and snow.shape == (2500, 8, 8, 1)
    for severity in SEVERITIES:
        made = to_bytes(common_corruption(data.test_images, "snow", severity, seed=4))
        rows = snow[500 * (severity - 1) : 500 * severity]
        assert (rows == made.permute(0, 2, 3, 1).numpy()).all()
    marker = json.loads((out / "entprop_fast.json").read_text())
    assert marker["scale"] == "cifar-c" and marker["complete"] and "procedural" in marker["source"]


@pytest.mark.parametrize(("generator", "named"), [(1, ""), (GENERATOR + 1, ", generator 3")])
def test_a_written_set_is_reported_as_generated_and_by_which_generator(
    tmp_path: Path, generator: int, named: str
) -> None:
    """FOUND W14: whatever it is called, and whoever reads it."""
    data, model, told = tiny_cifar(count=4), Brightness(4), list[str]()
    root = tmp_path / "CIFAR-10-C"
    arrays(data, root, scale="imagenet-c", seed=2, batch_size=3)
    options = EvaluationOptions(official_dir=tmp_path)
    now = evaluate_model(model, data, options, say=told.append)
    again = EvaluationOptions(corruptions="generated", scale="imagenet-c", seed=2)
    assert now == evaluate_model(model, data, again)
    assert now.corruption_source == generated_source("imagenet-c", 2)
    assert f", generator {GENERATOR})" in now.corruption_source
    assert not any("--overwrite" in line for line in told)
    by_another_generator(root, generator)
    found = evaluate_model(model, data, options, say=told.append).corruption_source
    frost = "frost on procedural textures"
    assert found == f"generated (ImageNet-C's strengths, seed 2, {frost}{named})"
    assert any("--overwrite" in line and str(root) in line for line in told)


def test_image_files_in_imagenet_cs_layout(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_classes(tmp_path / "set" / split, count=2, side=40)
    out = tmp_path / "set-c"
    arguments = ["--dataset", f"folder:{tmp_path}/set", "--out", str(out), "--image-size", "32"]
    kinds = ["--kinds", "brightness", "--extra"]
    assert corrupt.main([*arguments, *kinds, "--scale", "imagenet-c", "--device", "cpu"]) == 0
    folders = {one.name for one in out.iterdir() if one.is_dir()}
    assert folders == {"brightness", "speckle_noise", "gaussian_blur", "spatter", "saturate"}
    levels = []
    for severity in SEVERITIES:
        place = out / "brightness" / str(severity)
        assert sorted(one.name for one in place.iterdir()) == list(WNIDS)
        with Image.open(place / WNIDS[0] / "1.JPEG") as image:
            assert image.format == "JPEG" and image.size == (32, 32)
            levels.append(np.asarray(image).mean() / 255)
    clean = int(0.125 * 255) / 255
    np.testing.assert_allclose(levels, clean + np.array((0.1, 0.2, 0.3, 0.4, 0.5)), atol=0.01)


def test_small_images_of_a_folder_keep_their_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND N1: a run on them sees them so, not at 224 pixels."""
    for split in ("train", "val"):
        write_classes(tmp_path / "set" / split, count=1, side=40)
    flags = ["--dataset", "folder:set", "--data-dir", str(tmp_path), "--out", str(tmp_path / "c")]
    assert corrupt.main([*flags, "--kinds", "brightness", "--device", "cpu"]) == 0
    assert "test images of 40 pixels" in capsys.readouterr().out
    assert corrupt.main([*flags, "--image-size", "0", "--overwrite"]) == 2


def test_written_folders_have_no_mce(tmp_path: Path) -> None:
    data = tiny_imagenet(tmp_path)
    folders(data, tmp_path / "imagenet-c")
    found = evaluate_model(Brightness(4), data, EvaluationOptions(official_dir=tmp_path))
    assert found.corruption_source.startswith("generated (ImageNet-C's strengths, seed 0")
    assert found.ra is not None and found.mce is None and not found.ce


def test_evaluate_finds_a_written_set_that_nobody_publishes(tmp_path: Path) -> None:
    data = replace(tiny_imagenet(tmp_path), name="folder:birds", official_corruptions=None)
    root, options = tmp_path / "birds-c", EvaluationOptions(official_dir=tmp_path)
    folders(data, root, seed=4)
    found = evaluate_model(Brightness(4), data, options)
    assert found.corruption_source.startswith("generated (ImageNet-C's strengths, seed 4")
    assert found.corruption_source.endswith("), JPEG of quality 85")
    # Not where images are to be made here, nor in place of an official set.
    for asked in (replace(options, corruptions="generated"), replace(options, scale="cifar-c")):
        made = evaluate_model(Brightness(4), data, asked)
        assert made.corruption_source.startswith("generated (CIFAR-C's strengths, seed 0")
    with pytest.raises(ValueError, match="there is no such set of folder:birds"):
        evaluate_model(Brightness(4), data, replace(options, corruptions="official"))
    with pytest.raises(ValueError, match=r"birds-c was made from 'folder:birds', not from"):
        evaluate_model(Brightness(4), replace(data, name="folder:other/birds"), options)


def test_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in its way; tests/lab/cli holds the other refusals."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "official").mkdir()
    (tmp_path / "official" / "fog.npy").touch()
    command = "--dataset digits --kinds contrast --device cpu --out".split()
    assert corrupt.main([*command, "written"]) == 0
    for flags, named in (
        ("official --overwrite", "files of another program"),
        ("written", "already holds a set: --overwrite"),
        ("new --extra", "saturate wants 3"),
    ):
        capsys.readouterr()
        assert corrupt.main([*command, *flags.split()]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1
    assert corrupt.main([*command, "written", "--overwrite"]) == 0


@pytest.mark.parametrize("name", ["../../../../x", "n/a", "..", ""])
def test_a_class_that_no_folder_can_be_called_is_refused(name: str, tmp_path: Path) -> None:
    """It would lie outside of the set, or where evaluate looks for no class."""
    data = tiny_imagenet(tmp_path / "clean")
    data = replace(data, class_names=(name, *data.class_names[1:]))
    out = tmp_path / "a" / "b"
    with pytest.raises(ValueError, match=f"class '{name}' cannot be the name of a folder"):
        folders(data, out, kinds=["contrast"])
    assert not out.exists()


def test_arrays_are_written_without_a_map_of_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk a write to one is a signal that ends the process, no error."""
    with monkeypatch.context() as patched:
        patched.setattr(np, "memmap", None)
        arrays(tiny_cifar(count=10), tmp_path, kinds=["contrast"], batch_size=4)
    assert np.load(tmp_path / "contrast.npy", mmap_mode="r").shape == (50, 8, 8, 3)
