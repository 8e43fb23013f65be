"""Recipes: the settings of a run as TOML, overridden by name.

A recipe holds the settings of `entprop_fast.lab.training.config.Config` at the top, the method's
name in ``[method]`` and each method's options in a table of its own, ``[method.NAME]``, of which
only the chosen one's is read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from entprop_fast import name_errors
from entprop_fast.lab.training import criteria
from entprop_fast.lab.training.config import (
    OPTION_NAMES,
    SETTING_NAMES,
    Config,
    MethodOptions,
    Value,
    typed,
)
from entprop_fast.methods import METHODS, method_options

DEFAULT_RECIPE = "digits"

_REQUIRED = ("arch", "dataset", "epochs", "batch_size", "lr")


def resolve(recipe: str | Path = DEFAULT_RECIPE, **overrides: Value | None) -> Config:
    """The settings of `recipe` with `overrides` put over them.

    Args:
        recipe: the name of a built-in recipe, or the path of a ``.toml`` file.
        **overrides: settings and method options by name; None leaves the recipe's value.

    Returns:
        Complete settings: the method's options hold its defaults too.

    Raises:
        ValueError: an unknown recipe, key, method or option, or a value that is not valid.
    """
    table = read_recipe(recipe)
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name not in SETTING_NAMES and name not in OPTION_NAMES:
            raise name_errors.unknown("setting", name, (*SETTING_NAMES, *OPTION_NAMES))
    tables = table.pop("method", {})
    settings = table | {name: given[name] for name in given if name in SETTING_NAMES}
    method = str(settings.setdefault("method", tables.get("name", "")))
    if not method:
        raise ValueError(
            f"recipe {str(recipe)!r} names no method: choose one of {', '.join(METHODS)}"
        )
    if method not in METHODS:
        raise name_errors.unknown("method", method, METHODS)
    if missing := [name for name in _REQUIRED if name not in settings]:
        hint = "; --dataset folder:PATH names images of your own" if "dataset" in missing else ""
        raise ValueError(f"recipe {str(recipe)!r} lacks {', '.join(missing)}{hint}")
    options = tables.get(method, {}) | {name: given[name] for name in given if name in OPTION_NAMES}
    return Config(**typed(settings, Config), options=_complete(method, options))


def recipe_names() -> list[str]:
    """The built-in recipes."""
    folder = files("entprop_fast.lab.training") / "recipes"
    return sorted(
        one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")
    )


def data_set_recipes() -> list[str]:
    """List the built-in recipes of a data set; the others are for images of one's own."""
    return [name for name in recipe_names() if "dataset" in read_recipe(name)]


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """A recipe's table, all of its names known.

    Raises:
        ValueError: there is no such recipe, it is not TOML, or it has a key that means nothing.
    """
    table = _parse(recipe)
    where = f"recipe {str(recipe)!r}"
    for key in table:
        if key not in SETTING_NAMES:
            raise name_errors.unknown(f"key in {where}", key, SETTING_NAMES)
    tables = table.get("method", {})
    if not isinstance(tables, dict):
        raise ValueError(f"{where}: method must be a table, [method] with name = {tables!r}")
    for key, value in tables.items():
        if key != "name" and key not in METHODS:
            raise name_errors.unknown(f"key in [method] of {where}", key, ("name", *METHODS))
        if isinstance(value, dict) == (key == "name"):
            raise ValueError(f"{where}: [method] {key} must not be {value!r}")
    return table


def to_toml(config: Config) -> str:
    """The complete settings, as a recipe that runs the same again."""
    table = {name: value for name, value in asdict(config).items() if value is not None}
    options, method = table.pop("options"), table.pop("method")
    return tomli_w.dumps(table | {"method": {"name": method, method: options}})


def _parse(recipe: str | Path) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ValueError(f"recipe {str(recipe)!r}: there is no such file")
        data = path.read_bytes()
    elif str(recipe) in recipe_names():
        data = (files("entprop_fast.lab.training") / "recipes" / f"{recipe}.toml").read_bytes()
    else:
        raise name_errors.unknown("recipe", str(recipe), (*recipe_names(), "PATH.toml"))
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:  # not TOML, or not UTF-8
        raise ValueError(f"recipe {str(recipe)!r} is not TOML: {error}") from None


def _complete(method: str, options: Mapping[str, Any]) -> dict[str, Value]:
    """All options of a method that can be set by name: those given, the defaults of the rest."""
    known = [name for name in method_options(method) if name in OPTION_NAMES]
    for name in options:
        if name not in known:
            raise ValueError(
                f"method {method!r} has no option {name!r}; it has {', '.join(sorted(known))}"
            )
    defaults = {name: method_options(method)[name] for name in known}
    defaults["criterion"] = criteria.DEFAULT  # a method's is a module, or None
    merged = defaults | typed(options, MethodOptions)
    return {name: value for name, value in merged.items() if value is not None}
