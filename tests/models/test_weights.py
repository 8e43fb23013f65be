"""Starting from weights: files of both kinds, published ones from the libraries' own caches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize

from entprop_fast import models
from entprop_fast.lab.training.deploy import NetworkSpec, load_deployable, save_deployable
from entprop_fast.models.normalized import Normalized
from entprop_fast.models.weights import load_weights, read_weights

State = dict[str, Tensor]


def network(classes: int, seed: int, arch: str = "wrn10_0.5") -> nn.Module:
    torch.manual_seed(seed)
    return models.create(arch, num_classes=classes)


def into(model: nn.Module, source: object, classes: int, arch: str = "wrn10_0.5") -> list[str]:
    return load_weights(model, str(source), arch, num_classes=classes, in_channels=3)


WRITERS: dict[str, Any] = {
    "plain.safetensors": safetensors.torch.save_file,
    "plain.pth": torch.save,
    "lightning.ckpt": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "mae.pth": lambda state, path: torch.save({"model": state}, path),
    "ddp.pt": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_tensor_comes_from_the_file(name: str, tmp_path: Path) -> None:
    source, target = network(5, 0).state_dict(), network(5, 1)
    WRITERS[name](source, tmp_path / name)
    assert into(target, tmp_path / name, 5) == []
    for key, value in target.state_dict().items():
        assert torch.equal(value, source[key]), key


def test_a_classifier_for_other_classes_stays_fresh(tmp_path: Path) -> None:
    source, target = network(7, 0).state_dict(), network(5, 1)
    fresh = {key: value.clone() for key, value in target.get_submodule("fc").state_dict().items()}
    torch.save(source | {"decoder.weight": torch.zeros(2)}, tmp_path / "w.pt")
    assert into(target, tmp_path / "w.pt", 5) == [
        "classifier fc starts fresh: theirs has 7 classes, this data set 5",
        f"not used of {tmp_path / 'w.pt'}: decoder.weight",
    ]
    for key, value in target.state_dict().items():
        truth = fresh[key[3:]] if key.startswith("fc.") else source[key]
        assert torch.equal(value, truth), key
    torch.save({k: v for k, v in source.items() if not k.startswith("fc.")}, tmp_path / "w.pt")
    assert into(target, tmp_path / "w.pt", 5) == ["classifier fc starts fresh: they have none"]
    assert into(target, "random", 5) == []
    assert all(torch.equal(value, fresh[key]) for key, value in target.fc.state_dict().items())


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


def test_unusable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = network(5, 0).state_dict()
    torch.save(whole, "whole.pt")
    safetensors.torch.save_file(whole, "whole.safetensors")
    torch.save({"state_dict": {"fc.weight": Runs()}}, "runs.pt")
    for name in ("whole.pt", "whole.safetensors"):
        content = Path(name).read_bytes()
        Path(f"cut-{name}").write_bytes(content[: len(content) // 2])
    Path("text.pt").write_text("no weights")
    Path("empty.pt").touch()
    torch.save([1, 2], "list.pt")
    torch.save({"epoch": 3}, "other.pt")
    for name, reason in {
        "none.pt": "there is no such file, nor is it 'pretrained' or 'random'",
        "runs.pt": "no pickled code is run",
        "cut-whole.pt": "cannot be read|are damaged",
        "cut-whole.safetensors": "cannot be read",
        "text.pt": "cannot be read|are damaged",
        "empty.pt": "cannot be read|are damaged",
        "list.pt": "hold list, not a state dict",
        "other.pt": "'epoch' is no tensor",
    }.items():
        with pytest.raises(ValueError, match=rf"weights '{name}'.*({reason})"):
            read_weights(Path(name))
    assert not Path("ran").exists()


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(network(5, 0, "wrn10_1").state_dict(), tmp_path / "w.pt")
    target = network(5, 1)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    for kind in (torch.int8, torch.complex64, "meta"):  # FOUND C8: they were cast in silence
        torch.save(
            {k: v.to(kind) if v.is_floating_point() else v for k, v in before.items()},
            tmp_path / "other.pth",
        )
        with pytest.raises(ValueError, match=r"another network: .* is (torch|on no device)"):
            into(target, tmp_path / "other.pth", 5)
    with pytest.raises(ValueError, match=r"another network: conv1.weight is \[16, 3, 3, 3\], here"):
        into(target, tmp_path / "w.pt", 5)
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())
    small = models.create("resnet18", num_classes=5, stem="cifar")
    torch.save(models.create("resnet18", num_classes=5).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"here \[64, 3, 3, 3\]; .* 3x3 stem .* up to 64 pixels"):
        into(small, tmp_path / "w.pt", 5)
    torch.save({"conv1.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"layer1\.0.* is missing, .* and \d+ more"):
        into(target, tmp_path / "w.pt", 5)


@pytest.mark.parametrize("arch", ["resnet18", "torchvision:resnet18"])
def test_torchvisions_published_weights(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    state = torchvision.models.resnet18().state_dict()
    cached = tmp_path / "hub" / "checkpoints"
    cached.mkdir(parents=True)
    torch.save(state, cached / "resnet18-f37072fd.pth")  # as torch.hub names the download
    target = network(5, 1, arch)
    (note,) = into(target, "pretrained", 5, arch)
    assert note == "classifier fc starts fresh: theirs has 1000 classes, this data set 5"
    taken = target.state_dict()
    assert all(torch.equal(taken[k], v) for k, v in state.items() if not k.startswith("fc."))
    with pytest.raises(ValueError, match="unknown weights of 'resnet18' 'IMAGENET1K_V7'"):
        into(target, "pretrained:IMAGENET1K_V7", 5, arch)
    torch.save({"conv1.weight": Runs()}, cached / "resnet18-f37072fd.pth")
    with pytest.raises(ValueError, match="cannot be fetched or read here"):
        into(target, "pretrained", 5, arch)
    assert not Path("ran").exists()


def test_timms_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    state = timm.create_model("resnet18").state_dict()
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(state, file)
    config = timm.models.get_pretrained_cfg("resnet18")
    assert config is not None
    monkeypatch.setattr(config, "file", str(file))  # where a download would have put it
    monkeypatch.setattr("timm.models._builder.resolve_pretrained_cfg", lambda *_, **__: config)
    target = network(5, 1, "timm:resnet18")
    for arch, source in (("wrn10_0.5", "pretrained"), ("timm:resnet18", "pretrained:a1_in1k")):
        with pytest.raises(ValueError, match=arch):  # nobody publishes them under this name
            into(target, source, 5, arch)
    (note,) = into(target, "pretrained", 5, "timm:resnet18")
    assert note.startswith("classifier fc starts fresh: theirs has 1000 classes")
    taken = target.state_dict()
    assert all(torch.equal(taken[k], v) for k, v in state.items() if not k.startswith("fc."))


@pytest.mark.parametrize("arch", ["resnet18", "timm:resnet18"])
def test_without_a_network_the_message_names_the_way_out(
    arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", unreachable)
    with pytest.raises(
        ValueError, match=r"cannot be fetched or read here \(no route.*--weights FILE"
    ):
        into(network(5, 1, arch), "pretrained", 5, arch)


def test_a_dual_network_starts_from_the_weights_in_both_halves(tmp_path: Path) -> None:
    source = network(3, 0)
    with torch.no_grad():
        for module in source.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_()  # type: ignore[union-attr]
    torch.save(source.state_dict(), tmp_path / "w.pt")
    spec = NetworkSpec("wrn10_0.5", 3, 3, "imagenet", "cub", 0, 32, "imagenet")
    model = spec.build_for("entprop", {}, weights=str(tmp_path / "w.pt"))
    state = model.state_dict()
    for key, value in source.state_dict().items():
        assert torch.equal(state[f"network.{key}"], value)
        aux = f"network.{key.rpartition('.')[0]}.aux_bn.{key.rpartition('.')[2]}"
        if aux in state:
            assert torch.equal(state[aux], value)
    assert any(".aux_bn." in key for key in state)


def test_a_normalised_network_takes_images_in_0_1_and_saves_plain_keys(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = NetworkSpec("resnet18", 3, 3, "imagenet", "cub", 0, 32, "imagenet")
    model = spec.build().eval()
    assert isinstance(model, Normalized)
    save_deployable(tmp_path / "model.safetensors", model, spec)
    plain = torchvision.models.resnet18(num_classes=3)
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    images = torch.rand(2, 3, 64, 64)
    seen = normalize(images, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    loaded, found = load_deployable(tmp_path / "model.safetensors")
    assert found == spec
    with torch.no_grad():
        truth = plain.eval()(seen)
        torch.testing.assert_close(model(images), truth)
        assert torch.equal(loaded.eval()(images), model(images))
