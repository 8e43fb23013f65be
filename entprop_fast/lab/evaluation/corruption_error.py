"""Compute ImageNet-C's mean corruption error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# AlexNet's error on the official ImageNet-C, mean of the five severities (Hendrycks and Dietterich,
# ICLR 2019), with the digits of github.com/google-research/augmix.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def corruption_errors(accuracies: Mapping[str, Sequence[float]]) -> tuple[dict[str, float], float]:
    """Return each kind's ``CE_c = 100 sum_s E_sc / sum_s E^AlexNet_sc`` and their mean, the mCE.

    Args:
        accuracies: kind to fractions, of all 15 kinds.
    """
    missing = [kind for kind in ALEXNET_ERRORS if kind not in accuracies]
    if missing:
        raise ValueError(f"accuracies lack {', '.join(missing)}")
    errors = {
        kind: 100 * (1 - sum(accuracies[kind]) / len(accuracies[kind])) / alexnet
        for kind, alexnet in ALEXNET_ERRORS.items()
    }
    return errors, sum(errors.values()) / len(errors)
