"""Make corrupted test images, or read the published sets."""

from entprop_fast.lab.corruptions.ten_kinds import CORRUPTIONS, SEVERITIES, corrupt

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]
