"""What is exported answers as the network does, says what it is, and replaces nothing unasked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import entprop_fast
from entprop_fast.lab.cli import export
from entprop_fast.lab.publish import export_run, onnx_model, programs, same_logits
from entprop_fast.lab.training.deploy import NetworkSpec, save_deployable
from entprop_fast.lab.training.errors import RunFailed
from tests.lab.conftest import Call
from tests.lab.publish.conftest import CLASSES, SIDE, settled

KINDS = {
    "wrn10_1": (8, 3, 7),
    "timm:tf_efficientnet_lite0,act_layer=relu": (32, 49, 49),
    "timm:vit_tiny_patch16_224,img_size=32,depth=1,embed_dim=48,num_heads=3": (32, 0, 0),
}


@pytest.mark.parametrize("arch", KINDS)
@pytest.mark.filterwarnings("ignore:torchvision:RuntimeWarning")
def test_onnx_gives_the_network_s_logits(arch: str) -> None:
    """A wide ResNet, an EfficientNet and a ViT, to 1e-5 of the largest logit, for any batch."""
    side, folded, norms = KINDS[arch]
    spec = NetworkSpec(arch, 5, 3, "imagenet", "x", 0)
    network = settled(spec.build(), 3, side, side)
    program = programs.record(network, torch.rand(2, 3, side, side))
    assert program.norms == (folded, norms)
    model = onnx.load_from_string(onnx_model.onnx_bytes(program, {"classes": ["a"]}))
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    kinds = {node.op_type for node in model.graph.node}
    assert ("BatchNormalization" in kinds) == (folded < norms)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    with torch.no_grad():
        for rows in (1, 5):
            images = torch.rand(rows, 3, side, side)
            expected = network.double()(images.double())
            (found,) = session.run(["logits"], {"images": images.numpy()})
            error = np.abs(found - expected.numpy()).max() / expected.abs().max()
            assert error < 1e-5


def test_the_folder_of_an_export(exported: Path, photo_run: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    assert {one.name for one in exported.iterdir()} == set(export_run.FILES)
    assert set(manifest["files"]) == set(export_run.FILES) - {"manifest.json"}
    for name, about in manifest["files"].items():
        data = (exported / name).read_bytes()
        assert about["sha256"] == hashlib.sha256(data).hexdigest() and about["bytes"] == len(data)
        assert b"/home/somebody" not in data and os.fsencode(Path.cwd()) not in data, name
    assert manifest["network"]["dataset"] == "folder:photos"
    assert manifest["classes"] == list(CLASSES)
    assert manifest["preprocessing"]["resize"] == [18, 18]
    for name in ("model.pt2", "model.onnx"):
        assert manifest["files"][name]["batch_norms_folded"] == 3
        assert manifest["files"][name]["largest_difference"] < 1e-5
    assert manifest["files"]["model.onnx"]["opset"] == 18
    assert {"torch", "onnx", "onnxruntime", "entprop_fast"} <= manifest["versions"].keys()
    model = onnx.load(exported / "model.onnx")
    (shape,) = (one.type.tensor_type.shape.dim for one in model.graph.input)
    assert [one.dim_param or one.dim_value for one in shape] == ["batch", 3, SIDE, SIDE]
    assert not any(one.metadata_props for one in model.graph.node)  # for the exporter's developers
    noted = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert noted["classes"] == list(CLASSES)
    assert noted["preprocessing"] == manifest["preprocessing"]


def test_the_torch_program_and_the_weights(exported: Path, photo_run: Path) -> None:
    network, _ = entprop_fast.load(photo_run)
    images = torch.rand(3, 3, SIDE, SIDE)
    program = torch.export.load(exported / "model.pt2").module()
    torch.testing.assert_close(program(images), network(images), rtol=1e-5, atol=1e-5)
    again, spec = entprop_fast.load(exported)
    assert again(images).equal(network(images)) and spec.dataset == "folder:photos"


def test_only_what_is_asked_for(photo_run: Path, call: Call, tmp_path: Path) -> None:
    out = tmp_path / "export"
    words = [str(photo_run), "--out", str(out), "--to"]
    call(export, [*words, "safetensors,model-card,safetensors"])
    assert {one.name for one in out.iterdir()} == {
        *("config.json", "model.safetensors", "README.md", "manifest.json")
    }
    assert "config.json" in call(export, [*words, "safetensors"], 2)
    (out / "README.md").unlink()
    (out / "README.md").symlink_to(tmp_path / "elsewhere")
    (out / "mine.txt").write_text("kept")
    call(export, [*words, "safetensors", "--overwrite"])  # the card was an earlier export's
    assert {one.name for one in out.iterdir()} == {
        *("config.json", "model.safetensors", "manifest.json", "mine.txt")
    }
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_is_left_of_what_differs(
    photo_run: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong by a part in 30000."""
    network, _ = entprop_fast.load(photo_run)
    program = programs.record(network, torch.rand(2, 3, SIDE, SIDE))
    weights = program.exported.state_dict
    (name,) = (name for name in weights if name.endswith("fc.weight"))
    weights[name] = nn.Parameter(weights[name] * (1 + 3e-5))
    monkeypatch.setattr(export_run, "record", lambda *_: program)
    out = tmp_path / "export"
    for form, file in (("torch", "model.pt2"), ("onnx", "model.onnx")):
        words = [str(photo_run), "--out", str(out), "--to", f"safetensors,{form}"]
        assert f"{file} differs" in call(export, words, 1)
    assert not out.exists()


def test_other_logits_are_refused(spec: NetworkSpec) -> None:
    network = settled(spec.build(), 3, SIDE, SIDE)
    shape = (3, SIDE, SIDE)
    for wrong in (
        lambda images: network(images)[:, :2],
        lambda images: network(images) * float("nan"),
        lambda images: network(images) + 1e-3,
    ):
        with torch.no_grad(), pytest.raises(RunFailed, match="it"):
            same_logits.largest_difference(network, wrong, shape, "it")
    assert same_logits.largest_difference(network, network, shape, "it") == 0


REFUSED = {
    "--to onnx,pickle": "'pickle'",
    "--to ,": "--to",
    "--out RUN": "RUN",
    "--threads 0": "threads",
    "--format onnx": "--format",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused_words(words: str, photo_run: Path, call: Call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    (run / "model.safetensors").symlink_to(photo_run / "model.safetensors")
    said = call(export, [str(run), *words.replace("RUN", str(run)).split()], 2)
    assert REFUSED[words].replace("RUN", str(run)) in said
    assert {one.name for one in run.iterdir()} == {"config.toml", "model.safetensors"}


def test_refused_runs_and_folders(photo_run: Path, call: Call, tmp_path: Path) -> None:
    assert "nowhere" in call(export, ["nowhere"], 2)
    assert "RUN is missing" in call(export, [], 2)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes((photo_run / "model.safetensors").read_bytes())
    (run / "export").symlink_to(tmp_path)  # the default folder, planted
    assert "link" in call(export, [str(run), "--to", "safetensors"], 1)
    assert {one.name for one in tmp_path.iterdir()} == {"run"}


def test_images_of_no_file(tmp_path: Path) -> None:
    """A caller's network for two channels: all but a script that reads image files."""
    spec = NetworkSpec("model:Sequential", 2, 2, input_size=(4, 6))

    def own() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    save_deployable(tmp_path / "model.safetensors", own(), spec)
    said: list[str] = []
    files = export_run.export_run(tmp_path, ["onnx"], said.append, model=own())
    assert files.keys() == {"model.onnx", "manifest.json"}
    assert any("classify.py" in line and "2 channels" in line for line in said)
