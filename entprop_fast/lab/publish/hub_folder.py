"""Keep a network in the folder layout of the Hugging Face hub, and load it from there.

``config.json``, ``model.safetensors`` and ``README.md``: no pickle, nothing that is fetched. Where
the network is one of timm's, timm itself loads the folder, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from entprop_fast.lab.data.datasets import PREFIXES
from entprop_fast.lab.publish.deployed_network import load
from entprop_fast.lab.publish.model_card import CARD, model_card
from entprop_fast.lab.publish.new_files import write_new
from entprop_fast.lab.publish.scores import Scores, read_scores
from entprop_fast.lab.training.deploy import (
    ModelNeeded,
    NetworkSpec,
    Own,
    deployable_bytes,
    plain_copy,
)
from entprop_fast.lab.training.run_folder import MODEL
from entprop_fast.models.external import timm_parts
from entprop_fast.models.normalized import NORMALIZATIONS, Normalized, core

CONFIG = "config.json"

_OURS = "entprop_fast"  # the key of what `NetworkSpec` says
_TIMM = "timm:"
_FOLDER = re.compile(rf"({'|'.join(PREFIXES)})(?:.*/)?([^/]+)/*")


def save_pretrained(
    source: str | Path | nn.Module,
    folder: str | Path,
    spec: NetworkSpec | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``, the model card.

    ::

        entprop_fast.save_pretrained("runs/digits-wrn10_0.5-entprop-0", "my-model")
        network, spec = entprop_fast.from_pretrained("my-model")

    Args:
        source: a run, as `load` takes it, or a network, whose auxiliary norms are left out.
        folder: is made where there is none.
        spec: of a network: `load` gave it, or you make one: ``NetworkSpec(arch="", num_classes=2,
            in_channels=3, class_names=("cat", "dog"), input_size=(224, 224))``. An empty arch is
            a network of your own.
        overwrite: replace these files where they are there.

    Raises:
        ValueError: the folder holds one of the files; or a spec is missing, or given for a run.
        OSError: a file cannot be written.
    """
    scores = Scores()
    if isinstance(source, nn.Module):
        if spec is None:
            raise ValueError("spec=None: a network needs one, to say its classes and images")
        network = source
    else:
        if spec is not None:
            raise ValueError(f"spec is given for {source}, which has one: give it with a network")
        network, spec = load(source)
        scores = read_scores(Path(source))
    spec = without_paths(spec)
    files = hub_files(network, spec)
    files[CARD] = model_card(spec, scores).encode()
    write_new(Path(folder), files, overwrite=overwrite)


def from_pretrained(
    folder: str | Path, *, model: Own | None = None
) -> tuple[nn.Module, NetworkSpec]:
    """Load what `save_pretrained` wrote: a plain network in eval mode, on the CPU.

    Args:
        folder: on this machine; ``huggingface_hub.snapshot_download("OWNER/NAME")`` fetches one of
            the hub and returns where it is.
        model: as `load` takes it, where the network is one of your own.

    Returns:
        As `load`.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: the files are damaged, or no network of ours.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"folder {str(folder)!r} is not there; from the hub: "
            'from_pretrained(huggingface_hub.snapshot_download("OWNER/NAME"))'
        )
    config = (folder / CONFIG).read_bytes()
    weights = folder / MODEL
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is not there")
    try:
        spec = _spec_in(json.loads(config))
        built = spec.build(model)
        core(built).load_state_dict(safetensors.torch.load_file(weights))
    except (ImportError, ModelNeeded):
        raise
    except Exception as error:  # anybody may have written them
        raise ValueError(f"{folder} cannot be read as a network: {error!r}") from error
    return built.eval(), spec


def without_paths(spec: NetworkSpec) -> NetworkSpec:
    """Keep of a data set's folder its last name: where it lies on this machine is nobody's."""
    return replace(spec, dataset=_FOLDER.sub(r"\1\2", spec.dataset))


def hub_files(network: nn.Module, spec: NetworkSpec) -> dict[str, bytes]:
    """Return configuration and weights by name.

    Raises:
        ValueError: the network normalises its images, and the spec says otherwise.
    """
    inside = isinstance(network, Normalized)
    if inside != (NORMALIZATIONS.get(spec.normalize) is not None):
        raise ValueError(
            f"normalize={spec.normalize!r}: the network {'has' if inside else 'has no'} "
            "normalisation inside"
        )
    plain = plain_copy(network)
    config = f"{json.dumps(_config(plain, spec), indent=2)}\n".encode()
    return {CONFIG: config, MODEL: deployable_bytes(plain, spec)}


def _config(plain: nn.Module, spec: NetworkSpec) -> dict[str, Any]:
    ours = asdict(spec)
    del ours["class_names"]  # they are the labels
    labels = {str(place): name for place, name in enumerate(spec.classes)}
    found: dict[str, Any] = {"num_classes": spec.num_classes, "id2label": labels}
    if spec.arch.startswith(_TIMM):
        found |= timm_config(plain, spec)
    return {**found, _OURS: ours}


def timm_config(plain: nn.Module, spec: NetworkSpec) -> dict[str, Any]:
    """Return the layout of timm's own folders, see ``timm.models.save_for_hf``."""
    arch, tag, arguments = timm_parts(spec.arch.removeprefix(_TIMM))
    own = getattr(core(plain), "pretrained_cfg", {})
    steps = spec.preprocessing
    constants = NORMALIZATIONS[spec.normalize] or (
        steps.mean or (0.0,) * spec.in_channels,
        steps.std or (1.0,) * spec.in_channels,
    )
    # timm resizes to floor(size / crop_pct): half a pixel more keeps rounding away from it.
    larger = steps.resize[0] > steps.height
    return {
        "architecture": arch,
        "label_names": list(spec.classes),
        "model_args": {"num_classes": spec.num_classes, "in_chans": spec.in_channels, **arguments},
        "pretrained_cfg": {
            "tag": tag or "entprop_fast",
            "input_size": [spec.in_channels, steps.height, steps.width],
            "interpolation": "bilinear",
            "crop_pct": steps.height / (steps.resize[0] + 0.5) if larger else 1.0,
            "crop_mode": "center",
            "mean": constants[0],
            "std": constants[1],
            "num_classes": spec.num_classes,
            **{name: own[name] for name in ("first_conv", "classifier") if own.get(name)},
        },
    }


def _spec_in(config: Mapping[str, Any]) -> NetworkSpec:
    labels = config["id2label"]
    if not isinstance(labels, Mapping) or labels.keys() != set(map(str, range(len(labels)))):
        raise ValueError("id2label: expected a table of the names of 0, 1, ..., without a gap")
    names = [labels[str(place)] for place in range(len(labels))]
    return NetworkSpec.of({**config[_OURS], "class_names": names})
