"""Offer the custom ops: one schema each, kernels where they were built, else plain PyTorch."""

from entprop_fast.norm_half import Half, Normed
from entprop_fast.ops import (  # noqa: F401 - define ops that layers alone call
    dual_batch_norm_dx,
    dual_batch_norm_merge,
    dual_batch_norm_moments,
)
from entprop_fast.ops.backend import backends, register_kernels
from entprop_fast.ops.conv3x3 import conv3x3, conv3x3_pays
from entprop_fast.ops.dual_batch_norm import dual_batch_norm, dual_batch_norm_outputs
from entprop_fast.ops.image_chains import NEAREST, ImageOp, image_chains
from entprop_fast.ops.loss_and_entropy import SCORES, LossAndEntropy, loss_and_entropy
from entprop_fast.ops.perturb import gather_perturb, perturb_
from entprop_fast.ops.pixmix_rounds import Mixing, pixmix_rounds
from entprop_fast.ops.prime_chains import Primitive, prime_chains
from entprop_fast.ops.select_topk import LossAndSelection, entropy_topk, select_topk

# After the schemas are defined, so that a kernel never registers for an op that does not exist.
register_kernels()

__all__ = [
    "NEAREST",
    "SCORES",
    "Half",
    "ImageOp",
    "LossAndEntropy",
    "LossAndSelection",
    "Mixing",
    "Normed",
    "Primitive",
    "backends",
    "conv3x3",
    "conv3x3_pays",
    "dual_batch_norm",
    "dual_batch_norm_outputs",
    "entropy_topk",
    "gather_perturb",
    "image_chains",
    "loss_and_entropy",
    "perturb_",
    "pixmix_rounds",
    "prime_chains",
    "select_topk",
]
