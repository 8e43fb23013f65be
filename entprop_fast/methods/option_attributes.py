"""Let a method's options be read and set as attributes of the method."""

from typing import TYPE_CHECKING, Any, ClassVar

from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.options import create, options_of


class OptionAttributes:
    """Hold a method's options; each is an attribute of the method, too, checked where it is set.

    A subclass may name `Options` of its own.

    Attributes:
        options: as they were given, or their defaults.
    """

    Options: ClassVar[type[CommonOptions]] = CommonOptions
    options: CommonOptions

    if not TYPE_CHECKING:  # which should know attributes by their names

        def __setattr__(self, name: str, value: object) -> None:
            if name in options_of(self.Options):
                name, value = "options", create(self.Options, vars(self.options) | {name: value})
            super().__setattr__(name, value)

        def __getattr__(self, name: str) -> Any:
            if name in options_of(self.Options) and "options" in vars(self):
                return getattr(self.options, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *options_of(self.Options)})
