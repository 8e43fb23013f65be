"""`DualLayerNorm`: `nn.LayerNorm` without a route, one affine map for each group with one."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import LayerNorm, LayerNorm2d
from torch import nn

from entprop_fast import DualLayerNorm, convert_dual_norm, route, strip_auxiliary
from entprop_fast.layers.routing import Target
from tests.layers import oracle

OPTIONS: list[dict[str, Any]] = [
    {},
    {"eps": 0.1},
    {"bias": False},
    {"elementwise_affine": False},
    {"dtype": torch.float64},
    {"dtype": torch.bfloat16},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [8, (3, 8)], ids=str)
def test_without_a_route_it_is_layer_norm(options: dict[str, Any], shape: Any) -> None:
    plain, dual = nn.LayerNorm(shape, **options), DualLayerNorm(shape, **options)
    oracle.randomize(plain)
    dual.load_state_dict(plain.state_dict())
    x = torch.randn(5, 3, 8, dtype=options.get("dtype"), requires_grad=True)
    y, expected = dual(x), plain(x)
    assert torch.equal(y, expected)
    upstream = torch.randn_like(x)
    gradients = torch.autograd.grad(y, [x, *dual.parameters(recurse=False)], upstream)
    for found, gradient in zip(
        gradients, torch.autograd.grad(expected, [x, *plain.parameters()], upstream), strict=True
    ):
        assert torch.equal(found, gradient)
    keys = list(plain.state_dict())
    assert list(dual.state_dict()) == keys + [f"aux_ln.{key}" for key in keys]


@given(rows=st.integers(0, 6), tokens=st.integers(1, 4), width=st.integers(1, 9), m=st.integers(0))
def test_each_group_by_its_definition(rows: int, tokens: int, width: int, m: int) -> None:
    m %= rows + 1
    norm = DualLayerNorm(width, eps=0.01, dtype=torch.float64)
    oracle.randomize(norm)
    x = torch.randn(rows, tokens, width, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    with route(norm, m):
        y = norm(x)
    y.backward(upstream)

    leaf = x.detach().requires_grad_()
    affine = [p.detach().clone().requires_grad_() for p in norm.parameters()]
    main = oracle.layer_norm(leaf[:m], affine[0], affine[1], 0.01)
    truth = torch.cat([main, oracle.layer_norm(leaf[m:], affine[2], affine[3], 0.01)])
    expected = torch.autograd.grad(truth, [leaf, *affine], upstream)
    torch.testing.assert_close(y, truth, rtol=1e-12, atol=1e-12)
    for found, gradient in zip([x, *norm.parameters()], expected, strict=True):
        value = torch.zeros_like(found) if found.grad is None else found.grad
        torch.testing.assert_close(value, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "idle"), [("main", "aux_ln"), (4, "aux_ln"), ("aux", ""), (0, "")]
)
def test_a_group_without_rows_gets_no_gradient(target: Target, idle: str) -> None:
    norm = DualLayerNorm(8)
    with route(norm, target):
        norm(torch.randn(4, 8)).sum().backward()
    without = {name for name, p in norm.named_parameters() if p.grad is None}
    assert without == {f"{idle}.{k}".lstrip(".") for k in ("weight", "bias")}


def test_reset_parameters_resets_both_halves() -> None:
    norm = DualLayerNorm(8)
    oracle.randomize(norm)
    norm.reset_parameters()
    for half in (norm, norm.aux_ln):
        assert torch.equal(half.weight, torch.ones(8))
        assert torch.equal(half.bias, torch.zeros(8))


@pytest.mark.parametrize("cls", [LayerNorm, LayerNorm2d], ids=["LayerNorm", "LayerNorm2d"])
def test_timm_s_layer_norms(cls: type[nn.LayerNorm]) -> None:
    plain = cls(8)
    oracle.randomize(plain)
    dual = convert_dual_norm(copy.deepcopy(plain))
    assert isinstance(dual, DualLayerNorm)
    x = torch.randn(4, 8, 3, 3) if cls is LayerNorm2d else torch.randn(4, 3, 8)
    with route(dual, 3):
        assert torch.equal(dual(x), plain(x))  # right after the conversion the halves are equal
    oracle.randomize(dual.aux_ln)
    with route(dual, 3):
        y = dual(x)
    assert torch.equal(y[:3], plain(x)[:3])
    plain.load_state_dict(dual.aux_ln.state_dict())
    assert torch.equal(y[3:], plain(x)[3:])
    assert type(strip_auxiliary(dual)) is cls


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("target", ["aux", 2], ids=str)
def test_the_fused_inference_of_transformers_takes_no_other_half(
    target: Target, padded: bool
) -> None:
    """Without gradients PyTorch's layer reads its norms' weights past their forward."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    plain = nn.TransformerEncoder(layer, 2).eval()
    aux = copy.deepcopy(plain)
    for norm in (m for m in aux.modules() if isinstance(m, nn.LayerNorm)):
        oracle.randomize(norm)
    dual = convert_dual_norm(copy.deepcopy(plain))
    for name, norm in aux.named_modules():
        if isinstance(norm, nn.LayerNorm):
            dual.get_submodule(f"{name}.aux_ln").load_state_dict(norm.state_dict())
    x = torch.randn(3, 5, 16)
    mask = torch.arange(5) >= torch.tensor([5, 3, 4])[:, None] if padded else None
    with torch.no_grad():
        with route(dual, target):
            y = dual(x, src_key_padding_mask=mask)
        main, expected = (net(x, src_key_padding_mask=mask) for net in (plain, aux))
        assert torch.equal(dual(x, src_key_padding_mask=mask), main)  # fused again
    here = target if isinstance(target, int) else 0
    valid = torch.ones(3, 5, dtype=torch.bool) if mask is None else ~mask
    expected = torch.cat((main[:here], expected[here:]))
    torch.testing.assert_close(y[valid], expected[valid])
