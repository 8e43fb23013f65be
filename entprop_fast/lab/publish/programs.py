"""Record a network as a program of PyTorch's own ops, for images of any number."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from entprop_fast.lab.publish.fold_norms import Folded, fold_norms
from entprop_fast.lab.training.errors import RunFailed, one_line
from entprop_fast.logits import logits_in, logits_of

INPUT, OUTPUT = "images", "logits"
EXAMPLES = 2  # rows that are traced; 1 would be taken for a constant
LONGEST = 300  # characters of torch's reason


class Program(NamedTuple):
    """Hold a network's program, and what became of its batch norms."""

    exported: ExportedProgram
    norms: Folded


def record(network: nn.Module, images: Tensor) -> Program:
    """Record a network in eval mode, its batch norms folded into convolutions where that is exact.

    Args:
        network: plain, on the CPU.
        images: two examples, float32 ``[2, C, H, W]``.

    Raises:
        NoLogits, ValueError: it returns something else than logits.
        RunFailed: torch cannot record it.
    """
    with torch.no_grad():
        logits_of(network(images), len(images))
    with tools_of_torch("torch.export cannot record this network"):
        plain = _export(_Logits(network).eval(), images).module(check_guards=False)
        assert isinstance(plain, torch.fx.GraphModule)
        norms = fold_norms(plain)
        exported = _export(plain, images)
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return Program(exported, norms)


def torch_bytes(program: Program) -> bytes:
    """Return what ``torch.export.save`` writes; ``torch.export.load`` reads it."""
    buffer = io.BytesIO()
    with tools_of_torch("torch.export cannot save this network"):
        torch.export.save(program.exported, buffer)
    return buffer.getvalue()


def read_torch_bytes(data: bytes) -> nn.Module:
    """Return the network in what `torch_bytes` gave."""
    with tools_of_torch("torch.export cannot read what it saved"):
        loaded: nn.Module = torch.export.load(io.BytesIO(data)).module()
    return loaded


class _Logits(nn.Module):
    """Return the logits alone, whatever object the network puts them in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = logits_in(self.network(images))
        assert logits is not None  # `record` has looked
        return logits


def _export(module: nn.Module, images: Tensor) -> ExportedProgram:
    shapes = {INPUT: {0: Dim("batch", min=1)}}
    if isinstance(module, torch.fx.GraphModule):
        return torch.export.export(module, (images,), dynamic_shapes=(shapes[INPUT],))
    return torch.export.export(module, (images,), dynamic_shapes=shapes)


@contextlib.contextmanager
def tools_of_torch(what: str) -> Iterator[None]:
    """Let torch's tools fail in one line; what they warn their own developers of is not shown.

    Raises:
        RunFailed: they failed; it begins with `what`.
    """
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        try:
            yield
        except (RunFailed, ImportError):
            raise
        except Exception as error:  # of every kind, whatever a network leads them to
            raise RunFailed(f"{what}: {one_line(error)[:LONGEST]}") from error
