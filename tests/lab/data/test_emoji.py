"""The emoji set: what is a thing, which icon is whose, what the splits keep apart; no download."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import tarfile
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entprop_fast.lab.cli import data as command
from entprop_fast.lab.data import ImageData, load
from entprop_fast.lab.data.emoji import build_emoji, emoji_packages
from entprop_fast.lab.data.emoji.build_emoji import ARTIST, BOTH, Pictures, build, splits
from entprop_fast.lab.data.emoji.draw_emoji import draw, icons_of, svg_of
from entprop_fast.lab.data.emoji.emoji_concepts import (
    _LABELS,
    CLASSES,
    code_of,
    concepts_of,
    simple,
)
from entprop_fast.lab.data.emoji.npm_packages import Package, read_json, tarball

Capture = pytest.CaptureFixture[str]


def entry(code: str, label: str, subgroup: int | None, order: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"hexcode": code, "label": label, "order": order}
    return found if subgroup is None else {**found, "subgroup": subgroup}


THINGS = [
    *(entry(f"1F4{i:02X}", f"animal {i}", 34, i) for i in range(20)),
    *(entry(f"1F6{i:02X}", f"vehicle {i}", 54, 50 + i) for i in range(20)),
    entry("1F1E6", "regional indicator A", None),
    entry("1F3FB", "light skin tone", 32),
]


def test_classes_cover_unicodes_subgroups_once() -> None:
    """100 subgroups (0 to 99), of which skin tones and hair are no things."""
    assert len(CLASSES) == 13 and list(CLASSES) == sorted(CLASSES)
    assert set(range(100)) - _LABELS.keys() == {32, 33}
    assert [CLASSES[_LABELS[one]] for one in (12, 15, 48, 58, 59)] == [
        *("face", "symbol", "food", "object", "sky")
    ]


def test_things_and_what_is_drawn_alike() -> None:
    found = concepts_of(
        [
            entry("2640-FE0F", "female sign", 89),
            entry("1F468-200D-1F373", "man cook", 25),
            entry("1F9D1-200D-1F373", "cook", 25),
            entry("1F3C3-200D-2640-FE0F-200D-27A1-FE0F", "woman running facing right", 27),
            entry("1F3C3", "person running", 27),
            entry("1F468", "man", 23),
            entry("1F46A", "family", 30),
            entry("1F491", "couple with heart", 30),
            entry("1F550", "one o\u2019clock", 58),
            entry("1F55C", "one-thirty", 58),
            entry("231A", "watch", 58),
            *THINGS[-2:],
        ]
    )
    groups = {code: one.group for code, one in found.items()}
    assert groups == {
        **{"2640": "2640", "1F468-200D-1F373": "1F9D1-200D-1F373"},
        **{"1F9D1-200D-1F373": "1F9D1-200D-1F373", "1F3C3": "1F3C3"},
        **{"1F3C3-200D-2640-200D-27A1": "1F3C3", "1F468": "1F9D1"},
        **{"1F46A": "family", "1F491": "family"},
        **{"1F550": "clock", "1F55C": "clock", "231A": "231A"},
    }
    assert simple("Piñata & co.: “A”") == "pinataandcoa" and code_of("2b50-fe0f") == "2B50"


def test_icons_by_code_by_name_and_by_alias() -> None:
    concepts = concepts_of(THINGS)
    icons = {
        "icons": {"animal-0": {}, "anew": {}, "vehicle1": {}, "else": {}},
        "aliases": {"Vehicle 2": {"parent": "else"}},
    }
    names = {simple(one.name): code for code, one in concepts.items()}
    found = icons_of(icons, {"1f400": "anew"}, concepts, names)
    assert found == {"1F400": "anew", "1F601": "vehicle1", "1F602": "Vehicle 2"}


def test_an_icon_becomes_a_square_document() -> None:
    icons: dict[str, Any] = {
        **{"width": 10, "height": 20, "icons": {"a": {"body": "<path/>"}}},
        "aliases": {
            "turned": {"parent": "a", "hFlip": True, "rotate": 1},
            "back": {"parent": "turned", "hFlip": True, "rotate": 3},
            "round": {"parent": "round"},
        },
    }
    assert 'viewBox="-5 0 20 20"' in svg_of(icons, "a") and "<g" not in svg_of(icons, "a")
    assert "translate(5 10) rotate(90) scale(-1 1) translate(-5 -10)" in svg_of(icons, "turned")
    assert "<g" not in svg_of(icons, "back")  # twice mirrored, once around
    for name in ("none", "round"):
        with pytest.raises(ValueError, match=name):
            svg_of(icons, name)
    for body in ('<image href="/etc/passwd"/>', "<use xlink:href='http://x'/>", "<text>a</text>"):
        icons["icons"]["a"]["body"] = body
        with pytest.raises(ValueError, match="'a'"):
            svg_of(icons, "a")


def test_a_document_is_drawn() -> None:
    pytest.importorskip("resvg_py")
    icons = {"icons": {"a": {"width": 2, "height": 4, "body": '<path d="M0 0h2v4h-2z"/>'}}}
    pixels = draw(svg_of(icons, "a"), 8)
    assert (pixels[:, 2:6] == 0).all() and (pixels[:, [0, 1, 6, 7]] == 255).all()


def test_no_thing_is_in_two_splits() -> None:
    generator = np.random.default_rng(1)
    labels = np.repeat(np.arange(13), 120)
    groups = np.array([f"{label}-{row % 30}" for row, label in enumerate(labels)])
    styles = generator.choice(["a", "b", emoji_packages.UNSEEN_ARTIST], len(labels))
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    found = Pictures(images, labels, groups, groups, styles)
    test, shift = splits(found)
    trained = ~test & (shift == "")
    assert not {*groups[test]} & {*groups[trained]}
    assert {*shift[styles == emoji_packages.UNSEEN_ARTIST]} == {ARTIST, BOTH}
    assert not {*styles[test | trained]} & {emoji_packages.UNSEEN_ARTIST}
    assert {*groups[shift == BOTH]} <= {*groups[test]}
    assert {*groups[shift == ARTIST]} <= {*groups[~np.isin(groups, groups[test])]}
    for label in range(13):
        share = test[labels == label].sum() / (trained | test)[labels == label].sum()
        assert 0.2 < share < 0.4
    assert np.array_equal(test, splits(found)[0])


# A tiny registry: two artists and the concepts.
def packed(files: dict[str, Any], *, link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
        if link:
            member = tarfile.TarInfo("package/link")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return buffer.getvalue()


def locked(name: str, content: bytes) -> Package:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Package(name, "1.0.0", digest, "MIT", "somebody", "https://example.org")


def icons(style: str, count: int = 20) -> dict[str, Any]:
    bodies = {simple(one["label"]): {"body": f"{style} {one['label']}"} for one in THINGS[:40]}
    bodies["vehicle19"] = {"body": f"{style} vehicle 18"}  # drawn as another thing is
    return {"icons.json": {"icons": bodies}, "chars.json": {}}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the registry answers, by address; drawing is a hash of the body."""
    sets = {f"@icons/{name}": packed(icons(name)) for name in ("a", "b", "openmoji")}
    names = {"en/data.json": THINGS, "meta/unicode-names.json": {"1F400": "RAT"}}
    concepts = packed(names)
    styles = tuple(locked(name, content) for name, content in sets.items())
    monkeypatch.setattr(emoji_packages, "STYLES", styles)
    monkeypatch.setattr(emoji_packages, "CONCEPTS", locked("concepts", concepts))
    answers = dict(zip((one.url for one in styles), sets.values(), strict=True))
    answers[emoji_packages.CONCEPTS.url] = concepts

    def opened(url: str, timeout: float) -> io.BytesIO:
        if url not in answers:
            raise urllib.error.URLError("not found")
        return io.BytesIO(answers[url])

    def drawn(svg: str, size: int) -> NDArray[np.uint8]:
        seed = int.from_bytes(hashlib.sha256(svg.encode()).digest()[:4], "little")
        return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)

    monkeypatch.setattr("urllib.request.urlopen", opened)
    monkeypatch.setattr(build_emoji, "draw", drawn)
    monkeypatch.setattr(build_emoji, "require_renderer", lambda: None)
    return answers


