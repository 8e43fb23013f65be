"""Check whole evaluations: of any module, by the command, side by side, cached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from entprop_fast import convert_dual_norm
from entprop_fast.lab.cli import evaluate
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    GENERATOR,
    common_corruption,
    to_bytes,
)
from entprop_fast.lab.data import to_float
from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.evaluation_tables import markdown
from tests.lab.evaluation.support import (
    Around,
    Brightness,
    by_another_generator,
    tiny_cifar,
    tiny_imagenet,
)

CLEAN = EvaluationOptions(corruptions="none")


def test_generated_corruptions_are_those_of_the_generator() -> None:
    data, model = tiny_cifar(count=4), Brightness(4)
    options = EvaluationOptions(corruptions="generated", extra=True, seed=3)
    found = evaluate_model(model, data, options, batch_size=3)
    images = to_float(data.test_images)
    for kind in (*COMMON_KINDS, *EXTRA_KINDS):
        group = found.corruptions if kind in COMMON_KINDS else found.extra
        for severity in SEVERITIES:
            made = to_float(to_bytes(common_corruption(images, kind, severity, seed=3)))
            right = (model(made).argmax(1) == data.test_labels).double().mean().item()
            assert group[kind][severity - 1] == pytest.approx(100 * right), (kind, severity)
    assert found.corruption_source.startswith("generated (CIFAR-C's strengths, seed 3")


def test_any_module_in_three_lines() -> None:
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 4
    model = Brightness(5).train()  # more logits than labels are fine
    report = evaluate_model(model, (images, labels), name="mine").markdown()
    assert "| mine | main |" in report and "| snow |" in report
    assert model.training and model.modes == {False}


def test_a_network_of_normalised_images() -> None:
    data, mean, std = (
        (torch.rand(6, 3, 8, 8), torch.arange(6) % 4),
        (0.4, 0.5, 0.6),
        (0.2, 0.3, 0.1),
    )
    given, spread = (torch.tensor(one).view(3, 1, 1) for one in (mean, std))
    network = Around(lambda x: x * spread + given)
    found = evaluate_model(network, data, CLEAN, normalization=(mean, std))
    assert found.sa == evaluate_model(Brightness(4), data, CLEAN).sa


def test_the_auxiliary_norms_are_measured_when_asked_for() -> None:
    model = convert_dual_norm(nn.Sequential(nn.BatchNorm2d(3), Brightness(4)))
    model[0].aux_bn.bias.data.fill_(9.0)  # type: ignore[union-attr, operator]
    data = tiny_cifar()
    options = replace(CLEAN, pgd=1)
    by_norms = [
        evaluate_model(model, data, replace(options, norms=norms)) for norms in ("main", "aux")
    ]
    assert by_norms[0].sa == pytest.approx(80) and by_norms[1].sa < 40
    assert by_norms[1].rows[1].accuracy < 40 < by_norms[0].rows[1].accuracy  # attacked as well
    assert [one.norms for one in by_norms] == ["main", "aux"]


def test_a_cache_is_used_for_the_same_images_only(tmp_path: Path) -> None:
    data, model, told = tiny_cifar(count=6), Brightness(4), list[str]()
    plain = evaluate_model(model, data, EvaluationOptions(corruptions="generated"))
    options = EvaluationOptions(corruptions="generated", cache_dir=tmp_path)
    for batch_size, written in ((4, True), (5, False)):
        told.clear()
        assert evaluate_model(model, data, options, batch_size=batch_size, say=told.append) == plain
        assert any("snow.npy" in line for line in told) == written
    evaluate_model(model, tiny_cifar(count=7), options)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("generator", [1, GENERATOR + 1, None])
def test_a_cache_that_is_another_or_was_not_finished_is_written_again(
    tmp_path: Path, generator: int | None
) -> None:
    """FOUND W14: images of two generators are never mixed; the first one did not name itself."""
    data, model, told = tiny_cifar(count=5), Brightness(4), list[str]()
    options = EvaluationOptions(corruptions="generated", cache_dir=tmp_path)
    plain = evaluate_model(model, data, options)
    (root,) = tmp_path.iterdir()
    marker = root / "entprop_fast.json"
    if generator is None:
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"complete": False}))
        (root / "fog.npy").unlink()
    else:
        by_another_generator(root, generator)
        np.save(root / "fog.npy", np.zeros_like(np.load(root / "fog.npy")))
    assert evaluate_model(model, data, options, say=told.append) == plain
    assert any("fog.npy" in line for line in told)
    assert json.loads(marker.read_text())["generator"] == GENERATOR


def test_a_kind_that_grey_images_cannot_have_is_refused_before_any_is_written(
    tmp_path: Path,
) -> None:
    grey = (torch.rand(3, 1, 8, 8), torch.arange(3))
    for cache in (None, tmp_path / "cache"):
        options = EvaluationOptions(corruptions="generated", extra=True, cache_dir=cache)
        with pytest.raises(ValueError, match="1 channels; saturate wants 3"):
            evaluate_model(Brightness(3), grey, options)
    assert not (tmp_path / "cache").exists()


def test_image_files_are_not_cached(tmp_path: Path) -> None:
    options = EvaluationOptions(corruptions="generated", cache_dir=tmp_path / "cache")
    data = tiny_imagenet(tmp_path)
    # As many as CUB has: 75 x 5,794 x 3 x 224 x 224 bytes
    large = replace(data, image_size=224, test=data.test.kept([0] * 5794))
    advice = r"imagenet is read from files.* 65\.4 GB .* --out DIR/imagenet-c --scale imagenet-c;"
    with pytest.raises(ValueError, match=f"cache_dir: {advice}"):
        evaluate_model(Brightness(4), large, options)


def test_networks_that_saw_different_images_are_not_compared_silently() -> None:
    data, found = tiny_cifar(count=4), []
    for seed in (0, 1):
        options = EvaluationOptions(corruptions="generated", seed=seed)
        found.append(evaluate_model(Brightness(4), data, options, name=f"{seed}"))
    fields = [one.as_dict() for one in found]
    assert "cannot be compared" in markdown(fields)
    assert "cannot be compared" not in markdown(fields[:1])


class Unread(Dataset[Any]):
    """Images that no refusal waits for."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("read")


