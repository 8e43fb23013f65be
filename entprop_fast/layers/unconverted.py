"""Name the norms that a conversion leaves as they are."""

from torch import nn

from entprop_fast.layers.recomputed import base_class

WAY_OUT = "; convert_dual_norm(model, also=(Class,)) makes the halves of a class copies of the norm"


class Unconverted:
    """Collect the norms left without an auxiliary half, by their class and why."""

    def __init__(self) -> None:
        self._names: dict[tuple[type[nn.Module], str], list[str]] = {}

    def add(self, name: str, module: nn.Module, why: str = "") -> None:
        """Note the module `name` of the model, and why where its class does not say it."""
        self._names.setdefault((base_class(module), why), []).append(name or "model")

    def __bool__(self) -> bool:
        return bool(self._names)

    def __str__(self) -> str:
        """Name each class once, with its count and where its first one is."""
        classes = [cls.__name__ for cls in {cls for cls, _ in self._names}]
        parts = []
        for (cls, why), names in self._names.items():
            shown = cls.__name__
            if classes.count(shown) > 1:  # of two libraries
                shown = f"{cls.__module__}.{shown}"
            where = f"the first is {names[0]}" if len(names) > 1 else names[0]
            parts.append(f"{len(names)} {shown}{why and ' '}{why} ({where})")
        return ", ".join(parts)
