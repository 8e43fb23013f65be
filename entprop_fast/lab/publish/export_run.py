"""Export a run's network in the formats asked for, each checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast import name_errors
from entprop_fast.lab import stopping
from entprop_fast.lab.publish import onnx_model
from entprop_fast.lab.publish.deployed_network import load_plain
from entprop_fast.lab.publish.hub_folder import CONFIG, hub_files
from entprop_fast.lab.publish.manifest import MANIFEST, about, manifest_bytes
from entprop_fast.lab.publish.model_card import CARD, model_card
from entprop_fast.lab.publish.programs import (
    EXAMPLES,
    INPUT,
    OUTPUT,
    Program,
    read_torch_bytes,
    record,
    torch_bytes,
)
from entprop_fast.lab.publish.same_logits import largest_difference
from entprop_fast.lab.publish.scores import read_scores
from entprop_fast.lab.training.deploy import NetworkSpec, Own
from entprop_fast.lab.training.preprocessing import MODES
from entprop_fast.lab.training.run_folder import MODEL

FORMATS = ("safetensors", "torch", "onnx", "model-card")

PROGRAM = "model.pt2"
ONNX = "model.onnx"
SCRIPT = "classify.py"
FILES = (CONFIG, MODEL, PROGRAM, ONNX, SCRIPT, CARD, MANIFEST)

_FOLDER = re.compile(r"folder:(?:.*/)?([^/]+)/*")


def read_formats(text: str) -> tuple[str, ...]:
    """Read formats joined by commas, and make sure that their libraries are there.

    Raises:
        ValueError: there is no such format.
        ImportError: a library is not installed.
    """
    formats = tuple(dict.fromkeys(text.split(",")))
    for one in formats:
        if one not in FORMATS:
            raise name_errors.unknown("--to", one, FORMATS)
    if "onnx" in formats:
        onnx_model.check_installed()
    return formats


def export_run(
    path: Path,
    formats: Sequence[str],
    say: Callable[[str], None],
    *,
    model: Own | None = None,
) -> dict[str, bytes]:
    """Return the files of an export by name; nothing is written.

    Args:
        path: of a run, as `load_plain` takes it.
        formats: some of `FORMATS`.
        say: is told what was checked, a line each.
        model: as `load_plain` takes it.

    Raises:
        ValueError, FileNotFoundError: as `load_plain`.
        RunFailed: the network cannot be exported so, or what was exported gives other logits.
    """
    network, spec = load_plain(path, say, model)
    spec = replace(spec, dataset=_FOLDER.sub(r"folder:\1", spec.dataset))  # whose path, is private
    files: dict[str, bytes] = {}
    facts: dict[str, dict[str, Any]] = {}
    stopping.check()
    if "safetensors" in formats:
        files |= hub_files(network, spec)
    if "torch" in formats or "onnx" in formats:
        _add_programs(network, spec, formats, say, files, facts)
    if "model-card" in formats:
        files[CARD] = model_card(spec, read_scores(path)).encode()
    versions = onnx_model.versions() if ONNX in files else {}
    files[MANIFEST] = manifest_bytes(spec, files, facts, versions)
    return files


def _add_programs(
    network: nn.Module,
    spec: NetworkSpec,
    formats: Sequence[str],
    say: Callable[[str], None],
    files: dict[str, bytes],
    facts: dict[str, dict[str, Any]],
) -> None:
    """Add what runs without this package, and what was found out about it."""
    steps = spec.preprocessing
    shape = (steps.channels, steps.height, steps.width)
    program = record(network, torch.zeros(EXAMPLES, *shape))
    say(f"{program.norms.folded} of {program.norms.norms} batch norms are folded into convolutions")
    if "torch" in formats:
        files[PROGRAM] = data = torch_bytes(program)
        runs = read_torch_bytes(data)
        facts[PROGRAM] = _facts(program, network, runs, shape, PROGRAM, say)
    stopping.check()
    if "onnx" in formats:
        files[ONNX] = data = onnx_model.onnx_bytes(program, about(spec))
        run = onnx_model.open_onnx(data)
        facts[ONNX] = _facts(program, network, run, shape, ONNX, say)
        facts[ONNX]["opset"] = onnx_model.OPSET
        if spec.in_channels in MODES:
            files[SCRIPT] = resources.files(__package__).joinpath(SCRIPT).read_bytes()
        else:
            say(f"no {SCRIPT}: an image file has no {spec.in_channels} channels")


def _facts(
    program: Program,
    network: nn.Module,
    exported: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
    name: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Check a program, and return what the manifest says of it."""
    difference = largest_difference(network, exported, shape, name)
    say(f"{name}: logits differ by {difference:.1e} of the largest, on random images")
    return {
        "input": INPUT,
        "output": OUTPUT,
        "batch_norms": program.norms.norms,
        "batch_norms_folded": program.norms.folded,
        "largest_difference": difference,
    }
