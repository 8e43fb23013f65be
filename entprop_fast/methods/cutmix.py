"""Train with CutMix (Yun et al., ICCV 2019), plainly on images with a box of another."""

from dataclasses import dataclass

from torch import Tensor

from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, only_pass
from entprop_fast.methods.targets import cutmix


@dataclass(frozen=True, kw_only=True)
class CutMixOptions(CommonOptions):
    """Hold the options of `CutMix`."""

    cutmix: float = fields.cutmix(1.0)


class CutMix(Method):
    """Train with CutMix: the two-label loss of images with a box of another pasted in (cost 1)."""

    name = "cutmix"
    Options = CutMixOptions
    options: CutMixOptions

    def cost(self, batch: int) -> float:
        """Return 1: one pass, whatever the batch."""
        return 1.0

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o = self.options
        # (8) CutMix of the whole batch, then (2), its two-label loss.
        x, targets = cutmix(images, labels, o.cutmix, o.generator, net.dealt)
        return only_pass(net, x, targets)
