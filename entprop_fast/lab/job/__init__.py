"""Be one of the processes that do a command's work together: `current` says which."""

from entprop_fast.lab.job.environment import Place, restarted
from entprop_fast.lab.job.members import Job, current, joined, of_group
from entprop_fast.lab.job.phases import enter, expect_progress, moved, over
from entprop_fast.lab.job.pulse import Pulse

__all__ = [
    "Job",
    "Place",
    "Pulse",
    "current",
    "enter",
    "expect_progress",
    "joined",
    "moved",
    "of_group",
    "over",
    "restarted",
]
