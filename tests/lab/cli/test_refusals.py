"""Every refusal is one line on stderr with exit code 2, names what it refuses, leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli import compare, corrupt, data, evaluate, report, study, train
from tests.lab.conftest import Args, Call

pytestmark = pytest.mark.usefixtures("without_pictures")

Refused = Callable[[Any, list[str], str], None]


@pytest.fixture
def refused(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Check that a command refuses these words, names this, and leaves nothing where it is."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def refused(command: Any, words: list[str], named: str) -> None:
        assert named in call(command, words, 2)
        assert not list(here.iterdir())

    return refused


# What is typed after `tiny`, to what the line must name.
TRAIN = {
    "--arch wrm10_0.5": "arch 'wrm10_0.5'",
    "--arch wrn11_1": "depth",
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
    "--recipe digitz": "nearest: digits",
    "--recipe missing.toml": "missing.toml",
    "--recipe digits --weights /etc/passwd": "weights '/etc/passwd'",
    "--recipe digits --weights /dev/null": "weights '/dev/null'",
    "--recipe digits --weights .": "weights '.'",
    "--score entrop": "score",
    "--amp fp16": "loss scaling",
    "--time 20": "--time='20'",
    "--log foo": "unknown --log 'foo'",
    "--patience 3": "--patience=3",
    "--accumulate 0": "--accumulate=0",
    "--accumulate 2.5": "a whole number N",
    "--accumulate-batches 0": "--accumulate-batches=0",
    "--method free_at --accumulate 2": "--accumulate=2",
    "--capture on": "capture='on': the model is on cpu",
    **{f"--k {value}": "k=" for value in ("0", "1.5")},
    "--eps -0.1": "eps=-0.1",
    "--eps 1e99": "eps",
    "--alpha -4/255": "alpha=-0.01",
    "--alpha 1": "alpha=1",
    "--mixup -1": "mixup=-1",
    "--aux-weight 0": "--aux-weight",
    **{f"--batch-size {one}": "--batch-size" for one in ("0", "9" * 20)},
    "--batch-size 1": "B=1",
    "--batch-size 41": "--batch-size = 41",
    "--train-size 5": "--train-size = 5",
    "--train-size 1298": "1297",
    **{f"--epochs {one}": "--epochs" for one in ("1.5", "", "2147483648", "--out x", "-x")},
    **{f"--lr {one}": "--lr" for one in ("fast", "1e308", "3e38", "inf", "1/0")},
    **{f"--seed {one}": "--seed" for one in ("-1", "4294967297")},
    **{f"--threads {one}": "threads" for one in ("0", "9" * 20)},
    "--workers -1": "--workers",
    "--device mps": "MPS",  # FOUND C17, C8
    "--device xpu:1": "XPU",
    "--device cuda:99": "CUDA",
    **{f"--device {one}": "device" for one in ("gpu", "cpu:1", "meta", "cuda:-1", "xla:0")},
    "--corruptions official": "no such set of digits",
    "--method vanilla --k 0.2": "'vanilla' has no option 'k'",
    "--method entprop_pipelined --n 2": "'entprop_pipelined' has no option 'n'",
    "--cutmix 1": "mixup=1",
    "--attack-loss trades": "n=2",
    "--method advprop --attack-loss trades --no-random-start": "random_start=True",
    "--method advprop --score margin": "score='margin'",
    "--method advprop --criterion gpaco --attack-loss cw": "attack_loss='ce'",
    "--criterion gpoca": "nearest: gpaco",
    "--resume --overwrite": "--overwrite",
    "--epoch 3": "nearest: --epochs",
    "stray": "'stray'",
    "--drop-last=x": "'x'",
}
SET = "--dataset digits --out set"
# A command, its words, and what the line must name; RUN is a finished run.
OTHERS: list[tuple[Any, str, str]] = [
    (evaluate, "RUN --threads 5000", "threads"),
    (evaluate, "RUN/model.safetensors --norms aux", "--norms"),
    (evaluate, "RUN --norms auxx", "nearest: aux"),
    (evaluate, "RUN --batch-size 0", "--batch-size"),
    (evaluate, "RUN --workers -1", "--workers"),
    (evaluate, "RUN --pgd -1", "--pgd"),
    (evaluate, f"RUN --batch-size {10**30}", "--batch-size"),
    (evaluate, "RUN --device mps", "MPS"),
    (evaluate, "RUN --eps 4/255", "--autoattack"),
    (evaluate, "RUN --pgd 1 --eps 1e99", "--eps"),
    (evaluate, "RUN --autoattack --alpha 1/255", "--pgd"),
    (evaluate, "RUN --also imagenet-b", "--also"),
    (evaluate, "RUN --scale cifar", "nearest: cifar-c"),
    (evaluate, "RUN --out nowhere/x.json", "nowhere"),
    (evaluate, "\udcff", "UTF-8"),
    (evaluate, "", "CHECKPOINT"),
    (evaluate, "nothing", "nothing"),
    (evaluate, "RUN/..", "holds neither"),
    (report, "", "RUN"),
    (report, "nothing", "nothing"),
    (report, "RUN/..", "holds none of"),
    (report, "RUN/config.toml", "is a file"),
    (report, "RUN RUN/.", "twice"),
    (report, "RUN --images -1", "--images"),
    (report, "RUN --model mine:net", "--model"),
    (report, "RUN --data mine:images", "--data"),
    (report, "RUN --batch-size 0", "--batch-size"),
    (report, "RUN --device mps", "MPS"),
    (report, "RUN --workers -1", "--workers"),
    (report, "RUN --out RUN", "is a folder"),
    (report, "RUN --out RUN/config.toml", "--out"),
    (report, "RUN --out nowhere/report.html", "nowhere"),
    (corrupt, f"{SET} --threads 0", "threads"),
    (corrupt, f"{SET} --batch-size 0", "--batch-size"),
    (corrupt, f"{SET} --device xpu:7", "XPU"),
    (corrupt, f"{SET} --kinds fogg", "nearest: fog"),
    (corrupt, f"{SET} --resume --overwrite", "--overwrite"),
    (corrupt, "--dataset digits", "--out"),
    (compare, "", "--methods"),
    (compare, "--methods vanilla --out \0", "null character"),
    (compare, "--methods vanilla --budget steps", "--budget"),
    (compare, "--methods vanilla --seeds 1 x", "--seeds"),
    (compare, "--methods vanilla --seed 1", "nearest: --seeds"),
    (compare, "--methods vanilla --jobs 0", "--jobs"),
    (compare, "--methods vanilla --seeds --jobs 1", "--seeds: a value is missing: INT ..."),
    (compare, "--methods --seeds 1", "--methods: a value is missing: STR ..."),
    (corrupt, f"{SET} --kinds", "--kinds: a value is missing: STR ..."),
    (data, "", "no command: python -m entprop_fast.data check folder:"),  # FOUND C16
    (data, "check", "no data set: python -m entprop_fast.data"),
    (study, "", "NAME is missing: python -m entprop_fast."),
    (study, "score --workers 0", "--workers"),
    (study, "ratios", "nearest: ratio"),
    (study, f"score --epochs {2**33}", "--epochs"),
    (study, "score --seeds 1 1", "--seeds"),
    (study, "ratio --archs", "--archs"),
    (study, "steps --corruptions x", "--corruptions"),
    # The system refuses such a folder, as it does one of somebody else's, but for root.
    *((command, f"{words} --out {'long' * 80}", "long" * 80) for command, words in (
        (train, ""), (compare, "--methods vanilla"), (study, "score"),
    )),
]  # fmt: skip


@pytest.mark.parametrize("words", TRAIN)
def test_train(words: str, tiny: Args, refused: Refused) -> None:
    """FOUND C8."""
    refused(train, tiny(Path("new/run"), *words.split(" ")), TRAIN[words])


@pytest.mark.parametrize(("command", "words", "named"), OTHERS)
def test_others(command: Any, words: str, named: str, finished: Path, refused: Refused) -> None:
    refused(command, words.replace("RUN", str(finished)).split(), named)


@pytest.mark.parametrize(
    ("command", "words", "named"),
    [
        *((compare, "", "WORLD_SIZE=2: "), (study, "score", "WORLD_SIZE=2: ")),
        *((train, "", "RANK is not set"), (evaluate, "run", "RANK is not set")),
    ],
)
def test_one_of_several_processes(
    command: Any, words: str, named: str, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    """As torchrun starts them, or with a part of its environment: before anything is read."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(command, words.split(), named)
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun --nproc-per-node 1
    refused(command, ["--no-such-flag"], "--no-such-flag")


@pytest.mark.parametrize("name", ["", "run"])
def test_a_file_in_the_way(name: str, tiny: Args, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(train, tiny(tmp_path / "file" / name), "file")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("name", ["summary.json/report", "metrics.jsonl", "config.toml/x.json", ""])
def test_evaluate_refuses_before_it_works(
    name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.setattr(evaluate, "evaluate_model", None)
    (tmp_path / "folder.json").mkdir()
    out = finished / name if name else tmp_path / "folder.json"
    before = sorted(finished.iterdir())
    refused(evaluate, [str(finished), "--out", str(out)], str(out.parent))
    assert sorted(finished.iterdir()) == before
