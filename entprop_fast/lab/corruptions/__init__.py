"""Corrupted test images: made here, or the published sets, and which of them is scored on."""

from entprop_fast.lab.corruptions.ten_kinds import CORRUPTIONS, SEVERITIES, corrupt

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]
