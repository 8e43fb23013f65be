"""What a comparison runs: the same data, weights and order in every row, at the same budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from entprop_fast.lab.data.loader import channels_last
from entprop_fast.lab.evaluation import evaluate_model
from entprop_fast.lab.experiments.comparison.plan import resolve_runs
from entprop_fast.lab.experiments.comparison.variants import parse, parse_all
from entprop_fast.lab.experiments.one_run import Run
from entprop_fast.lab.experiments.run_costs import passes
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import METHODS

SMALL: dict[str, Any] = {"train_size": 40, "batch_size": 20, "device": "cpu", "threads": 1}


def runs_of(
    *rows: str, budget: str = "epochs", seeds: tuple[int, ...] = (0,), **flags: Any
) -> list[Run]:
    return resolve_runs("digits", parse_all(rows), seeds, SMALL | flags, budget=budget)


def trainer_of(run: Run) -> Trainer:
    return rehearse(run.config, step=False)


def test_a_variant() -> None:
    found = parse("entprop:score=random,eps=4/255,aux-stats=every,equalize=true,n=2,epochs=3")
    assert found.method == "entprop" and found.slug.startswith("entprop-score=random,eps=4-255")
    assert found.settings == {
        "score": "random",
        "eps": 4 / 255,
        "aux_stats": "every",
        "equalize": True,
        "n": 2,
        "epochs": 3,
    }


def test_flags_go_to_the_methods_that_have_them_and_rows_may_differ() -> None:
    first, second, third = runs_of("vanilla", "entprop", "entprop:k=0.5", k=0.3, mixup=0.0)
    assert "k" not in first.config.options
    assert (second.config.options["k"], third.config.options["k"]) == (0.3, 0.5)
    assert third.config.options["mixup"] == 0.0
    assert third.config.options["eps"] == 0.1  # the recipe's


@pytest.mark.parametrize(
    ("row", "of_all", "augment"),
    [
        ("vanilla", {}, "none"),
        ("vanilla@augmix", {}, "augmix"),
        (
            "entprop:k=0.5@augmix:severity=1",
            {"augment": "crop-flip"},
            "crop-flip+augmix:severity=1",
        ),
        ("mixup@crop-flip+augmix", {"augment": "none"}, "crop-flip+augmix"),
        ("vanilla@augmix", {"source": "cifar10"}, "crop-flip+augmix"),
    ],
)
def test_a_row_appends_augmentations_of_its_own(
    row: str, of_all: dict[str, Any], augment: str
) -> None:
    flags = SMALL | of_all
    source, rows = flags.pop("source", "digits"), parse_all([row, "free_at"])
    first, plain = (run.config for run in resolve_runs(source, rows, (0,), flags))
    assert first.augment == augment
    assert plain.augment == {"cifar10": "crop-flip"}.get(source, of_all.get("augment", "none"))
    assert first.folder.name == f"{parse(row).slug}-0" and not set(first.folder.name) & set(": /")


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("vanilla@augmx", "'vanilla@augmx'.*nearest: augmix"),
        ("vanilla@none", "write 'vanilla'"),
        ("vanilla@", "unknown augmentation ''"),
        ("vanilla@augmix:severty=1", "'severty'; nearest: severity"),
        ("vanilla@augmix:severity=11", "severity=11"),
        ("vanilla@crop-flip", "crop-flip is named twice.*in the row 'vanilla@crop-flip'"),
    ],
)
def test_a_wrong_augmentation_of_a_row_is_refused(row: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        runs_of(row, augment="crop-flip")


def test_every_method_starts_from_the_same_data_weights_and_order() -> None:
    by_seed = {}
    for seed in (3, 4):
        rows = {f"{name}@augmix" if name == "noisymix" else name: None for name in METHODS}
        rows = {"vanilla": None} | rows
        first, *others = [trainer_of(run) for run in runs_of(*rows, seeds=(seed,))]
        by_seed[seed] = first
        for other in others:
            state = other.model.state_dict()  # with auxiliary entries beside the plain network's
            for name, value in first.model.state_dict().items():
                assert torch.equal(state[name], value), name
            assert torch.equal(other.loader.first(40)[0], first.loader.first(40)[0])
            assert torch.equal(other.test.images, first.test.images)
            for batch, theirs in zip(first.loader.epoch(5), other.loader.epoch(5), strict=True):
                assert torch.equal(batch[0], theirs[0][:20])  # of three views the first
    weights = [next(trainer.model.parameters()) for trainer in by_seed.values()]
    assert not torch.equal(*weights)
    train = [by_seed[seed].loader.first(40)[0] for seed in (3, 4)]
    assert not torch.equal(*train)


def test_corruptions_do_not_depend_on_what_was_drawn_before() -> None:
    trainer = trainer_of(runs_of("vanilla")[0])
    images = channels_last(trainer.test.images[:100])
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(evaluate_model(trainer.model, (images, trainer.test.labels[:100])))
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("row", "epochs"),
    [
        ("vanilla", 60),
        ("mixup", 60),
        ("mixprop", 30),
        ("entprop", 50),
        ("entprop:k=1.0", 30),
        ("entprop_pipelined", 50),
        ("entprop:k=0.5,n=2", 30),
        ("fast_advprop", 50),
        ("advprop", 9),  # 7 passes: 8.6
        ("free_at", 15),
        ("free_at:replays=8", 8),  # 7.5, to the even one
    ],
)
def test_epochs_of_equal_passes(row: str, epochs: int) -> None:
    (run,) = runs_of(row, budget="passes")
    assert run.config.epochs == epochs
    assert runs_of(row)[0].config.epochs == 60


def test_drops_of_a_step_schedule_move_with_the_budget() -> None:
    (run,) = runs_of("free_at", budget="passes", schedule="step", decay_every=20)
    assert (run.config.epochs, run.config.decay_every) == (15, 5)


def test_passes_count_a_last_smaller_batch() -> None:
    flags: dict[str, Any] = {"batch_size": 32, "drop_last": False, "epochs": 3}
    (plain,) = runs_of("vanilla", **flags)
    assert passes(plain.config) == pytest.approx(3.0)
    (selecting,) = runs_of("entprop", **flags)
    # Of 32 rows 6 are selected, of the 8 that are left 2.
    assert passes(selecting.config) == pytest.approx(3 * (40 + 6 + 2) / 40)


def test_every_run_gets_the_data_folder() -> None:
    runs = resolve_runs(
        "cifar100", parse_all(("vanilla", "entprop")), (0, 1), {"data_dir": "data"}, budget="epochs"
    )
    assert {run.config.data_dir for run in runs} == {"data"}
