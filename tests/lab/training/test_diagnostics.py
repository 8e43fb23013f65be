from __future__ import annotations

from typing import Any

import pytest

from entprop_fast.lab.training import diagnostics


def row(epoch: int, **changed: Any) -> dict[str, Any]:
    healthy = {
        "epoch": epoch,
        "aux_loss": 1.0,
        "entropy_selected": 1.5,
        "entropy_unselected": 0.5,
        "train_accuracy": 95.0,
        "sa": 80.0 + epoch,
        "gap": 15.0 - epoch,
        "signatures": [],
    }
    return healthy | changed


def history(bad: dict[str, Any], epochs: int) -> list[dict[str, Any]]:
    """Ten epochs, the last `epochs` of which show `bad`."""
    return [row(i, **(bad if i >= 10 - epochs else {})) for i in range(10)]


def detect(rows: list[dict[str, Any]], epochs: int = 10) -> list[str]:
    return diagnostics.detect(rows, epochs=epochs, num_classes=10)


SHOWN = {
    "entropy does not separate": {"entropy_selected": 2.3, "entropy_unselected": 2.25},
    "diverging auxiliary loss": {"aux_loss": 2.4},
    "falling SA": {"sa": 60.0, "gap": 10.0},
    "overfitting": {"sa": 84.0, "gap": 20.0},
}


@pytest.mark.parametrize("name", SHOWN)
def test_each_is_named_after_its_patience_and_once(name: str) -> None:
    assert detect(history(SHOWN[name], diagnostics.PATIENCE - 1)) == []
    rows = history(SHOWN[name], diagnostics.PATIENCE)
    assert detect(rows) == [name]
    assert diagnostics.describe(name, rows[-1]).startswith(f"{name}: ")
    rows[-1]["signatures"] = [name]
    rows.append(row(10, **SHOWN[name]))
    assert detect(rows) == []
    rows = history(SHOWN[name], 5)
    rows[-2] = row(8)  # one good epoch between bad ones
    assert detect(rows) == []


def test_nothing_is_judged_while_a_long_run_settles() -> None:
    rows = [row(i, **SHOWN["entropy does not separate"]) for i in range(9)]
    assert detect(rows, epochs=100) == []
    assert detect(rows, epochs=50) == ["entropy does not separate"]


def test_a_method_that_selects_nothing_has_no_entropies_to_separate() -> None:
    nan = {"entropy_selected": float("nan"), "aux_loss": 0.0}
    assert detect([row(i, **nan) for i in range(10)]) == []
