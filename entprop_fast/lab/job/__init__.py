"""Be one of the processes that do a command's work together: `current` says which."""

from entprop_fast.lab.job.members import Job, current, joined, of_group
from entprop_fast.lab.job.phases import enter, expect_progress, moved, over
from entprop_fast.lab.job.pulse import Pulse
from entprop_fast.lab.job.restarts import remember, remembers

__all__ = [
    "Job",
    "Pulse",
    "current",
    "enter",
    "expect_progress",
    "joined",
    "moved",
    "of_group",
    "over",
    "remember",
    "remembers",
]
