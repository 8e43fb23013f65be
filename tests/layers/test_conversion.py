"""`convert_dual_norm` and `strip_auxiliary`: in place, complete, loud about what they leave."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from entprop_fast import DualBatchNorm2d, DualLayerNorm, convert_dual_norm, route, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from tests.layers import oracle


class OwnBatchNorm(nn.BatchNorm2d):
    """Nobody knows what its forward does."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.LayerNorm(5))
    )
    oracle.randomize(model)
    return model


def images() -> Tensor:
    return torch.randn(4, 3, 5, 5)


def halves(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    return [(layer, layer.aux) for layer in model.modules() if isinstance(layer, DualNorm)]


def test_works_in_place_and_keeps_identities() -> None:
    model = network()
    modules, tensors = dict(model.named_modules()), model.state_dict(keep_vars=True)
    norm: Any = model[1]
    norm.note = note = object()
    calls: list[str] = []
    norm.register_forward_hook(lambda *_: calls.append("hook"))
    norm.weight.register_hook(lambda _: calls.append("gradient"))

    assert convert_dual_norm(model) is model

    assert {name: model.get_submodule(name) for name in modules} == modules
    converted = model.state_dict(keep_vars=True)
    assert all(converted[name] is tensor for name, tensor in tensors.items())
    assert isinstance(norm, DualBatchNorm2d) and isinstance(model[2][1], DualLayerNorm)  # type: ignore[index]
    assert norm.note is note
    with route(model, 2):
        model(images()).sum().backward()
    assert calls == ["hook", "gradient"]  # once for the layer: the auxiliary half has none of them


def test_auxiliary_equals_main_and_is_never_aliased() -> None:
    model = convert_dual_norm(network())
    assert len(halves(model)) == 2
    for main, aux in halves(model):
        own = main.state_dict()
        for name, value in aux.state_dict().items():
            assert torch.equal(value, own[name])
    entries = model.state_dict()
    assert len({value.data_ptr() for value in entries.values()}) == len(entries)


def test_idempotent() -> None:
    """A second conversion changes only norms that were added, a norm at two places once."""
    model = convert_dual_norm(network())
    oracle.randomize(model)
    entries, modules = model.state_dict(keep_vars=True), list(model.modules())
    assert convert_dual_norm(model) is model
    assert list(model.modules()) == modules
    model.append(added := nn.LayerNorm(5)).append(added)
    again = convert_dual_norm(model).state_dict(keep_vars=True)
    assert isinstance(model[3], DualLayerNorm) and model[3] is model[4] is added
    assert len(halves(model)) == 3
    assert {k: v for k, v in again.items() if k[0] < "3"} == entries


def test_flags_are_kept() -> None:
    model = network()
    model[1].eval()
    model[1].weight.requires_grad_(False)
    convert_dual_norm(model)
    (norm, aux), (layer_norm, aux_ln) = halves(model)
    assert not norm.training and not aux.training
    assert layer_norm.training and aux_ln.training
    for half in (norm, aux):
        assert {n: p.requires_grad for n, p in half.named_parameters(recurse=False)} == {
            "weight": False,
            "bias": True,
        }


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_device_and_dtype_are_kept(device: str, dtype: torch.dtype) -> None:
    model = convert_dual_norm(network().to(device, dtype))
    for parameter in model.parameters():
        assert (parameter.device.type, parameter.dtype) == (device, dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0.1, "momentum": 0.3},
        {"momentum": None},
        {"affine": False},
        {"track_running_stats": False},
    ],
    ids=str,
)
def test_settings_are_copied_and_then_belong_to_each_half(options: dict[str, Any]) -> None:
    norm: Any = convert_dual_norm(nn.BatchNorm2d(3, **options))
    assert (
        norm.extra_repr() == norm.aux_bn.extra_repr() == nn.BatchNorm2d(3, **options).extra_repr()
    )
    norm.eps, norm.momentum = 0.5, 0.9
    assert norm.aux_bn.eps == options.get("eps", 1e-5)
    assert norm.aux_bn.momentum == options.get("momentum", 0.1)


