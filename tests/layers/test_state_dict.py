"""Checkpoints: plain ones fill both halves, dual ones round-trip, damaged ones are refused."""

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, strip_auxiliary
from entprop_fast.torch_internals import loading_hooks_of
from tests.layers import oracle

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.Flatten(2), nn.LayerNorm(4)),
    )


def dual_network() -> nn.Sequential:
    """With other values in all entries."""
    model = convert_dual_norm(network())
    oracle.randomize(model)
    return model


def plain_checkpoint() -> dict[str, Tensor]:
    model = network()
    oracle.randomize(model)
    return model.state_dict()


def main_name(key: str) -> str:
    return key.replace("aux_bn.", "").replace("aux_ln.", "")


def auxiliary(state: dict[str, Tensor]) -> set[str]:
    return {key for key in state if main_name(key) != key}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_a_plain_checkpoint_fills_both_halves(strict: bool, assign: bool) -> None:
    model, checkpoint = dual_network(), plain_checkpoint()
    keys, parameters = list(checkpoint), list(map(id, model.parameters()))
    result = model.load_state_dict(checkpoint, strict=strict, assign=assign)
    assert not result.missing_keys and not result.unexpected_keys
    state = model.state_dict()
    assert auxiliary(state) == {
        *(f"1.aux_bn.{k}" for k in BATCH_NORM),
        *(f"2.0.aux_bn.{k}" for k in BATCH_NORM[2:]),
        *(f"2.2.aux_ln.{k}" for k in ("weight", "bias")),
    }
    for key, value in state.items():
        assert torch.equal(value, checkpoint[main_name(key)]), key
    assert list(checkpoint) == keys  # the caller's dict is left as it was
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    assert len(list(model.parameters())) == len(parameters)
    assert assign or list(map(id, model.parameters())) == parameters  # the optimizer's
    source = dual_network()
    model.load_state_dict(source.state_dict(), strict=strict, assign=assign)
    assert not oracle.moved(model, oracle.snapshot(source))


DAMAGE = {
    "one entry": {"1.aux_bn.weight"},
    "the counter": {"1.aux_bn.num_batches_tracked"},
    "some of two layers": {"1.aux_bn.running_mean", "2.2.aux_ln.bias"},
    "a whole batch norm": {f"1.aux_bn.{k}" for k in BATCH_NORM},
    "a whole layer norm": {"2.2.aux_ln.weight", "2.2.aux_ln.bias"},
}


@pytest.mark.parametrize("missing", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_damaged_dual_checkpoint_lists_what_it_lacks(missing: set[str], prefix: str) -> None:
    """Also behind the prefix that wrappers such as DistributedDataParallel add."""
    model: nn.Module = dual_network()
    damaged = {prefix + k: v for k, v in dual_network().state_dict().items() if k not in missing}
    owner = nn.ModuleDict({"module": model}) if prefix else model
    with pytest.raises(RuntimeError, match="Missing key") as raised:
        owner.load_state_dict(damaged)
    for key in missing:
        assert str(raised.value).count(f'"{prefix}{key}"') == 1

    before = oracle.snapshot(model)
    result = owner.load_state_dict(damaged, strict=False)
    assert sorted(result.missing_keys) == sorted(prefix + key for key in missing)
    assert not result.unexpected_keys
    # What is missing stays as it was; all the rest is loaded.
    assert oracle.moved(model, before) <= before.keys() - missing
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in missing else damaged[prefix + key])


@pytest.mark.parametrize(
    ("lacks", "more", "kind"),
    [
        ({"1.weight", "2.2.bias"}, set(), "Missing"),
        (set(), {"1.aux_bn.scale"}, "Unexpected"),
        ({"1.weight"}, {"1.scale"}, "(Missing|Unexpected)"),
    ],
)
@pytest.mark.parametrize("dual", [True, False])
def test_what_fits_neither_half_is_refused(
    lacks: set[str], more: set[str], kind: str, dual: bool
) -> None:
    checkpoint = dual_network().state_dict() if dual else plain_checkpoint()
    damaged = {k: v for k, v in checkpoint.items() if k not in lacks}
    with pytest.raises(RuntimeError, match=f"{kind} key") as raised:
        dual_network().load_state_dict(damaged | dict.fromkeys(more, torch.ones(4)))
    assert all(f'"{name}"' in str(raised.value) for name in lacks | more)


def test_a_stripped_network_refuses_a_dual_checkpoint() -> None:
    plain = strip_auxiliary(dual_network())
    assert plain.state_dict().keys() == network().state_dict().keys()
    assert not loading_hooks_of(plain)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        plain.load_state_dict(dual_network().state_dict())


def test_a_converted_part_of_a_network() -> None:
    model = nn.Sequential(convert_dual_norm(network()), nn.BatchNorm2d(4))
    plain = {f"0.{k}": v for k, v in plain_checkpoint().items()}
    model.load_state_dict(plain | {f"1.{k}": v for k, v in model[1].state_dict().items()})
    assert torch.equal(model.state_dict()["0.1.aux_bn.weight"], plain["0.1.weight"])
    assert not loading_hooks_of(strip_auxiliary(model)[0])


def test_a_checkpoint_from_before_batch_norms_counted() -> None:
    old = {k: v for k, v in plain_checkpoint().items() if "num_batches_tracked" not in k}
    model = dual_network()
    model.load_state_dict(old)
    assert torch.equal(model.state_dict()["1.aux_bn.running_mean"], old["1.running_mean"])
