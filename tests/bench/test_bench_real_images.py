"""bench/real_images.py: comparisons in pieces, their rows, and what pages say of them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import real_images, real_images_speed, real_images_table, report, rows, trade
from bench.real_images import AUGMENTATIONS, LABELS, over
from entprop_fast.lab.experiments.comparison.variants import parse
from entprop_fast.lab.training.config import Config

from .conftest import WHERE

NAME, PAGE = "fashion_mnist", Path("docs/measurements.md")
ALL = LABELS | dict(map(over, ("prime", "pixmix")))
# Mean Hscore of a row, 70 where none is here; the seeds differ from it alike.
HSCORES = {
    **{"MixUp": 72.0, "TrivialAugment": 74.0, "AugMix + JSD": 75.0, "PRIME": 78.0, "PixMix": 77.0},
    **{"EntProp": 71.0, "EntProp, random rows": 70.5, "EntProp + PRIME": 80.0},
    **{"EntProp + PixMix": 74.0, "EntProp + TrivialAugment": 60.0},
}


def summary(label: str, seed: int) -> dict[str, Any]:
    draw, h = (
        random.Random(f"{label} {seed}"),
        HSCORES.get(label, 70.0) + seed + 0.01 * len(label) * seed,
    )
    shift = {"accuracy": 40.0 + seed, "ece": 9.0, "drop": 50.0, "images": 400}
    return {
        **{"sa": h + 5, "ra": h - 4, "hscore": h, "cost": 40.0, "seconds": 90.0, "seed": seed},
        **{"ece": 5.0 + seed, "corruption_ece": 12.0, "shifts": {"another artist": shift}},
        **{"corruptions": {"fog": [draw.uniform(40, 90)] * 5}, "corruption_source": "generated"},
        **{"epochs": 40, "train_size": 4000, "images_per_second": 999.0},
    }


def made(*labels: str, seeds: int = 3) -> list[rows.Row]:
    return [
        {"variant": one, **summary(one, seed), **WHERE} for one in labels for seed in range(seeds)
    ]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `compare` is asked; it finishes all rows at once, but for those named "broken"."""
    calls: list[list[str]] = []

    def compare(flags: list[str]) -> int:
        calls.append(flags)
        out, methods = Path(flags[flags.index("--out") + 1]), flags[flags.index("--methods") + 1 :]
        for name in methods:
            for seed in range(3):
                folder = out / f"{parse(name).slug}-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                text = json.dumps(summary(ALL[name], seed) | {"folder": str(folder)})
                (folder / "summary.json").write_text("{" if "--break" in flags else text)
        return int("--break" in flags)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("entprop_fast.lab.cli.compare.main", compare)
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    return calls


