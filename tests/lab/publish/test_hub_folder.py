"""A folder in the hub's layout brings the network back, through timm itself where it is timm's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn

import entprop_fast
from entprop_fast.lab.publish import hub_folder
from entprop_fast.lab.training.deploy import NetworkSpec
from tests.lab.publish.conftest import CLASSES, SIDE, images_in, settled
from tests.lab.publish.test_deployed_network import Own

FILES = {"config.json", "model.safetensors", "README.md"}


def test_of_a_run(photo_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "model"
    entprop_fast.save_pretrained(photo_run, folder)
    assert {one.name for one in folder.iterdir()} == FILES
    network, spec = entprop_fast.from_pretrained(folder)
    expected, same = entprop_fast.load(photo_run)
    images = torch.rand(2, 3, SIDE, SIDE)
    assert network(images).equal(expected(images))
    assert spec == replace(same, dataset="folder:photos")  # whose home it lies in, is private
    assert not any(b"/home" in one.read_bytes() for one in folder.iterdir())
    assert not network.training and "91.2 %" in (folder / "README.md").read_text()
    assert entprop_fast.load(folder)[1] == spec
    with pytest.raises(ValueError, match="already holds config"):
        entprop_fast.save_pretrained(photo_run, folder)
    entprop_fast.save_pretrained(photo_run, folder, overwrite=True)


def test_of_a_network(spec: NetworkSpec, tmp_path: Path) -> None:
    """A dual one is stripped, in the file alone; the card says that nothing was measured."""
    dual = entprop_fast.convert_dual_norm(settled(spec.build(), 3, SIDE, SIDE))
    entprop_fast.save_pretrained(dual, tmp_path, spec)
    network, found = entprop_fast.from_pretrained(tmp_path)
    assert any("aux_bn" in name for name in dual.state_dict())
    assert found == replace(spec, dataset="folder:photos")
    assert not any("aux_bn" in name for name in network.state_dict())
    images = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(network(images), dual(images))
    assert "unmeasured" in (tmp_path / "README.md").read_text()


def test_of_one_s_own_network(tmp_path: Path) -> None:
    spec = NetworkSpec(
        arch="", num_classes=3, in_channels=3, class_names=CLASSES, input_size=(5, 7)
    )
    own = settled(Own(), 3, 5, 7)
    entprop_fast.save_pretrained(own, tmp_path, spec)
    network, found = entprop_fast.from_pretrained(tmp_path, model=Own())
    images = torch.rand(2, 3, 5, 7)
    assert network(images).equal(own(images)) and found.classes == CLASSES
    with pytest.raises(ValueError, match="model="):
        entprop_fast.from_pretrained(tmp_path)


@pytest.mark.filterwarnings("ignore:torchvision:RuntimeWarning")
@pytest.mark.parametrize(
    ("arch", "channels", "normalize"),
    [
        ("timm:vit_tiny_patch16_224,img_size=32,depth=1,embed_dim=24,num_heads=2", 1, "none"),
        ("timm:resnet10t.c3_in1k", 3, "half"),
    ],
)
def test_timm_loads_its_own(
    arch: str, channels: int, normalize: str, photos: Path, tmp_path: Path
) -> None:
    """Network, weights and preprocessing, from the folder alone."""
    spec = NetworkSpec(
        arch=arch,
        num_classes=3,
        in_channels=channels,
        image_size=32,
        normalize=normalize,
        class_names=CLASSES,
    )
    network = settled(spec.build(), channels, 32, 32)
    entprop_fast.save_pretrained(network, tmp_path, spec)
    theirs: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    settings: Any = resolve_data_config
    transform = create_transform(**settings(model=theirs))
    assert tuple(theirs.pretrained_cfg["label_names"]) == CLASSES
    for file in images_in(photos):
        image = Image.open(file).convert(spec.preprocessing.mode)
        found = theirs(transform(image)[None])
        expected = network(spec.preprocessing(file)[None])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [224, 443])  # 443 / (443 / 506) is below 506
def test_timm_resizes_as_we_do(side: int, photos: Path) -> None:
    spec = NetworkSpec(arch="timm:resnet18", num_classes=3, in_channels=3, image_size=side)
    config = hub_folder.timm_config(nn.Identity(), spec)
    settings: Any = resolve_data_config
    transform = create_transform(**settings(pretrained_cfg=config["pretrained_cfg"]))
    for file in (photos / "wide.jpg", photos / "deeper" / "tall.png"):
        found = transform(Image.open(file).convert("RGB"))
        torch.testing.assert_close(found, spec.preprocessing(file))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"id2label": {"0": "a"}}'),
        ("model.safetensors", b"x" * 20),
    ],
)
def test_damaged_folders(name: str, changed: bytes, photo_run: Path, tmp_path: Path) -> None:
    entprop_fast.save_pretrained(photo_run, tmp_path)
    (tmp_path / name).write_bytes(changed)
    with pytest.raises(ValueError, match=str(tmp_path)):
        entprop_fast.from_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        entprop_fast.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "labels", [{"0": "a", "2": "b"}, [], ["a", "b", "c"], {"0": "a", "x": "b"}]
)
def test_labels_with_a_gap(labels: Any, photo_run: Path, tmp_path: Path) -> None:
    entprop_fast.save_pretrained(photo_run, tmp_path)
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": labels}))
    with pytest.raises(ValueError, match="id2label: expected"):
        entprop_fast.from_pretrained(tmp_path)


def test_other_labels_than_outputs(photo_run: Path, tmp_path: Path) -> None:
    entprop_fast.save_pretrained(photo_run, tmp_path)
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["3"] = "one more"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="class_names"):
        entprop_fast.from_pretrained(tmp_path)


def test_refusals(spec: NetworkSpec, photo_run: Path, tmp_path: Path) -> None:
    network = spec.build()
    out = tmp_path / "new"
    for source, given, named in (
        (network, None, "spec"),
        (photo_run, spec, "spec"),
        (network, replace(spec, normalize="none"), "normalize"),
        (nn.Linear(1, 1), spec, "normalize"),
    ):
        with pytest.raises(ValueError, match=named):
            entprop_fast.save_pretrained(source, out, given)
    with pytest.raises(FileNotFoundError, match="somebody/model"):
        entprop_fast.from_pretrained("somebody/model")
    assert not out.exists()
