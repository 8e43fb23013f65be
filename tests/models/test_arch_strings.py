"""FOUND S1: what follows a network's name may come out of a file, and must load none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from entprop_fast import models
from entprop_fast.lab import checkpoint
from entprop_fast.lab.cli import compare, evaluate, train
from entprop_fast.lab.training.deploy import NetworkSpec, load_deployable

RAN = "ran"


class Runs:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {RAN}",)


REFUSED = {
    "checkpoint_path=x.pth": "checkpoint_path",
    "pretrained=True": "pretrained",
    "pretrained_cfg=x.pth": "pretrained_cfg",
    "cache_dir=.": "cache_dir",
    "features_only=True": "features_only",
    "scriptable=True": "scriptable",
    "num_classes=0": "num_classes",
    "in_chans=4": "in_chans",
    "kwargs_filter=x": "kwargs_filter",
    "Drop_rate=.1": "Drop_rate",
    "drop_rate=.1,drop_rate=.2": "drop_rate",
    "drop_rate=nan": "drop_rate",
    "img_size=8.5": "img_size",
    "img_size=99999999999999999999": "img_size",
    "qkv_bias=1": "qkv_bias",
    "act_layer=../x.pth": "act_layer",
    "act_layer=os.system": "act_layer",
    "global_pool=http://x": "global_pool",
}


@pytest.mark.parametrize("given", REFUSED)
def test_only_sizes_and_rates_pass(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND S1: refused before timm is called, in one line that names the key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm is called"))
    torch.save({"state_dict": Runs()}, "x.pth")
    with pytest.raises(ValueError) as refusal:
        models.create(f"timm:test_vit,{given}", num_classes=3)
    assert REFUSED[given] in str(refusal.value) and "\n" not in str(refusal.value)
    assert not Path(RAN).exists()


@pytest.mark.parametrize(
    "name",
    ["hf-hub:a/resnet18", "hf_hub:a/resnet18", "local-dir:/tmp/x", "/tmp/resnet18", "a/resnet18"],
)
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_name_is_no_address(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND S1: timm's names may be addresses of the Hub and folders."""
    monkeypatch.setattr(timm, "create_model", None)
    with pytest.raises(ValueError, match="unknown arch"):
        models.create(f"{library}:{name}", num_classes=3)
    with pytest.raises(ValueError, match="unknown arch"):
        models.create("torchvision:resnet18,weights=DEFAULT", num_classes=3)


def test_what_a_network_is_made_of_still_passes() -> None:
    given = "img_size=8,patch_size=2,depth=2,drop_rate=0.25,mlp_ratio=2,qkv_bias=False"
    names = "act_layer=relu,norm_layer=layernorm,global_pool=avg"
    model = models.create(f"timm:test_vit,{given},{names}", num_classes=3, in_channels=1)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    assert len(model.get_submodule("blocks")) == 2  # type: ignore[arg-type]
    assert isinstance(model.get_submodule("blocks.0.mlp.act"), torch.nn.ReLU)


EVIL = f"timm:test_vit,img_size=8,patch_size=2,checkpoint_path={RAN}.pth"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of version 0.1.0, beside a file that runs code when it is unpickled."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Runs()}, f"{RAN}.pth")
    source = Path(__file__).parents[1] / "checkpoints" / "0.1.0"
    return Path(shutil.copytree(source, tmp_path / "run"))


def in_metadata(run: Path) -> list[str]:
    path = run / "model.safetensors"
    _, spec = load_deployable(path)
    said = {"entprop_fast": json.dumps({**vars(spec), "arch": EVIL})}
    path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), said))
    return ["evaluate", str(path)]


def in_checkpoint(run: Path) -> list[str]:
    state = checkpoint.read(run / "checkpoint.pt")
    state["network"]["arch"] = EVIL
    checkpoint.save(run, state)
    return ["evaluate", str(run)]


def in_recipe(run: Path) -> list[str]:
    text = (run / "config.toml").read_text().replace("wrn10_0.01", EVIL)
    Path("evil.toml").write_text(text)
    return ["train", "--recipe", "evil.toml", "--out", "new"]


def in_config(run: Path) -> list[str]:
    in_recipe(run)
    shutil.copy("evil.toml", run / "config.toml")
    return ["train", "--resume", "--out", str(run)]


def in_comparison(run: Path) -> list[str]:
    in_recipe(run)
    return ["compare", "--recipe", "evil.toml", "--methods", "vanilla", "--out", "new"]


@pytest.mark.parametrize("plant", [in_metadata, in_checkpoint, in_recipe, in_config, in_comparison])
def test_a_string_in_a_file_runs_nothing(
    plant: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND S1: evaluate, train and compare on files of somebody else's."""
    name, *arguments = plant(run)
    command = {"evaluate": evaluate, "train": train, "compare": compare}[name]
    assert command.main([*arguments, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "checkpoint_path" in error or "arch is" in error  # not the arch of the checkpoint
    assert not Path(RAN).exists() and not Path("new").exists()


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"arch": 3}, TypeError),
        ({"num_classes": "ten"}, TypeError),
        ({"num_classes": True}, TypeError),
        ({"num_classes": 2**40}, ValueError),
        ({"image_size": 1.5}, TypeError),
        ({"stem": "os"}, ValueError),
        ({"normalize": "os.system"}, ValueError),
        ({"more": 1}, TypeError),
        ({"arch": None}, TypeError),
        ({"arch": "wrn600004_1"}, ValueError),
    ],
)
def test_a_description_of_a_network_is_checked(
    changed: dict[str, Any], error: type[Exception]
) -> None:
    """FOUND S1: every field of the record is of its type; there is no other."""
    good = vars(NetworkSpec("wrn10_0.01", 3, 3, "imagenet", "digits", 0))
    assert NetworkSpec.of(good).arch == "wrn10_0.01"
    (word,) = changed
    with pytest.raises(error, match="depth" if changed[word] == "wrn600004_1" else word):
        NetworkSpec.of({**good, **changed}).build()
    with pytest.raises(ValueError, match="table"):
        NetworkSpec.of([good])
