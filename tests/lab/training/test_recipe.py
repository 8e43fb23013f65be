from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.training.method_settings import methods_by_option
from entprop_fast.lab.training.recipe import data_set_recipes, recipe_names, resolve, to_toml
from entprop_fast.lab.training.run_differences import differences
from entprop_fast.methods import METHODS, method_options

# Options that the trainer sets itself, from its own settings or from the data, or only Python can.
NOT_HERE = {"amp", "capture", "generator", "input_range", "normalization", "check", "criterion"}
CHOICES = "optimizer schedule amp capture loader normalize corruptions".split()
RECIPE = 'arch = "wrn10_1"\ndataset = "digits"\nepochs = 1\nbatch_size = 8\nlr = 0.1\n'
METHOD = '[method]\nname = "entprop"\n'


def test_without_arguments_it_is_entprop_on_digits() -> None:
    config = resolve()
    assert (config.dataset, config.arch, config.method) == ("digits", "wrn10_0.5", "entprop")
    expected = {"k": 0.2, "n": 1, "eps": 0.1, "alpha": 0.1}
    assert {name: config.options[name] for name in expected} == expected
    assert str(config.folder) == "runs/digits-wrn10_0.5-entprop-0"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_steps_by_a_tenth_on_digits_and_has_a_flag_an_option(method: str) -> None:
    options = resolve("digits", method=method, augment="augmix").options
    known = set(method_options(method))
    assert {options[name] for name in ("eps", "alpha") if name in known} <= {0.1}
    assert known - NOT_HERE <= set(methods_by_option())


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
    path = tmp_path / "recipe.toml"
    path.write_text(f'{RECIPE}{METHOD}[method.entprop]\nk = "unread"\n')
    assert "k" not in resolve(path, method="vanilla").options


@pytest.mark.parametrize(
    ("text", "error", "named"),
    [
        (f"{RECIPE}epoch = 3\n{METHOD}", ValueError, "'epoch'; nearest: epochs"),
        (f"{RECIPE}{METHOD}[method.entprp]", ValueError, "'entprp'; nearest: entprop"),
        (f"{RECIPE}{METHOD}[method.entprop]\nkk = 0.1", ValueError, "'kk'"),
        (f'{RECIPE}{METHOD}[method.entprop]\nk = "a/b"', ValueError, "k='a/b'"),
        (f"{RECIPE}{METHOD}[method.entprop]\nn = 1.5", TypeError, "n=1.5"),
        (f"{RECIPE}seed = true\n{METHOD}", TypeError, "seed=True"),
        (f"{RECIPE}momentum = \n{METHOD}", ValueError, "recipe.toml"),
        (f'{RECIPE}optimizer = "sdg"\n{METHOD}', ValueError, "optimizer 'sdg'; nearest: sgd"),
        (f'{RECIPE}out = "a\\u0000b"\n{METHOD}', ValueError, "out="),
        (f'dataset = "digits"\n{METHOD}', ValueError, "arch, epochs, batch_size, lr"),
        ('method = "vanilla"', ValueError, "method"),
        (RECIPE, ValueError, "method"),
    ],
)
def test_a_wrong_recipe_is_refused(
    text: str, error: type[Exception], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(error, match=named):
        resolve(path)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"methd": "x"}, "'methd'; nearest: method"),
        ({"method": "entrop"}, "'entrop'; nearest: entprop"),
        ({"method": "vanilla", "k": 0.2}, "'vanilla' has no option 'k'"),
        *(
            ({name: 0}, f"{name}=0")
            for name in "epochs batch_size decay_every train_size image_size threads lr".split()
        ),
        *(({name: -1}, f"{name}=-1") for name in "workers weight_decay momentum seed".split()),
        ({"threads": 1025}, "threads=1025"),
        ({"workers": 513}, "workers=513"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"momentum": 0.0}, "momentum=0.0.*nesterov"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"warmup": -0.1}, "warmup=-0.1"),
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


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist", "npz:mine.npz", "data:mine:images"])
def test_a_recipe_for_files_serves_images_of_one_size(dataset: str) -> None:
    imports = ("mine:images",) if dataset.startswith("data:") else ()
    assert resolve("finetune", dataset=dataset, imports=imports).image_size is None
    assert resolve("finetune", dataset="folder:mine").image_size == 224