def test_what_it_does_not_know_is_left_alone_and_named_in_one_warning() -> None:
    patched = nn.BatchNorm2d(3)
    patched.forward = lambda x: x  # type: ignore[method-assign, assignment]
    model = nn.Sequential(nn.BatchNorm2d(3), OwnBatchNorm(3), GlobalResponseNorm(3), patched)
    with pytest.warns(UserWarning) as caught:
        convert_dual_norm(model)
    assert len(caught) == 1
    message = str(caught[0].message)
    for name in (
        "1 OwnBatchNorm with a forward of its own (1)",
        "1 GlobalResponseNorm that is dual on request (2)",
        "1 BatchNorm2d with a forward of its own (3)",
        "also=",
    ):
        assert name in message
    assert "(0)" not in message
    assert caught[0].filename == __file__
    assert [type(m) for m in list(model)[1:3]] == [OwnBatchNorm, GlobalResponseNorm]
    assert not isinstance(patched, DualNorm)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Conv2d(3, 3, 1), ""),
        (
            nn.Sequential(OwnBatchNorm(3), GlobalResponseNorm(3)),
            "1 OwnBatchNorm with a forward of its own (0), 1 GlobalResponseNorm that",
        ),
        (OwnBatchNorm(3), "1 OwnBatchNorm with a forward of its own (model)"),
    ],
    ids=["none", "unknown", "bare"],
)
def test_nothing_to_convert_is_an_error(model: nn.Module, found: str) -> None:
    with pytest.raises(ValueError, match="also=") as raised:
        convert_dual_norm(model)
    assert found in str(raised.value)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_outputs_are_the_same_bits_before_and_after(training: bool) -> None:
    plain, x = network().train(training), images()
    dual = convert_dual_norm(copy.deepcopy(plain))
    expected = plain(x)
    assert torch.equal(dual(x), expected)
    assert not oracle.moved(plain, dual.state_dict())
    stripped = strip_auxiliary(dual)
    assert torch.equal(stripped(x), plain(x))


def test_strip_gives_the_plain_network_back() -> None:
    model = network()
    modules, tensors = list(model.modules()), model.state_dict(keep_vars=True)
    assert strip_auxiliary(model) is model  # as it is
    convert_dual_norm(model)
    with route(model, "aux"):
        model(images())
    assert strip_auxiliary(model) is model
    assert list(model.modules()) == modules
    assert [type(m) for m in modules] == [type(m) for m in network().modules()]
    stripped = model.state_dict(keep_vars=True)
    assert stripped.keys() == tensors.keys() and all(stripped[k] is tensors[k] for k in tensors)
    for module, fresh in zip(modules, network().modules(), strict=True):
        assert vars(module).keys() == vars(fresh).keys()
    assert repr(model) == repr(network())
    with pytest.raises(ValueError, match="convert_dual_norm"), route(model, "main"):
        pass
    assert len(halves(convert_dual_norm(model))) == 2  # and once more


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("stripped", [False, True], ids=["dual", "stripped"])
def test_copies(duplicate: Callable[[Any], Any], stripped: bool) -> None:
    model, x = convert_dual_norm(network()).eval(), images()
    oracle.randomize(model)
    if stripped:
        strip_auxiliary(model)
    twin = duplicate(model)
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
    assert torch.equal(twin(x), model(x))
    assert not oracle.moved(twin, oracle.snapshot(model))
    ours = {value.data_ptr() for value in model.state_dict().values()}
    assert not ours & {value.data_ptr() for value in twin.state_dict().values()}
    if not stripped:  # the copy's check of checkpoints came along
        damaged = {k: v for k, v in twin.state_dict().items() if "2.1.aux_ln" not in k}
        with pytest.raises(RuntimeError, match=r"2\.1\.aux_ln\.weight"):
            twin.load_state_dict(damaged)
