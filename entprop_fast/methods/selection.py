"""EntProp's selection (4) as an option of methods that attack the whole batch without it."""

from entprop_fast import reference
from entprop_fast.methods.options import check_choice, check_number


def check_selection(k: float | None, score: str) -> tuple[float | None, str]:
    """`k` is None or a share in (0, 1], and `score` the name of a score that has a use.

    Raises:
        TypeError, ValueError: one of them is something else.
    """
    check_choice("score", score, tuple(reference.SCORES))
    if k is not None:
        k = check_number("k", k, low=0, open_low=True, high=1)
    elif score != "entropy":
        raise ValueError(f"score={score!r} with k=None, which selects nothing: set k, such as 0.2")
    return k, score


def num_attacked(k: float | None, batch: int) -> int:
    """Rows of a batch that are attacked: m (4), or all."""
    return batch if k is None else reference.num_selected(k, batch)
