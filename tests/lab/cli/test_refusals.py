"""Every refusal is one line on stderr with exit code 2, names what it refuses, leaves nothing."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from entprop_fast.lab.cli import compare, corrupt, evaluate, study, train
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")

# What is typed after `tiny`, to what the line must name.
TRAIN = {
    "--arch wrm10_0.5": "arch 'wrm10_0.5'",
    "--arch wrn11_1": "depth",
    "--arch resnet19": "nearest: resnet18",
    "--arch wrn10_\0": "null character",
    "--arch torchvision:squeezenet1_0": "norm layer",
    "--arch torchvision:vit_b_16": "images",
    "--arch wrn600004_1": "depth",
    "--arch timm:resnet18,checkpoint_path=/etc/passwd": "checkpoint_path",
    "--arch resnet18 --batch-size 5": "m=1",
    "--dataset digit": "nearest: digits",
    "--dataset folder:/tmp/\udcff": "UTF-8",
    "--data-dir /tmp": "--data-dir",
    "--out /tmp/\udcff": "UTF-8",
    "--method entprp": "nearest: entprop",
    "--recipe digitz": "nearest: digits",
    "--recipe missing.toml": "missing.toml",
    "--recipe digits --weights /etc/passwd": "weights '/etc/passwd'",
    "--recipe digits --weights /dev/null": "weights '/dev/null'",
    "--recipe digits --weights .": "weights '.'",
    "--score entrop": "score",
    "--optimizer sdg": "nearest: sgd",
    "--amp fp16": "loss scaling",
    "--amp bf17": "nearest: bf16",
    **{f"--k {value}": "k=" for value in ("0", "1.5", "-0.2")},
    "--n 0": "n=0",
    "--eps -0.1": "eps=-0.1",
    "--eps 1e99": "eps",
    "--alpha -4/255": "alpha=-0.01",
    "--alpha 1": "alpha=1",
    "--mixup -1": "mixup=-1",
    "--aux-weight 0": "aux_weight=0",
    **{f"--batch-size {one}": "--batch-size" for one in ("0", "2147483648", "9" * 20)},
    "--batch-size 1": "B=1",
    "--batch-size 41": "batch_size = 41",
    "--train-size 5": "train_size = 5",
    "--train-size 1298": "1297",
    **{f"--epochs {one}": "--epochs" for one in ("0", "1.5", "", "2147483648", "--out x", "-x")},
    "--epochs": "--epochs",
    **{f"--lr {one}": "--lr" for one in ("0", "fast", "1e308", "3e38", "inf", "nan", "1/0")},
    "--weight-decay 1e300": "--weight-decay",
    "--momentum 0": "momentum",
    **{f"--seed {one}": "--seed" for one in ("-1", "4294967297")},
    **{f"--threads {one}": "threads" for one in ("0", "100000", "9" * 20)},
    **{f"--workers {one}": "--workers" for one in ("-1", "100000")},
    "--device mps": "MPS",  # FOUND C17, C8
    "--device xpu:1": "XPU",
    "--device cuda:99": "CUDA",
    **{f"--device {one}": "device" for one in ("gpu", "cpu:1", "meta", "cuda:-1", "xla:0")},
    "--augment crop_flip": "nearest: crop-flip",
    "--loader disk": "--loader",
    "--normalize cifar": "--normalize",
    "--image-size 0": "--image-size",
    "--corruptions offical": "nearest: official",
    "--corruptions official": "no such set of digits",
    "--method vanilla --k 0.2": "'k'",
    "--method mixup --score margin": "'score'",
    "--resume --overwrite": "--overwrite",
    "--epoch 3": "nearest: --epochs",
    "stray": "'stray'",
    "--drop-last=x": "'x'",
}
EVALUATE = {
    "--norms auxx": "nearest: aux",
    "--dataset digit": "nearest: digits",
    "--batch-size 0": "batch_size",
    f"--batch-size {10**30}": "--batch-size",
    **{f"--threads {one}": "threads" for one in ("0", "-1", "5000")},
    "--workers -1": "--workers",
    "--device mps": "MPS",
    "--eps 4/255": "--autoattack",
    "--pgd 1 --eps 1e99": "--eps",
    "--pgd -1": "--pgd",
    "--autoattack --alpha 1/255": "--pgd",
    "--also imagenet-b": "--also",
    "--scale cifar": "nearest: cifar-c",
    "--out nowhere/x.json": "nowhere",
    "\udcff": "UTF-8",
}
CORRUPT = {
    "--device xpu:7": "XPU",
    "--batch-size 0": "--batch-size",
    "--scale cifar": "nearest: cifar-c",
    "--kinds fogg": "nearest: fog",
    "--resume --overwrite": "--overwrite",
    **{f"--threads {one}": "threads" for one in ("0", "-1")},
}
OTHERS = [
    (evaluate, "", "CHECKPOINT"),
    (evaluate, "nothing", "nothing"),
    (corrupt, "--dataset digits", "--out"),
    (compare, "", "--methods"),
    (compare, "--methods vanilla --out \0", "null character"),
    (compare, "--methods vanilla --budget steps", "--budget"),
    (compare, "--methods vanilla --seeds 1 x", "--seeds"),
    (compare, "--methods vanilla --seed 1", "nearest: --seeds"),
    (compare, "--methods vanilla --jobs 0", "--jobs"),
    (study, "", "NAME"),
    (study, "ratios", "nearest: ratio"),
    (study, f"score --epochs {2**33}", "--epochs"),
    (study, "score --seeds 1 1", "--seeds"),
    (study, "ratio --archs", "--archs"),
    (study, "score --workers 0", "--workers"),
    (study, "steps --corruptions x", "--corruptions"),
]


def refused(
    command: types.ModuleType, words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert named in error and error.startswith("error: ") and error.count("\n") == 1, error


@pytest.mark.parametrize("words", TRAIN)
def test_train(words: str, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FOUND C8."""
    out = tmp_path / "new" / "run"
    refused(train, tiny(out, *words.split(" ")), TRAIN[words], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", EVALUATE)
def test_evaluate(words: str, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(evaluate, [str(finished), *words.split(" ")], EVALUATE[words], capsys)


@pytest.mark.parametrize("words", CORRUPT)
def test_corrupt(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--dataset", "digits", "--out", str(tmp_path / "set"), *words.split(" ")]
    refused(corrupt, given, CORRUPT[words], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "words", "named"), OTHERS)
def test_others(
    command: types.ModuleType,
    words: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(command, words.split(), named, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words"),
    [(train, ""), (compare, ""), (study, "score"), (evaluate, "run")],
)
def test_one_of_several_processes(
    command: types.ModuleType,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As torchrun starts them: before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(command, words.split(), "WORLD_SIZE=2: ", capsys)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun --nproc-per-node 1
    refused(command, ["--no-such-flag"], "--no-such-flag", capsys)


@pytest.mark.parametrize(
    ("command", "words"),
    [(train, ""), (compare, "--methods vanilla"), (study, "score")],
)
def test_a_folder_that_the_system_refuses(
    command: types.ModuleType, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it does for one within a folder of somebody else's, but for root."""
    out = tmp_path / ("long" * 80)
    refused(command, [*words.split(), "--out", str(out)], str(out), capsys)


@pytest.mark.parametrize("parent", [".", "run"])
def test_a_file_in_the_way(
    parent: str, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    refused(train, tiny(file / parent), "file", capsys)
    assert file.read_text() == "in the way"


def test_evaluate_refuses_what_is_no_network(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncated = tmp_path / "model.safetensors"
    truncated.write_bytes((finished / "model.safetensors").read_bytes()[:-100])
    refused(evaluate, [str(truncated)], str(truncated), capsys)
    refused(evaluate, [str(finished.parent)], str(finished.parent), capsys)
    refused(evaluate, [str(finished / "model.safetensors"), "--norms", "aux"], "--norms", capsys)


@pytest.mark.parametrize("name", ["summary.json/report", "metrics.jsonl", "config.toml/x.json", ""])
def test_evaluate_refuses_before_it_works(
    name: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluate, "evaluate_model", None)
    out = finished / name if name else tmp_path / "folder.json"
    if not name:
        out.mkdir()
    before = sorted(finished.iterdir())
    refused(evaluate, [str(finished), "--out", str(out)], str(out.parent), capsys)
    assert sorted(finished.iterdir()) == before
