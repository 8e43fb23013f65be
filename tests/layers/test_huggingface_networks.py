"""Hugging Face's image classifiers of random weights: converted whole, trained, stripped."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf

from entprop_fast import convert_dual_norm, create_method, norm_report, strip_auxiliary

ViT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 16,
}
SMALL: dict[str, Any] = {"hidden_sizes": [8, 8], "depths": [1, 1], "embedding_size": 8}
NETWORKS: dict[str, Callable[[], Any]] = {
    "ResNet": lambda: hf.ResNetConfig(**SMALL),
    "RegNet": lambda: hf.RegNetConfig(**SMALL, groups_width=4),
    "BiT": lambda: hf.BitConfig(**SMALL | {"hidden_sizes": [32, 32]}, num_groups=4),
    "ViT": lambda: hf.ViTConfig(**ViT),
    "DINOv2": lambda: hf.Dinov2Config(**ViT),
    "Swin": lambda: hf.SwinConfig(
        embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, image_size=32
    ),
    "ConvNext": lambda: hf.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4),
    "PoolFormer": lambda: hf.PoolFormerConfig(hidden_sizes=[8] * 4, depths=[1] * 4),
    "LeViT": lambda: hf.LevitConfig(
        image_size=64,
        hidden_sizes=[16] * 3,
        num_attention_heads=[1] * 3,
        depths=[1] * 3,
        key_dim=[4] * 3,
    ),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_converted_whole_trained_and_stripped(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    config = make()
    config.num_labels = 4
    model = getattr(hf, type(config).__name__.replace("Config", "ForImageClassification"))(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert_dual_norm(model)
    assert {entry.state for entry in norm_report(model)} == {"dual"}

    size = getattr(config, "image_size", 32)
    images = torch.rand(4, 3, size, size)
    model.train()
    for name in ("entprop", "entprop_pipelined"):
        method = create_method(name, model, torch.optim.SGD(model.parameters(), 0.01), k=0.5)
        for _ in range(2):
            assert method(images, torch.arange(4)).loss.isfinite()
    expected = model.eval()(images).logits
    stripped = strip_auxiliary(model)
    torch.testing.assert_close(stripped(images).logits, expected)
    assert not any("aux" in key for key in stripped.state_dict())
