"""Write and read the file that says how a generated set was made, and whether it is whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entprop_fast.lab import stopping
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    GENERATOR,
    SCALES,
    Scale,
    to_bytes,
)
from entprop_fast.lab.corruptions.suites import generated_source
from entprop_fast.lab.data import ImageFiles, ImageSet
from entprop_fast.lab.files import write_atomically

MARKER = "entprop_fast.json"  # what `entprop_fast.corrupt` writes into a set

_BATCH = 500

About = dict[str, Any]


class Marker:
    """Marks a set from its first file on, so that not even a part can pass for an official one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._about: About = {}

    def begin(self, about: About, *, resume: bool) -> None:
        """Mark the set as begun; without `resume` an older one that is marked is removed."""
        self._about = about
        old = read_marker(self.root)
        if old is not None and resume:
            differing = [
                f"{name} is {value}, was {old.get(name)}"
                for name, value in self._about.items()
                if old.get(name) != value
            ]
            if differing:
                raise ValueError(f"{self.root} holds another set: {'; '.join(differing)}")
        elif old is not None:
            self._remove(old)
        self.root.mkdir(parents=True, exist_ok=True)
        self._write(self._about, complete=False)

    def complete(self) -> None:
        """Mark the set as whole."""
        self._write(self._about, complete=True)

    def _remove(self, old: About) -> None:
        self._write({**old, "clean": "being removed"}, complete=False)  # no set to go on with
        for kind in (*COMMON_KINDS, *EXTRA_KINDS):
            stopping.check()
            for name in (f"{kind}.npy", f"{kind}.npy.part", progress_name(kind)):
                (self.root / name).unlink(missing_ok=True)
            if (self.root / kind).is_dir():
                shutil.rmtree(self.root / kind)

    def _write(self, about: About, **more: Any) -> None:
        text = json.dumps({**about, **more}, indent=2)
        write_atomically(self.root / MARKER, f"{text}\n".encode())


def progress_name(kind: str) -> str:
    """Return the name of the file that says how many images of an array are written."""
    return f"{kind}.npy.images"


def read_marker(root: Path) -> dict[str, Any] | None:
    """Read what `entprop_fast.corrupt` says of a set that it wrote; None for other sets."""
    path = root / MARKER
    if not path.exists():
        return None
    try:
        marker = json.loads(path.read_text())
        if not isinstance(marker, dict):
            raise TypeError
        return marker
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not what entprop_fast.corrupt writes") from error


def source_of(root: Path, marker: dict[str, Any]) -> str:
    """Return the words for a whole set that carries this marker."""
    if marker.get("complete") is not True:
        raise ValueError(
            f"{root} is a part of a set: the command that wrote it did not finish. The same one "
            "goes on with --resume"
        )
    if marker.get("scale") not in SCALES or type(marker.get("seed")) is not int:
        raise ValueError(f"{root / MARKER} names no known scale and seed: {marker}")
    generator = marker.get("generator", 1)  # the first one did not say
    if type(generator) is not int or generator < 1:
        raise ValueError(f"{root / MARKER} names no known generator: {generator!r}")
    return generated_source(marker["scale"], marker["seed"], generator)


def about_set(data: ImageSet, kinds: Sequence[str], scale: Scale, seed: int) -> About:
    """Say what a generated set depends on, as its marker does."""
    return {
        "source": generated_source(scale, seed),
        "dataset": data.name,
        "images": data.num_test,
        "shape": list(data.image_shape),
        "scale": scale,
        "seed": seed,
        "generator": GENERATOR,
        "kinds": list(kinds),
        "clean": digest_of_clean(data),
    }


def digest_of_clean(data: ImageSet) -> str:
    """Hash the 8-bit levels and labels of the test images; of files their names and sizes."""
    total = hashlib.sha256()
    if isinstance(data, ImageFiles):
        for number, (label, _) in enumerate(data.test.names()):
            stopping.check()
            path = data.test.path(number)
            total.update(f"{label} {path.name} {path.stat().st_size}\n".encode("utf-8", "replace"))
        return total.hexdigest()
    for images, labels in data.test_batches(_BATCH):
        stopping.check()
        # By image, so that the batch size changes nothing.
        for image, label in zip(to_bytes(images), labels.tolist(), strict=True):
            total.update(image.contiguous().numpy().tobytes() + label.to_bytes(8, "little"))
    return total.hexdigest()