DIGITS = replace(tiny_cifar(count=4), name="digits")
OF_OTHERS: tuple[dict[str, Any], ...] = ({"extra": True}, {"scale": "cifar-c"}, {"cache_dir": "c"})
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"norms": "auxx"}, {}, "norms 'auxx'; nearest: aux"),
    ({"norms": "aux"}, {}, "dual"),
    ({"corruptions": "offical"}, {}, "corruptions 'offical'; nearest: official"),
    ({"scale": "cifar"}, {}, "scale 'cifar'; nearest: cifar-c"),
    ({"also": ("imagenet-b",), "official_dir": "x"}, {}, "also 'imagenet-b'"),
    ({"also": ("imagenet-a",)}, {}, "also=.*official_dir"),
    ({"pgd": -1}, {}, "pgd=-1"),
    ({"eps": 0.0}, {}, "eps=0"),
    ({"eps": 1.1}, {}, "eps=1.1"),
    ({"alpha": 0.0}, {}, "alpha=0"),
    ({}, {"batch_size": 0}, "batch_size = 0"),
    ({}, {"workers": -1}, "workers = -1"),
    ({}, {"input_range": (1.0, 0.0)}, "input_range"),
    ({}, {"data": DataLoader(Unread()), "batch_size": 3}, "batch_size"),
    *(
        (
            one | {"corruptions": taken},
            {"data": DIGITS},
            f"{next(iter(one))} = .*corruptions = {taken} takes",
        )
        for one in OF_OTHERS
        for taken in ("auto", "digits", "none")
    ),
]


@pytest.mark.parametrize(("options", "settings", "named"), REFUSED)
def test_bad_settings_are_named_before_an_image_is_read(
    options: dict[str, Any], settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        made: dict[str, Any] = {"data": Unread(), "options": EvaluationOptions(**options)}
        evaluate_model(Brightness(3), **(made | settings))


# The command.


def test_the_whole_report_of_two_checkpoints_in_one_command(
    runs: list[Path], few_digits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "report"
    arguments = [*map(str, runs), "--corruptions", "generated", "--pgd", "2", "--eps", "4/255"]
    assert evaluate.main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"files in {out}: evaluation.md, evaluation.json, corruptions.png" in printed
    assert "no defence" in printed and "PGD-2, eps 4/255" in printed
    document = json.loads((out / "evaluation.json").read_text())["evaluations"]
    assert [one["name"] for one in document] == [str(run) for run in runs]
    assert all(set(one["corruptions"]) == set(COMMON_KINDS) for one in document)
    assert document[0]["rows"][2]["images"] == few_digits
    text = (out / "evaluation.md").read_text()
    assert text.count("generated (CIFAR-C's strengths") >= 4 and "no defence" in text
    # FOUND N8: the report shows its picture, and one picture shows the corruptions.
    assert [one.name for one in out.glob("*.png")] == ["corruptions.png"]
    assert "](corruptions.png)" in text
    with Image.open(out / "corruptions.png") as drawn:
        assert min(drawn.size) > 300


def test_without_corruptions_no_picture_is_named(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    assert evaluate.main([str(runs[0]), "--corruptions", "none", "--out", str(out)]) == 0
    assert f"files in {out}: evaluation.md, evaluation.json\n" in capsys.readouterr().out
    assert sorted(one.name for one in out.iterdir()) == ["evaluation.json", "evaluation.md"]


def test_one_checkpoints_numbers_as_json(runs: list[Path], few_digits: int, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    assert evaluate.main([str(runs[0]), "--norms", "aux", "--out", str(out)]) == 0
    scores = json.loads(out.read_text())
    assert scores["checkpoint"] == str(runs[0]) and scores["norms"] == "aux"
    assert scores["corruption_source"] == "generated (ten kinds for digits)"
    assert scores["rows"][0]["low"] < scores["sa"] < scores["rows"][0]["high"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--corruptions official", "there is no such set of digits"),
        ("--autoattack", "AutoAttack"),
        ("{vanilla} --norms aux", "vanilla has no auxiliary norms"),
    ],
)
def test_the_command_refuses(
    flags: str, named: str, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(runs[0]), *flags.format(vanilla=runs[1]).split()]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
