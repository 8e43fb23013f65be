from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.training.config import differences
from entprop_fast.lab.training.method_settings import methods_by_option
from entprop_fast.lab.training.recipe import data_set_recipes, recipe_names, resolve, to_toml
from entprop_fast.methods import METHODS, method_options

# Options that the trainer sets itself, from its own settings or from the data.
CHOICES = [
    *("optimizer", "schedule", "amp", "capture", "augment", "loader", "normalize", "corruptions")
]
SET_BY_THE_TRAINER = {"amp", "capture", "generator"}
FROM_PYTHON_ONLY = {"input_range", "normalization", "check", "criterion"}


def test_without_arguments_it_is_entprop_on_digits() -> None:
    config = resolve()
    assert (config.dataset, config.arch, config.method) == ("digits", "wrn10_0.5", "entprop")
    assert {name: config.options[name] for name in ("k", "n", "eps", "alpha")} == {
        "k": 0.2,
        "n": 1,
        "eps": 0.1,
        "alpha": 0.1,
    }
    assert str(config.folder) == "runs/digits-wrn10_0.5-entprop-0"


@pytest.mark.parametrize("method", METHODS)
def test_on_digits_every_adversarial_method_steps_by_a_tenth(method: str) -> None:
    options = resolve("digits", method=method).options
    assert {options[name] for name in ("eps", "alpha") if name in method_options(method)} <= {0.1}


@pytest.mark.parametrize("method", METHODS)
def test_every_option_of_a_method_has_a_flag(method: str) -> None:
    settable = set(method_options(method)) - SET_BY_THE_TRAINER - FROM_PYTHON_ONLY
    assert settable <= set(methods_by_option())


@pytest.mark.parametrize("name", recipe_names())
def test_a_runs_config_file_is_a_recipe_of_the_same_run(name: str, tmp_path: Path) -> None:
    over = {} if name in data_set_recipes() else {"dataset": "folder:birds"}
    config = resolve(name, seed=3, eps="4/255", train_size=50, out="somewhere", **over)
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    assert resolve(path) == config


def test_overrides_win_and_fractions_are_understood() -> None:
    config = resolve("digits", eps="4/255", lr=1, nesterov=False, k=0.5)
    assert config.options["eps"] == 4 / 255
    assert (config.lr, config.nesterov, config.options["k"]) == (1.0, False, 0.5)


def test_only_the_chosen_methods_table_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, '[method.entprop]\nk = "unread"\n')
    assert "k" not in resolve(path, method="vanilla").options


def write(folder: Path, method_tables: str = "", top: str = "") -> Path:
    path = folder / "recipe.toml"
    path.write_text(
        'arch = "wrn10_1"\ndataset = "digits"\nepochs = 1\nbatch_size = 8\nlr = 0.1\n'
        f'{top}\n[method]\nname = "entprop"\n{method_tables}'
    )
    return path


@pytest.mark.parametrize(
    ("top", "tables", "error", "named"),
    [
        ("epoch = 3", "", ValueError, "recipe .* 'epoch'; nearest: epochs"),
        ("", "[method.entprp]\nk = 0.1", ValueError, "'entprp'; nearest: entprop"),
        ("", "[method.entprop]\nkk = 0.1", ValueError, "'kk'"),
        ("", '[method.entprop]\nk = "a/b"', ValueError, "k='a/b'"),
        ("", "[method.entprop]\nn = 1.5", TypeError, "n=1.5"),
        ("seed = true", "", TypeError, "seed=True"),
        ("momentum = ", "", ValueError, "recipe.toml"),
        ('optimizer = "sdg"', "", ValueError, "optimizer 'sdg'; nearest: sgd"),
        ('out = "a\\u0000b"', "", ValueError, "out="),
    ],
)
def test_a_wrong_recipe_is_refused(
    tmp_path: Path, top: str, tables: str, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        resolve(write(tmp_path, tables, top))


def test_a_recipe_that_lacks_what_a_run_needs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('dataset = "digits"\n[method]\nname = "vanilla"\n')
    with pytest.raises(ValueError, match="lacks arch, epochs, batch_size, lr"):
        resolve(path)
    path.write_text('method = "vanilla"\n')
    with pytest.raises(ValueError, match="method"):
        resolve(path)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"methd": "x"}, "'methd'; nearest: method"),
        ({"method": "entrop"}, "'entrop'; nearest: entprop"),
        ({"method": "vanilla", "k": 0.2}, "'vanilla' has no option 'k'"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"decay_every": 0}, "decay_every=0"),
        ({"train_size": 0}, "train_size=0"),
        ({"image_size": 0}, "image_size=0"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 1025}, "threads=1025"),
        ({"workers": -1}, "workers=-1"),
        ({"workers": 513}, "workers=513"),
        ({"lr": 0}, "lr=0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"weight_decay": -1.0}, "weight_decay=-1"),
        ({"momentum": -0.1}, "momentum=-0.1"),
        ({"momentum": 0.0}, "momentum=0.0.*nesterov"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"warmup": -0.1}, "warmup=-0.1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**31}, "seed="),
        ({"eps": "4/0"}, "eps='4/0'"),
        *(({name: "x"}, f"{name} 'x'") for name in CHOICES),
    ],
)
def test_wrong_settings_are_refused(overrides: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        resolve("digits", **overrides)


def test_settings_made_in_python_are_checked() -> None:
    with pytest.raises(ValueError, match="epochs=0"):
        replace(resolve("digits"), epochs=0)


def test_differences_names_what_changes_the_run_and_no_more() -> None:
    config = resolve("digits")
    saved = asdict(resolve("digits", arch="wrn16_1", k=0.6, device="cuda", threads=2, out="x"))
    assert differences(config, saved) == [
        "arch is 'wrn10_0.5', was 'wrn16_1'",
        "k is 0.2, was 0.6",
    ]
    assert differences(config, asdict(config)) == []
