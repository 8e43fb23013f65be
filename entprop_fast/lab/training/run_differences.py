"""Say what keeps settings from continuing a run that was saved with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict
from typing import Any

from entprop_fast.lab.training.config import MACHINE_SETTINGS, SCORE_SETTINGS, SETTINGS, Config
from entprop_fast.lab.training.method_settings import settable


def differences(config: Config, saved: Mapping[str, Any]) -> list[str]:
    """Name what keeps `config` from continuing a run saved as ``asdict(config)``.

    A setting that an earlier version did not have was what its default says.
    """
    now, then = _flat(asdict(config)), _defaults(config.method) | _flat(saved)
    return [
        f"{name} is {now.get(name)!r}, was {then.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if name not in MACHINE_SETTINGS | SCORE_SETTINGS and now.get(name) != then.get(name)
    ]


def _defaults(method: str) -> dict[str, Any]:
    of_run = {name: one.default for name, one in SETTINGS.items() if one.default is not MISSING}
    of_method = {name: one.default for name, one in settable(method).items()}
    return of_run | {name: value for name, value in of_method.items() if value is not None}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in settings.items() if name != "options"}
    return plain | dict(settings.get("options", {}))
