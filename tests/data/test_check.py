"""``python -m entprop_fast.data check``: everything in a folder is read, and said in numbers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from entprop_fast.data.__main__ import main
from entprop_fast.data.cifar import FORMS
from entprop_fast.data.official import SOURCES, OfficialFile
from tests.tiny_data import layouts
from tests.tiny_data.archives import cifar_files, make_official, write_folder

Capture = pytest.CaptureFixture[str]


def reported(folder: Path, code: int, capsys: Capture, *more: str) -> str:
    assert main(["check", str(folder), *more]) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == (code != 0)
    return out


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


def test_unreadable_files_are_all_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    small_is_official(monkeypatch, "pets")
    layouts.pets(tmp_path)
    (tmp_path / "images" / "Abyssinian_3.jpg").write_bytes(b"")
    (tmp_path / "images" / "Abyssinian_100.jpg").write_bytes(b"text")
    out = reported(tmp_path, 1, capsys)
    assert (
        "training images that cannot be read: 1, it has zero bytes (images/Abyssinian_3.jpg)" in out
    )
    assert "test images that cannot be read: 1, it is no image" in out
    assert "(images/Abyssinian_100.jpg)" in out


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


def test_other_counts_than_the_official_ones(tmp_path: Path, capsys: Capture) -> None:
    layouts.imagenet(tmp_path)
    out = reported(tmp_path, 1, capsys)
    assert "the official set has 1,281,167 training and 50,000 test images of 1,000" in out


def test_a_plain_folder_is_no_imagenet(tmp_path: Path, capsys: Capture) -> None:
    assert reported(layouts.folder(tmp_path), 0, capsys).startswith(f"folder:{tmp_path}\n")


def test_a_damaged_list_is_a_problem(tmp_path: Path, capsys: Capture) -> None:
    (layouts.cub(tmp_path) / "classes.txt").unlink()
    assert "lacks classes.txt" in reported(tmp_path, 1, capsys)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["check", "{empty}"], "holds no data set that is known here"),
        (["check", "{empty}/none"], "there is no such folder"),
        (["check", "{empty}", "--dataset", "cup"], "nearest: cub"),
        (["check", "{empty}", "--dataset", "cub"], None),
        (["chekc", "{empty}"], "nearest: check"),
        (["check"], "folder"),
    ],
)
def test_refused(args: list[str], message: str | None, tmp_path: Path, capsys: Capture) -> None:
    code = main([one.format(empty=tmp_path) for one in args])
    out, err = capsys.readouterr()
    assert code == (1 if message is None else 2)
    assert (message or "fetch CUB_200_2011.tgz") in (err if message else out)
