"""Translate a recorded network to ONNX, and run it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entprop_fast.lab.publish.programs import INPUT, OUTPUT, Program, tools_of_torch
from entprop_fast.lab.training.errors import RunFailed
from entprop_fast.optional import require

OPSET = 18  # the exporter writes it without converting
LIBRARIES = ("onnx", "onnxruntime", "onnxscript")

_BATCH = "batch"  # the name of the first dimension
_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def check_installed() -> None:
    """Refuse to go on without what ONNX needs.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    require(*LIBRARIES, extra="export", purpose="the format onnx")


def versions() -> dict[str, str]:
    """Return the releases of the libraries that wrote and ran the model."""
    return {name: version(name) for name in LIBRARIES}


def onnx_bytes(program: Program, about: Mapping[str, Any]) -> bytes:
    """Return an ONNX model from ``images`` float32 ``[batch, C, H, W]`` to ``logits``.

    Args:
        program: the recorded network.
        about: what the model says of itself, as JSON: classes and preprocessing.

    Raises:
        RunFailed: torch cannot translate it, or it is larger than one file may be (2 GB).
        ImportError: a library is not installed.
    """
    check_installed()
    size = sum(value.nbytes for value in program.exported.state_dict.values())
    if size > _LARGEST:
        raise RunFailed(f"weights of {size:,} bytes do not fit one ONNX file: at most 2 GB")
    with tools_of_torch("torch.onnx cannot translate this network"):
        made = torch.onnx.export(
            program.exported,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert made is not None
        model = made.model_proto
        _clean(model)
        for name, value in about.items():
            model.metadata_props.add(key=name, value=json.dumps(value))
        data: bytes = model.SerializeToString(deterministic=True)
    return data


def open_onnx(data: bytes) -> Callable[[Tensor], Tensor]:
    """Return what runs a model in onnxruntime, on the CPU, from images to logits.

    Raises:
        RunFailed: it cannot read the model, or, when called, run it.
    """
    require("onnxruntime", extra="export", purpose="running ONNX")
    import onnxruntime

    with tools_of_torch("onnxruntime cannot read what was exported"):
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        with tools_of_torch("onnxruntime cannot run what was exported"):
            (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return run


def _clean(model: Any) -> None:
    """Leave out what the exporter noted for its developers, paths of this machine among it."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
    for part in graph.initializer:
        del part.metadata_props[:]
    name = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == name:
                dimension.dim_param = _BATCH
