"""Stand for the run folder in the processes of a job that do not write it."""

from __future__ import annotations

from collections.abc import Sequence

from entprop_fast.lab import job
from entprop_fast.lab.training.run_folder import Row, RunFolder, Say, Wait, say_nothing


class OthersFolder(RunFolder):
    """Name the folder that rank 0 of the job writes, and write nothing."""

    def check_free(self) -> None:
        """Leave it to rank 0."""

    def claim(self, say: Say = say_nothing, *, wait: Wait = "for life") -> None:
        """Leave it to rank 0."""

    def release(self) -> None:
        """Leave it to rank 0."""

    def clear(self) -> None:
        """Leave it to rank 0."""

    def begin(self, config_toml: str, rows: Sequence[Row] = (), *, fresh: bool) -> None:
        """Leave it to rank 0."""

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Leave it to rank 0."""

    def append_row(self, row: Row) -> None:
        """Leave it to rank 0."""


def written_once(folder: RunFolder) -> RunFolder:
    """Return the folder for rank 0, and what stands for it for the other processes of a job."""
    if job.current().is_main:
        return folder
    return OthersFolder(folder.path, lasting=folder.lasting)
