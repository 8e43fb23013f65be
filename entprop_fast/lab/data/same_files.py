"""Find listed files that are one file on the disk, and folders that are copies of others."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from entprop_fast.lab import stopping
from entprop_fast.lab.data.lists import Splits

TRAINING, TEST = "training", "test"

_COMPARED = 8  # files of two folders whose names and sizes are the same


class Line(NamedTuple):
    """A line of a list."""

    split: str
    file: str
    label: int


class ListedFiles:
    """The files of both lists with their places on the disk; one call of the system each."""

    def __init__(self, splits: Splits) -> None:
        self.root = os.fspath(splits.root)
        self._lists = splits.train, splits.test
        count = len(splits.train) + len(splits.test)
        self._places = np.zeros((count, 2), dtype=np.uint64)  # device, inode; 0: no such file
        self._sizes = np.full(count, -1, dtype=np.int64)
        for row in range(count):
            stopping.check()
            try:
                status = os.stat(os.path.join(self.root, self[row].file))
            except (OSError, ValueError):
                continue  # absent: named by whoever opens it
            self._places[row] = status.st_dev, status.st_ino
            self._sizes[row] = status.st_size

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, row: int) -> Line:
        train, test = self._lists
        if row < len(train):
            return Line(TRAINING, *train[row])
        return Line(TEST, *test[row - len(train)])

    def pairs(self) -> Iterator[tuple[Line, Line]]:
        """Yield lines that name one file, the earlier one first: by link, hard link or case.

        A file system that is no disk may give a number twice: the size and a second look confirm.
        """
        order = np.lexsort((self._places[:, 0], self._places[:, 1]))
        places = self._places[order]
        same = (places[1:] == places[:-1]).all(axis=1) & (places[1:, 1] != 0)
        for place in np.flatnonzero(same):  # lexsort is stable
            row, other = int(order[place]), int(order[place + 1])
            if self._sizes[row] == self._sizes[other] and self._is_one(row, other):
                yield self[row], self[other]

    def copied_folders(self) -> Iterator[tuple[str, str]]:
        """Yield folders of two classes in one split with the same files by name, size and bytes."""
        rows: defaultdict[tuple[str, int, str], list[int]] = defaultdict(list)
        for row in range(len(self)):
            split, file, label = self[row]
            rows[split, label, file.rpartition("/")[0]].append(row)
        first_with: dict[tuple[str, int], tuple[int, str]] = {}
        for (split, label, folder), of_folder in rows.items():
            held = frozenset((self._name(row), int(self._sizes[row])) for row in of_folder)
            first_label, first = first_with.setdefault((split, hash(held)), (label, folder))
            names = sorted(name for name, _ in held)[:_COMPARED]
            if first_label != label and all(self._equal(first, folder, name) for name in names):
                yield first, folder

    def _is_one(self, row: int, other: int) -> bool:
        one, two = (os.path.join(self.root, self[place].file) for place in (row, other))
        try:
            return os.path.samefile(one, two)
        except OSError:
            return False

    def _name(self, row: int) -> str:
        return self[row].file.rpartition("/")[2]

    def _equal(self, one: str, other: str, name: str) -> bool:
        try:
            contents = set()
            for folder in (one, other):
                with open(os.path.join(self.root, folder, name), "rb") as file:
                    contents.add(file.read())
        except OSError:
            return False
        return len(contents) == 1
