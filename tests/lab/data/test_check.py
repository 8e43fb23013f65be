"""Check ``python -m entprop_fast.data check``: all in a folder is read, and said in numbers."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entprop_fast.lab.cli.data import main
from entprop_fast.lab.data.cifar import FORMS
from entprop_fast.lab.data.emoji.emoji_packages import STYLES
from entprop_fast.lab.data.emoji_set import TERMS
from entprop_fast.lab.data.idx_files import read_idx
from entprop_fast.lab.data.official_files import SOURCES, OfficialFile
from entprop_fast.lab.data.read_image import describe_image
from tests.tiny_data import layouts
from tests.tiny_data.archives import cifar_files, make_official, write_folder
from tests.tiny_data.idx import tiny_fashion
from tests.tiny_data.idx import write as write_idx

Capture = pytest.CaptureFixture[str]


def reported(folder: Path, code: int, capsys: Capture, *more: str) -> str:
    assert main(["check", str(folder), *more]) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == (code != 0)
    return out


def reported_of(name: str, code: int, capsys: Capture, *more: str) -> str:
    assert main(["check", name, *more]) == code
    return capsys.readouterr().out


def small_is_official(patch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        patch.setitem(SOURCES, name, replace(SOURCES[name], counts=(12, 6, 3), files=()))


def test_all_sets_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name, write in layouts.LAYOUTS.items():
        write(tmp_path)
        small_is_official(monkeypatch, name)
    for name, (pickled, binary) in FORMS.items():
        write_folder(tmp_path / pickled.folder, cifar_files(name, pickled))
        write_folder(tmp_path / binary.folder, cifar_files(name, binary))
        make_official(monkeypatch, name)
    out = reported(tmp_path, 0, capsys)
    titles = [line.partition(",")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert titles == ["cifar10", "cifar100", "cub", "pets", "cars", "imagenet"]
    assert "500 images, 100 classes, 5 of each" in out
    assert out.count("12 images, 3 classes, 4 of each") == 4
    assert "width     24 to 54 pixels" in out
    assert "modes     RGB 9, L 5, CMYK 4" in out  # by layouts.MODES over both splits
    only = reported(tmp_path, 0, capsys, "--dataset", "cars")
    assert only in out and "cub" not in only


def test_archives_are_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    layouts.cub(tmp_path)
    archive = tmp_path / "CUB_200_2011.tgz"
    archive.write_bytes(b"as published")
    published = OfficialFile(archive.name, 12, hashlib.md5(b"as published").hexdigest())
    cub = replace(SOURCES["cub"], counts=(12, 6, 3), files=(published,))
    monkeypatch.setitem(SOURCES, "cub", cub)
    assert "CUB_200_2011.tgz  as published" in reported(tmp_path, 0, capsys)
    archive.write_bytes(b"As published")
    assert f"{archive} is not the published" in reported(tmp_path, 1, capsys)


def test_what_else_is_said(tmp_path: Path, capsys: Capture) -> None:
    """FOUND C16, issue 16.5: other counts, a plain folder, a damaged list, files left out."""
    plain = layouts.folder(tmp_path / "plain")
    assert reported(plain, 0, capsys).startswith(f"folder:{plain}\n")
    layouts.save(layouts.listed(tmp_path / "listed") / "pictures" / "extra.jpg", 70)
    out = reported(tmp_path / "listed", 0, capsys)
    assert "images in no list: 1 (pictures/extra.jpg)" in out
    out = reported(layouts.imagenet(tmp_path / "imagenet"), 1, capsys)
    assert "the official set has 1,281,167 training and 50,000 test images of 1,000" in out
    (layouts.cub(tmp_path) / "classes.txt").unlink()
    assert "lacks classes.txt" in reported(tmp_path, 1, capsys)
    assert main(["check", "digits"]) == 0  # embedded, without a folder
    out = capsys.readouterr().out
    assert "1,297 images, 10 classes" in out and "8x8, grey" in out


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ("check {empty}", "{empty} holds no data set"),
        ("check {empty}/none", "{empty}/none"),
        ("check {empty} --dataset cup", "nearest: cub"),
        ("chekc {empty}", "nearest: check"),
        ("check", "no data set: python -m"),
        ("", "no command: python -m"),
        ("check digitz --data-dir {empty}", "dataset 'digitz'"),
        ("check folder:x --data-dir {empty}/none", "{empty}/none"),
        ("check folder:x --dataset cub", "is a second"),
    ],
)
def test_refused(args: str, named: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(args.format(empty=tmp_path).split()) == 2
    assert named.format(empty=tmp_path) in capsys.readouterr().err


def test_every_spelling_of_a_data_set(tmp_path: Path, capsys: Capture) -> None:
    """FOUND C16: as train --dataset takes it, with --data-dir, or the folder."""
    path = layouts.folder(tmp_path / "birds")
    spellings = (
        [f"folder:{path}"],
        ["folder:birds", "--data-dir", str(tmp_path)],
        ["--dataset", "folder:birds", "--data-dir", str(tmp_path)],
        [str(path)],
        ["--data-dir", str(path)],
        [str(path), "--dataset", "folder"],
    )
    for spelling in spellings:
        assert main(["check", *spelling]) == 0, spelling
        assert "12 images, 3 classes, 4 of each" in capsys.readouterr().out
    assert main(["check", str(tmp_path), "--dataset", "cub"]) == 1  # nothing is there
    assert "fetch CUB_200_2011.tgz" in capsys.readouterr().out
    layouts.cub(tmp_path)
    for spelling in (["cub", "--data-dir", str(tmp_path)], [str(tmp_path), "--dataset", "cub"]):
        assert main(["check", *spelling]) == 1, spelling
        out, err = capsys.readouterr()
        assert "the official set has 5,994" in out and err == "failed: 1 problem; see above\n"


def test_cifar_that_repeats_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """FOUND W6: published numbers have the same fault, so it is no problem of this copy."""
    form = FORMS["cifar10"][1]
    files = cifar_files("cifar10", form)
    size = form.label_bytes + 3 * 32 * 32
    train = b"".join(files[name] for name in form.train)
    records = {train[at]: train[at : at + size] for at in range(0, len(train), size)}  # by label
    files[form.test[0]] = b"".join(records[label] for label in range(10))
    write_folder(tmp_path / form.folder, files)
    make_official(monkeypatch, "cifar10")
    out = reported(tmp_path, 0, capsys)
    assert "test images that are training images: 10 (test image 0 = training image " in out
    assert "published set as well" in out and "two classes" not in out


def test_arrays_that_repeat_images_over_their_sets(tmp_path: Path, capsys: Capture) -> None:
    """Nobody publishes these: what is trained and tested on is a problem, in a shift as well."""
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4), np.uint8)
    labels, test = np.arange(12) % 2, np.arange(12) >= 8
    shift = np.where(np.arange(12) >= 10, "dark", "")

    def written(code: int) -> str:
        np.savez(tmp_path / "set.npz", images=images, labels=labels, test=test, shift=shift)
        return reported_of(f"npz:{tmp_path / 'set.npz'}", code, capsys)

    (tmp_path / "LICENSE.txt").touch()
    out = written(0)
    assert "from        see LICENSE.txt beside it\n" in out and "shift dark  2 images\n" in out
    images[9] = images[11]  # test and shift
    assert "note        shift dark images that other tests have: 1 (shift dark" in written(0)
    images[8] = images[10] = images[0]
    out = written(1)
    assert "problem     test images that are training images: 1 (test image 0 = training" in out
    assert "problem     shift dark images that are training images: 1 (shift dark image 0" in out
    images[1] = images[0]
    assert "problem     images in two classes: 1 (training image 1 = training" in written(1)


def test_idx_files_and_where_named_sets_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    files = tiny_fashion(tmp_path, monkeypatch)
    out = reported_of("fashion_mnist", 0, capsys, "--data-dir", str(tmp_path))
    assert "zalandoresearch/fashion-mnist, MIT" in out and "grey" in out
    images, labels = read_idx(files.train_images, 3), read_idx(files.train_labels, 1)
    write_idx(tmp_path, (images, labels, images, labels))
    out = reported_of(f"idx:{tmp_path}", 1, capsys)
    assert f"test images that are training images: {len(labels)} (" in out
    assert reported_of("emoji", 1, capsys, "--data-dir", str(tmp_path)).count("CC-BY-SA-4.0") == 1
    assert {one.licence for one in STYLES} == set(TERMS.split(", "))


def test_uneven_classes(tmp_path: Path, capsys: Capture) -> None:
    """Issue 16.5: what always giving one answer would score."""
    path = layouts.folder(tmp_path)
    for number in range(300, 320):
        layouts.save(path / "test" / "class 2" / f"{number}.jpg", number)
    out = reported(path, 0, capsys)
    assert "test images are uneven: 2 of class 0, 22 of class 2; who always answers it" in out
    assert "84.6 %" in out  # 22 of 26


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, capsys: Capture) -> None:
    """Issue 16.5: one pass; a run would stop at the first."""
    path = layouts.folder(tmp_path)
    train, test = path / "train" / "class 1", path / "test" / "class 1"
    (train / "empty.jpg").touch()
    (test / "page.jpg").write_bytes(b"<html></html>")
    (train / "pointer.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (test / "copy.jpg").write_bytes((train / "1.jpg").read_bytes())
    (test / "link.jpg").symlink_to(train / "4.jpg")
    problems = [line for line in reported(path, 1, capsys).splitlines() if "problem" in line]
    for named in (
        "training images that cannot be read: 1, it has zero bytes (train/class 1/empty.jpg)",
        "test images that cannot be read: 1, it is no image that Pillow knows, but an HTML page",
        "a Git LFS pointer",
        "copy.jpg = ",
        "that are one file",
    ):
        assert sum(named in line for line in problems) == 1


def test_an_animation_that_is_cut_short_is_named(tmp_path: Path) -> None:
    """FOUND W7, a neighbour: Pillow opens it, and fails at a later frame in a way of its own."""
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 90, 180, 250)]
    whole = tmp_path / "whole.gif"
    frames[0].save(whole, save_all=True, append_images=frames[1:], duration=40)
    path = tmp_path / "cut.gif"
    for length in range(1, whole.stat().st_size):
        path.write_bytes(whole.read_bytes()[:length])
        with contextlib.suppress(OSError):
            describe_image(path)
