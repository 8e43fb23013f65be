"""Find the logits in what a network returns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class NoLogits(TypeError, ValueError):
    """A network returned an object without logits.

    Both kinds of error: `evaluate_model` documents a TypeError, a method's call a ValueError.
    """


def logits_in(output: object) -> Tensor | None:
    """Return the tensor that a network returned, as it is, as ``.logits`` or as ``["logits"]``."""
    found = output
    if not isinstance(output, Tensor):
        found = output.get("logits") if isinstance(output, Mapping) else None
        found = getattr(output, "logits", found)
    return found if isinstance(found, Tensor) else None


def logits_of(output: object, rows: int) -> Tensor:
    """Return the logits ``[rows, classes]`` in what a network returned, see `logits_in`.

    Args:
        output: of the network.
        rows: images that it was given.

    Raises:
        NoLogits: there are none (a tuple, say).
        ValueError: their shape is another, or their dtype is not floating.
    """
    logits = logits_in(output)
    if logits is None:
        kind, parts = type(output).__name__, ""
        if isinstance(output, tuple | list):
            parts = f" in place of a {kind} of {', '.join(type(one).__name__ for one in output)}"
        raise NoLogits(
            f"model returned a {kind}: expected logits [B, classes]{parts}, or an output with "
            ".logits; wrap the model in a module that returns them"
        )
    if logits.ndim != 2 or len(logits) != rows:
        raise ValueError(
            f"model returned shape {tuple(logits.shape)}: expected logits [{rows}, classes]"
        )
    if not logits.is_floating_point():
        raise ValueError(f"model returned {logits.dtype}: expected floating-point logits")
    return logits