def test_the_set_is_built_and_read(
    registry: dict[str, bytes], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(["emoji", "--out", str(tmp_path), "--image-size", "8"]) == 0
    registry.clear()  # tarballs that are there are not fetched again
    path = build(tmp_path, 32, lambda text: None)
    assert (tmp_path / "emoji-8.npz").is_file() and path.name == "emoji-32.npz"
    licences = (tmp_path / "LICENSES-emoji.txt").read_text()
    assert all(one.name in licences for one in emoji_packages.STYLES)
    with np.load(path) as file:
        arrays = dict(file)
    # A thing that is drawn as another is goes with that one, and is there once.
    assert len(arrays["images"]) == 3 * 39 and not (arrays["concepts"] == "1F613").any()
    classes = np.array(CLASSES)[np.unique(arrays["labels"])].tolist()
    assert classes == ["animal", "transport"]
    with pytest.raises(ValueError, match="no training image of 11"):
        load("emoji", data_dir=tmp_path)
    arrays["labels"], arrays["class_names"] = arrays["labels"] // 12, np.array(["animal", "car"])
    np.savez(path, **arrays)
    data = load("emoji", data_dir=tmp_path, test_size=4)
    assert data.name == "emoji" and data.image_shape == (3, 32, 32) and data.num_test == 4
    assert [one.name for one in data.shifts] == [ARTIST, BOTH]
    assert sum(len(one.labels) for one in data.shifts) == 39
    assert isinstance(load(f"npz:{path}"), ImageData)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"entprop_fast\.data emoji --out data"):
        load("emoji")


