"""What is exported or traced holds PyTorch's own ops, so that it runs without this package."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, models, strip_auxiliary


def images(rows: int) -> Tensor:
    batch = torch.rand(rows, 3, 16, 16, generator=torch.Generator().manual_seed(rows))
    return batch.to(memory_format=torch.channels_last)


@pytest.fixture(params=[True, False], ids=["dual", "stripped"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """In channels_last and wide enough for conv3x3, with statistics that are not the first ones."""
    torch.manual_seed(0)
    model = convert_dual_norm(models.create("wrn10_1", num_classes=5))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        model(images(8))
    return (model if request.param else strip_auxiliary(model)).eval()


def test_an_exported_program_takes_any_batch(model: nn.Module) -> None:
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (images(2),), dynamic_shapes=dynamic)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called and all(name.startswith("aten.") for name in called)
    torch.testing.assert_close(program.module()(images(7)), model(images(7)))


def test_a_trace_is_saved_and_takes_any_batch(model: nn.Module) -> None:
    trace: Any = torch.jit.trace(model, images(2))
    file = io.BytesIO()
    torch.jit.save(trace, file)
    file.seek(0)
    loaded: Any = torch.jit.load(file)
    kinds = {node.kind() for node in loaded.inlined_graph.nodes()}
    assert "aten::batch_norm" in kinds and not any("entprop" in kind for kind in kinds)
    torch.testing.assert_close(loaded(images(7)), model(images(7)))
