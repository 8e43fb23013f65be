"""Synchronised batch norms: torch's and timm's converters must not lose the auxiliary half."""

import copy
from typing import Any

import pytest
import torch
from timm import layers as timm_layers
from torch import nn

from entprop_fast import convert_dual_norm, route, strip_auxiliary
from entprop_fast.layers import DualSyncBatchNorm
from tests.layers import oracle

to_sync: Any = nn.SyncBatchNorm.convert_sync_batchnorm


def dual_network() -> nn.Sequential:
    network = convert_dual_norm(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    oracle.randomize(network)
    return network


def test_routing_what_torch_converted_names_our_converter() -> None:
    network = nn.Sequential(dual_network(), to_sync(dual_network()))  # one is enough
    assert not isinstance(network[1][1], DualSyncBatchNorm)
    with pytest.raises(ValueError, match=r"1\.1 lost its routing.*convert_dual_norm"):
        with route(network, "aux"):
            pass
    plain = to_sync(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    assert strip_auxiliary(network[1]).state_dict().keys() == plain.state_dict().keys()


def test_our_converter_mends_it() -> None:
    network = dual_network()
    before, x = oracle.snapshot(network), torch.randn(4, 2, 3, 3)
    mended = convert_dual_norm(to_sync(copy.deepcopy(network)))
    assert type(mended[1]) is DualSyncBatchNorm
    assert not oracle.moved(mended, before)
    for target in (4, 1, 0):
        with route(network, target), route(mended, target):
            assert torch.equal(mended(x), network(x))
    assert oracle.moved(mended, oracle.snapshot(network)) == set()


def test_a_plain_synchronised_norm_keeps_its_process_group() -> None:
    group: Any = object()  # what torch.distributed.new_group returns is opaque to the norm
    plain = nn.SyncBatchNorm(3, eps=0.1, momentum=0.2, process_group=group)
    norm: Any = convert_dual_norm(nn.Sequential(plain))[0]
    assert norm is plain
    for half in (norm, norm.aux_bn):
        assert isinstance(half, nn.SyncBatchNorm)
        assert half.process_group is group
        assert (half.eps, half.momentum) == (0.1, 0.2)
    assert type(strip_auxiliary(norm)) is nn.SyncBatchNorm
    assert norm.process_group is group


def test_timm_s_converter_is_mended_too() -> None:
    norm = timm_layers.BatchNormAct2d(3, act_layer=nn.SiLU)
    network = convert_dual_norm(nn.Sequential(nn.Conv2d(2, 3, 1), norm))
    oracle.randomize(network)
    x = torch.randn(4, 2, 3, 3)
    timm_to_sync: Any = timm_layers.convert_sync_batchnorm
    mended = timm_to_sync(copy.deepcopy(network))
    with pytest.raises(ValueError, match="convert_dual_norm"), route(mended, "main"):
        pass
    convert_dual_norm(mended)
    with route(network, 1), route(mended, 1):
        assert torch.equal(mended(x), network(x))
    assert type(strip_auxiliary(mended)[1]) is timm_layers.SyncBatchNormAct