def test_only_the_locked_bytes_are_taken(registry: dict[str, bytes], tmp_path: Path) -> None:
    package = emoji_packages.STYLES[0]

    def say(text: str) -> None: ...

    registry[package.url] = packed(icons("evil"))
    with pytest.raises(ValueError, match="sha512"):
        tarball(package, tmp_path, say)
    assert not list(tmp_path.iterdir())
    (tmp_path / package.file_names[1]).write_bytes(b"other")
    with pytest.raises(ValueError, match=package.name):
        tarball(package, tmp_path, say)
    with pytest.raises(FileNotFoundError, match="npm pack @icons/a@2"):
        tarball(replace(package, version="2"), tmp_path, say)


def test_a_line_that_breaks_is_a_fetch_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*args: Any, **more: Any) -> Any:
        raise http.client.IncompleteRead(b"")

    monkeypatch.setattr("urllib.request.urlopen", broken)
    with pytest.raises(FileNotFoundError, match="cannot be fetched"):
        tarball(emoji_packages.STYLES[0], tmp_path, lambda text: None)


@pytest.mark.parametrize(
    "content",
    [
        lambda: packed({"icons.json": {}}, link=True),
        lambda: packed({"other.json": {}}),
        lambda: packed({"icons.json": b"{"}),
        lambda: packed({"icons.json": {}})[:-20],
        lambda: b"",
    ],
)
def test_tarballs_that_are_refused(content: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "one.tgz"
    path.write_bytes(content())
    with pytest.raises(ValueError, match=r"one\.tgz"):
        read_json(path, ("icons.json",))


@pytest.mark.parametrize(
    "words",
    ["emoji --image-size 4", "emoji folder:x", "emoji --data-dir x", "check digits --out x"],
)
def test_words_that_do_not_fit(words: str, capsys: Capture) -> None:
    assert command.main(words.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
