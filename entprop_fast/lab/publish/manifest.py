"""Say in one JSON file what an export holds, so that a program can use it without reading ours."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from entprop_fast import __version__
from entprop_fast.lab.training.deploy import NetworkSpec

MANIFEST = "manifest.json"


def about(spec: NetworkSpec) -> dict[str, Any]:
    """Return what a user of the network's logits needs: classes and preprocessing."""
    return {"classes": list(spec.classes), "preprocessing": spec.preprocessing.as_dict()}


def manifest_bytes(
    spec: NetworkSpec,
    files: Mapping[str, bytes],
    facts: Mapping[str, Mapping[str, Any]],
    versions: Mapping[str, str],
) -> bytes:
    """Return the manifest of some files.

    Args:
        spec: of the network.
        files: their bytes by name.
        facts: of some of them, what else is known.
        versions: of the libraries that wrote them.
    """
    ours = {"entprop_fast": __version__, "python": platform.python_version()}
    found = {
        "network": {"arch": spec.arch, "dataset": spec.dataset, "normalize": spec.normalize},
        **about(spec),
        "files": {
            name: {
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                **facts.get(name, {}),
            }
            for name, data in files.items()
        },
        "versions": {**ours, "torch": torch.__version__, **versions},
    }
    return f"{json.dumps(found, indent=2, allow_nan=False)}\n".encode()
