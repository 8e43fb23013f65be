"""Be one of the processes that do a command's work together: `current` says which."""

from entprop_fast.lab.job.environment import Place, restarted
from entprop_fast.lab.job.members import Job, current, joined, of_group
from entprop_fast.lab.job.phases import enter, expect_progress

__all__ = ["Job", "Place", "current", "enter", "expect_progress", "joined", "of_group", "restarted"]
