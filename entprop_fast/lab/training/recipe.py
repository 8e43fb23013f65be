"""Read recipes: the settings of a run as TOML, overridden by name.

A recipe holds the settings of `entprop_fast.lab.training.config.Config` at the top, the method's
name in ``[method]`` and each method's options in a table of its own, ``[method.NAME]``, of which
only the chosen one's is read.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from entprop_fast import name_errors
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.data.tensor_sets import is_tensor_set
from entprop_fast.lab.training.augment_setting import NONE, moved_options, without_reading
from entprop_fast.lab.training.config import SETTINGS, Config
from entprop_fast.lab.training.method_settings import (
    Value,
    complete,
    methods_by_option,
    without_mixing,
)
from entprop_fast.lab.training.own_names import DATA
from entprop_fast.methods import METHODS
from entprop_fast.options import read

DEFAULT_RECIPE = "digits"


def resolve(
    recipe: str | Path = DEFAULT_RECIPE, **overrides: Value | tuple[str, ...] | None
) -> Config:
    """Read the settings of `recipe`, with `overrides` put over them.

    Args:
        recipe: the name of a built-in recipe, or the path of a ``.toml`` file.
        **overrides: settings and method options by name; None leaves the recipe's value. Also
            ``imports``, the functions that were named beside the recipe, see `Config`.

    Returns:
        Complete settings: the method's options hold its defaults too.

    Raises:
        TypeError, ValueError: an unknown recipe, key, method or option, or a value that is not
            valid.
    """
    table = read_recipe(recipe)
    imports: Any = overrides.pop("imports", ())
    given = moved_options({k: value for k, value in overrides.items() if value is not None})
    if unheard := [name for name in given if name not in SETTINGS | methods_by_option()]:
        known = (*SETTINGS, *methods_by_option())
        raise name_errors.unknown("setting", unheard[0], known)
    tables = table.pop("method", {})
    if _has_one_size(given.get("dataset")):  # not what the recipe says of images read from files
        table.pop("image_size", None)
        table["augment"] = without_reading(str(table.get("augment", NONE)))
    settings = table | {name: given[name] for name in given if name in SETTINGS}
    method = str(settings.setdefault("method", tables.get("name", "")))
    if not method:
        raise ValueError(
            f"recipe {str(recipe)!r} names no method: choose one of {', '.join(METHODS)}"
        )
    if method not in METHODS:
        raise name_errors.unknown("method", method, METHODS)
    needed = [name for name, one in SETTINGS.items() if one.default is MISSING]
    if missing := [name for name in needed if name not in settings]:
        hint = "; --dataset folder:PATH names images of your own" if "dataset" in missing else ""
        raise ValueError(f"recipe {str(recipe)!r} lacks {', '.join(missing)}{hint}")
    named = {k: v for k, v in given.items() if k not in SETTINGS}
    own = dict(tables.get(method, {}))
    if "augment" in table and "augment" not in given:
        own = moved_options(own | {"augment": table["augment"]})
        settings["augment"] = own.pop("augment")
    options = without_mixing(method, own, named) | named
    for name, value in (settings | options).items():
        if isinstance(value, str) and (reason := unfit(value)):
            raise ValueError(f"{name}={value!r} {reason}")
    valid = {name: read(SETTINGS[name], value) for name, value in settings.items()}
    return Config(**valid, options=complete(method, options), imports=imports)


def recipe_names() -> list[str]:
    """List the built-in recipes."""
    folder = files("entprop_fast.lab.training") / "recipes"
    return sorted(
        one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")
    )


def data_set_recipes() -> list[str]:
    """List the built-in recipes of a data set; the others are for images of one's own."""
    return [name for name in recipe_names() if "dataset" in read_recipe(name)]


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe's table, and make sure that all of its names are known.

    Raises:
        ValueError: there is no such recipe, it is not TOML, or it has a key that means nothing.
    """
    table = _parse(recipe)
    where = f"recipe {str(recipe)!r}"
    for key in table:
        if key not in SETTINGS:
            raise name_errors.unknown(f"key in {where}", key, SETTINGS)
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
    """Write the complete settings as a recipe that runs the same again."""
    table = {name: value for name, value in asdict(config).items() if value is not None}
    options, method, _ = (table.pop(name) for name in ("options", "method", "imports"))
    return tomli_w.dumps(table | {"method": {"name": method, method: options}})


def unfit(text: str) -> str | None:
    """Say why a string can be no setting and no name of a file, or return None."""
    if "\0" in text:
        return "holds a null character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8: rename it, or make a link that is"
    return None


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


def _has_one_size(dataset: Any) -> bool:
    """Return whether the images of a data set come in a size that no setting changes."""
    name = str(dataset)
    return name == EMBEDDED or name.startswith(DATA) or is_tensor_set(name)