def test_a_comparison_has_two_steps_and_keeps_what_has_finished(
    asked: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert real_images.main(NAME, ["--break"]) == 1 and len(asked) == 1
    assert not (rows.ROWS / f"{NAME}.jsonl").exists()
    monkeypatch.setattr(rows, "stamp", lambda: WHERE)
    assert real_images.main(NAME, ["--jobs", "2"]) == 0
    first, second = asked[1:]
    assert "--jobs" in first and first[-len(LABELS) :] == list(LABELS)
    assert second[second.index("--methods") + 1 :] == ["entprop@prime", "entprop@pixmix"]
    assert "EntProp over PRIME, PixMix (by mean Hscore)" in capsys.readouterr().out
    runs = real_images.read(NAME)
    assert list(runs) == list(ALL.values()) and all(list(one) == [0, 1, 2] for one in runs.values())
    assert runs["PRIME"][1] == {"variant": "PRIME", **summary("PRIME", 1), **WHERE}
    # Another commit keeps the stamp of what is there, and adds its own to what is new.
    monkeypatch.setattr(rows, "stamp", lambda: WHERE | {"git": "later"})
    name, label = over("trivialaugment")
    monkeypatch.setitem(ALL, name, label)
    assert real_images.main(NAME, ["--best", "trivialaugment"]) == 0
    commits = {row["variant"]: row["git"] for row in rows.read(NAME)}
    assert {one for one, git in commits.items() if git == "later"} == {label}
    assert {"PRIME", "EntProp + PRIME"} <= commits.keys()
    assert len(asked) == 4 and asked[3][-1] == name  # what has rows is not run again
    # Nor on another machine, which has the rows alone: a seed that is missing is.
    shutil.rmtree("runs")
    rows.keep_stamped(NAME, [], by=real_images.KEY)
    lines = (rows.ROWS / f"{NAME}.jsonl").read_text().splitlines(keepends=True)
    rest = [one for one in lines if not ('"variant": "MixUp"' in one and '"seed": 2' in one)]
    (rows.ROWS / f"{NAME}.jsonl").write_text("".join(rest))
    assert len(rest) == len(lines) - 1
    assert real_images.main(NAME, ["--best", "trivialaugment"]) == 0
    assert len(asked) == 5 and asked[4][-4:] == ["--seeds", "2", "--methods", "mixup"]
    assert len(rows.read(NAME)) == len(lines)


def test_the_section_says_who_wins(kept: dict[str, list[rows.Row]], tmp_path: Path) -> None:
    kept[NAME] = made(*ALL.values())
    speed = {"times_vanilla": 1.234, "images_per_second": 998.7}
    kept[real_images_speed.rows_name(NAME)] = [{"variant": one, **speed} for one in ALL.values()]
    said = real_images_table.section(NAME, PAGE)
    assert real_images_table.UNMEASURED not in said and "Not measured yet" not in said
    assert "Highest mean Hscore: EntProp + PRIME" in said
    assert "EntProp + PRIME against PRIME: higher, +2." in said
    assert "EntProp + PixMix against PixMix: lower, -2.9 (" in said
    assert "| shift another artist |" in said and "41.0 ± 1.0" in said and "| 1.23 | 999 |" in said
    for draw in (real_images_table.draw_scores, real_images_table.draw_corruptions):
        draw(NAME, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize("labels", [("vanilla",), ("vanilla", "PRIME")])
@pytest.mark.parametrize("seeds", [1, 2])
def test_what_is_not_measured_is_said(
    labels: tuple[str, ...], seeds: int, kept: dict[str, list[rows.Row]], tmp_path: Path
) -> None:
    kept[NAME] = made(*labels, seeds=seeds)
    for row in kept[NAME]:
        del row["ece"]
    said = real_images_table.section(NAME, PAGE)
    lines = {line.split(" | ")[0].strip("| "): line for line in said.splitlines()}
    assert all("| unmeasured |" in lines[one] for one in LABELS.values() if one not in labels)
    missing = ", ".join(one for one in LABELS.values() if one not in labels)
    assert f"Not measured yet: {missing}." in said
    real_images_table.draw_scores(NAME, tmp_path / "a.png")
    real_images_table.draw_corruptions(NAME, tmp_path / "b.png")


@pytest.mark.parametrize("labels", [(), ("EntProp", "PRIME")])
def test_no_winner_is_named_without_plain_training(
    labels: tuple[str, ...], kept: dict[str, list[rows.Row]], tmp_path: Path
) -> None:
    kept[NAME] = made(*labels)
    said = report.PARTS[NAME].text(PAGE)
    assert said == f"Not measured yet: `python -m bench.{NAME}` writes the rows."
    for picture in real_images_table.pictures_of(NAME):
        with pytest.raises(FileNotFoundError, match="vanilla"):
            report.PICTURES[picture](tmp_path / "a.png")
    assert real_images_table.first_measured() is None


def test_the_trade_is_of_real_images_once_they_are_measured(
    kept: dict[str, list[rows.Row]], tmp_path: Path
) -> None:
    kept[NAME] = made("vanilla", "TrivialAugment")
    assert real_images_table.first_measured() is None
    kept[NAME] += made("EntProp")
    assert real_images_table.first_measured() == NAME
    said = trade.section(Path("README.md"))
    assert "| EntProp + TrivialAugment | unmeasured | – | – | – |" in said
    assert said.count("\n| ") == 1 + 5  # the README has room for five rows
    kept[NAME] += made("PRIME", "EntProp + PRIME", "MixUp")
    said = trade.section(Path("README.md"))
    assert "| EntProp + PRIME | " in said and "unmeasured" not in said
    trade.draw(tmp_path / "trade.png")
    assert (tmp_path / "trade.png").stat().st_size > 0


def test_every_augmentation_has_a_row() -> None:
    assert {f"vanilla@{one}" for one in AUGMENTATIONS} <= LABELS.keys()


def test_steps_are_timed_in_turns_for_what_is_measured(
    kept: dict[str, list[rows.Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of MixUp takes twice the CPU time of plain training's, and TrivialAugment is new."""
    now, asked, written = [0.0], [], {}

    def rehearse(config: Config, *, step: bool) -> SimpleNamespace:
        asked.append((config.method, config.augment))
        took = {"vanilla": 0.064, "mixup": 0.128}[config.method]
        batches = [(took,)] * real_images_speed.ROUNDS * 2

        def method(seconds: float) -> None:
            now[0] += seconds

        return SimpleNamespace(method=method, loader=SimpleNamespace(epoch=lambda _: batches))

    monkeypatch.setattr(real_images_speed, "rehearse", rehearse)
    monkeypatch.setattr("time.process_time", lambda: now[0])
    monkeypatch.setattr(rows, "write", lambda name, made: written.update({name: made}))
    kept[NAME] = made("vanilla", "MixUp")
    real_images_speed.main(NAME, rounds=3)
    assert asked == [("vanilla", "crop-flip"), ("mixup", "crop-flip")]
    ratios = {row["variant"]: row["times_vanilla"] for row in written[f"{NAME}_speed"]}
    assert ratios == pytest.approx({"vanilla": 1, "MixUp": 2})
    speeds = [row["images_per_second"] for row in written[f"{NAME}_speed"]]
    assert speeds == pytest.approx([1000, 500])
