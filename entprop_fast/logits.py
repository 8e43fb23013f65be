"""Find the logits in what a network returns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def logits_in(output: object) -> Tensor | None:
    """The tensor that a network returned, as it is, as ``.logits`` or as ``["logits"]``."""
    found = output
    if not isinstance(output, Tensor):
        found = output.get("logits") if isinstance(output, Mapping) else None
        found = getattr(output, "logits", found)
    return found if isinstance(found, Tensor) else None
