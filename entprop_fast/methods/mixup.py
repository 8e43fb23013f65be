"""Train with MixUp (Zhang et al., ICLR 2018), plainly on mixed images."""

from dataclasses import dataclass

from torch import Tensor

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, only_pass
from entprop_fast.methods.targets import mixup


@dataclass(frozen=True, kw_only=True)
class MixUpOptions(CommonOptions):
    """Hold the options of `MixUp`."""

    mixup: float = fields.mixup(1.0)


class MixUp(Method):
    """Train with MixUp: the two-label loss of mixed images (cost 1)."""

    name = "mixup"
    Options = MixUpOptions
    options: MixUpOptions

    def cost(self, batch: int) -> float:
        """Return 1: one pass, whatever the batch."""
        return 1.0

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o = self.options
        # (1) MixUp of the whole batch, then (2), its two-label loss.
        x, targets = mixup(images, labels, o.mixup, o.generator, net.dealt)
        return only_pass(net, x, targets)
