"""The page says what the run's files say, and what its network answers, computed another way."""

from __future__ import annotations

import base64
import io
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.training.deploy import load_deployable
from tests.lab.conftest import rows, summary
from tests.lab.run_report.read_page import Page


@pytest.fixture(scope="module")
def truth(finished: Path) -> dict[str, Any]:
    """The deployed network's answers, in float64 and by other libraries."""
    network, _ = load_deployable(finished / "model.safetensors")
    digits = data.load("digits", seed=0)
    with torch.no_grad():
        logits = network.double().eval()(digits.test_images.double()).numpy()
    shares = scipy.special.softmax(logits, axis=1)
    return {
        "images": digits.test_images.numpy(),
        "labels": digits.test_labels.numpy(),
        "shares": shares,
        "predicted": logits.argmax(axis=1),
        "entropy": scipy.stats.entropy(shares, axis=1),
    }


def test_scores_are_those_of_the_summary(page: Page, finished: Path) -> None:
    saved = summary(finished)
    for name, value in (("SA", "sa"), ("RA", "ra"), ("Hscore", "hscore")):
        assert f"{name} {saved[value]:.1f} %" in page.words
    assert f"Cost {saved['cost']:.2f}" in page.words
    speed = page.cells("Speed and cost")
    assert speed["images per second"] == {"finished": f"{saved['images_per_second']:.0f}"}
    assert speed["epochs"] == {"finished": "3 of 3"}
    assert speed["steps replayed as a CUDA graph"] == {"finished": "no"}
    assert saved["corruption_source"] in page.words


def test_heat_map(page: Page, finished: Path) -> None:
    found = page.cells("Accuracy (%) of finished by kind of corruption and severity")
    saved = summary(finished)["corruptions"]
    assert list(found) == list(saved)
    for kind, values in saved.items():
        assert list(found[kind].values()) == [f"{one:.1f}" for one in (*values, np.mean(values))]


def test_confusion_matrix(page: Page, truth: dict[str, Any]) -> None:
    found = page.cells("Test images of finished by true class (rows) and predicted class (columns)")
    expected = confusion_matrix(truth["labels"], truth["predicted"], labels=range(10))
    counts = [[int(row[str(at)]) for at in range(10)] for row in found.values()]
    np.testing.assert_array_equal(counts, expected)
    right = [float(row["right (%)"]) for row in found.values()]
    np.testing.assert_allclose(right, 100 * expected.diagonal() / expected.sum(axis=1), atol=0.051)
    assert f"{expected.trace()} of 500 clean test images" in page.words


def test_most_uncertain_and_most_wrong_images(page: Page, truth: dict[str, Any]) -> None:
    numbers = np.arange(500)
    uncertain = numbers[np.argsort(-truth["entropy"], kind="stable")][:12]
    of_true = truth["shares"][numbers, truth["labels"]]
    wrong = numbers[truth["predicted"] != truth["labels"]]
    wrong = wrong[np.argsort(of_true[wrong], kind="stable")][:12]
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    labels = [f"test image {n}, of class {truth['labels'][n]}" for n in (*uncertain, *wrong)]
    assert [one["alt"] for one in shown] == labels
    for one, number in zip(shown, (*uncertain, *wrong), strict=True):
        bytes_ = base64.b64decode(str(one["src"]).removeprefix("data:image/png;base64,"))
        levels = np.asarray(Image.open(io.BytesIO(bytes_))) / 255
        np.testing.assert_allclose(levels, truth["images"][number, 0], atol=0.5 / 255 + 1e-6)
    first = f"{truth['entropy'][uncertain[0]]:.2f} nats"
    assert first in page.words
    assert f"true class: {100 * of_true[wrong[0]]:.1f} %" in page.words


def test_drift_of_every_norm(page: Page, finished: Path) -> None:
    state = checkpoint.read(finished / "checkpoint.pt")["model"]
    found = page.cells("Distance of main and auxiliary halves in finished")
    layers = [key.removesuffix(".aux_bn.weight") for key in state if "aux_bn.weight" in key]
    assert [row["layer"] for row in found.values()] == layers and len(layers) > 3
    for row in found.values():
        main, aux = (
            {
                name: state[f"{row['layer']}.{half}{name}"].double().numpy()
                for name in ("running_mean", "running_var", "weight", "bias")
            }
            for half in ("", "aux_bn.")
        )
        variance, other = main["running_var"] + 1e-5, aux["running_var"] + 1e-5
        means = (aux["running_mean"] - main["running_mean"]) / np.sqrt(variance)
        ours, theirs = (np.concatenate([one["weight"], one["bias"]]) for one in (main, aux))
        expected = {
            "means": np.sqrt(np.mean(means**2)),
            "variances": np.sqrt(np.mean(np.log(other / variance) ** 2)),
            "affines": np.linalg.norm(theirs - ours) / np.linalg.norm(ours),
        }
        for kind, value in expected.items():
            assert float(row[kind]) == pytest.approx(value, abs=6e-4)


def test_settings_and_epochs(page: Page, finished: Path) -> None:
    saved = tomllib.loads((finished / "config.toml").read_text())
    shown = page.cells("Settings")
    assert shown["arch"] == {"finished": saved["arch"]}
    assert shown["k"] == {"finished": f"{saved['method']['entprop']['k']:g}"}
    assert shown["eps"] == {"finished": "25.5/255"}
    epochs = page.cells("Epochs of finished")
    assert list(epochs) == ["1", "2", "3"]
    for shown_row, row in zip(epochs.values(), rows(finished), strict=True):
        assert float(shown_row["sa"]) == pytest.approx(row["sa"], abs=0.051)
        assert float(shown_row["aux loss"]) == pytest.approx(row["aux_loss"], abs=0.0051)


def test_nothing_is_loaded_from_elsewhere(page: Page, written: Path) -> None:
    assert written.stat().st_size < 2 * 2**20
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "embed", "form")
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value[:80])
        assert not any(name.startswith("on") for name in attributes)
    assert "://" not in page.source and "@import" not in page.source
    assert "url(" not in page.source.replace("url(#", "")
    assert page.left_open == []


def test_names_within_the_page(page: Page) -> None:
    """Ids are unique, what links or clips by one finds it, pictures and boxes have names."""
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {str(one["href"])[1:] for _, one in page.tags if str(one.get("href")).startswith("#")}
    clips = {str(one["clip-path"])[5:-1] for _, one in page.tags if "clip-path" in one}
    assert used | clips <= set(ids) and len(clips) > 5
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") or attributes.get("aria-label")
        if tag == "img":
            assert attributes["alt"]
        if attributes.get("tabindex"):
            assert attributes["role"] == "region" and attributes["aria-label"]
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
