"""Sets that several processes write: the bytes of one, gone on with by any number of them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from entprop_fast.lab import job, stopping
from entprop_fast.lab.corruptions import write_sets
from entprop_fast.lab.corruptions.common import corrupted_bytes
from entprop_fast.lab.corruptions.set_marker import read_marker
from entprop_fast.lab.data import readers
from entprop_fast.lab.job import Job
from entprop_fast.lab.stopping import StopSignals
from tests.lab.evaluation.support import arrays, folders, tiny_cifar, tiny_imagenet
from tests.processes import in_two_processes

KINDS = ("contrast", "brightness", "saturate")  # an odd number, and quick ones
STOPS = {"stopped": 8, "failed": 11}  # the call of one process's that it is in


def write(root: Path, out: str, **more: Any) -> None:
    """Write both layouts within `root`."""
    shared = {"kinds": KINDS, "seed": 3, **more}
    arrays(tiny_cifar(count=19), root / out / "arrays", batch_size=4, **shared)
    folders(tiny_imagenet_at(root), root / out / "folders", batch_size=5, **shared)


def tiny_imagenet_at(root: Path) -> Any:
    if not (root / "val").exists():
        return tiny_imagenet(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.lab.evaluation.support.write_classes", lambda root: None)
        return tiny_imagenet(root)


def broken_in(call: int, end: Callable[[], None]) -> Callable[..., Tensor]:
    """A generator that ends in one of its calls."""

    def made(images: Tensor, kind: str, *args: Any, **settings: Any) -> Tensor:
        nonlocal call
        call -= 1
        if call == 0:
            end()
        return corrupted_bytes(images, kind, *args, **settings)

    return made


def error_of(root: Path, out: str, call: int, end: Callable[[], None]) -> str:
    """Break both layouts off in a call; return the first one's error."""
    said = []
    shared: dict[str, Any] = {"kinds": KINDS, "seed": 3}
    layouts: list[Callable[[], None]] = [
        lambda: arrays(tiny_cifar(count=19), root / out / "arrays", batch_size=4, **shared),
        lambda: folders(tiny_imagenet_at(root), root / out / "folders", batch_size=5, **shared),
    ]
    for layout in layouts:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(write_sets, "corrupted_bytes", broken_in(call, end))
            with pytest.raises(BaseException) as error:
                layout()
        said.append(f"{type(error.value).__name__}: {error.value}")
    return " | ".join(said)


def full() -> None:
    raise OSError(28, "No space left on device", "contrast.npy.part")


def work(folder: str, rank: int) -> dict[str, Any]:
    root, found = Path(folder), dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch, job.joined(Job(rank, 2, rank)) as here:
        patch.setattr(readers, "processes", lambda workers: 0)  # a daemon starts none
        write(root, "two")
        for out, call in STOPS.items():
            signals = StopSignals()

            def end(out: str = out, signals: StopSignals = signals) -> None:
                if rank == 1 and out == "failed":
                    full()
                if rank == 1:
                    signals.pending = signal.SIGTERM

            with stopping.watched(signals):
                found[out] = error_of(root, out, call, end)
            here.wait()
            marker = read_marker(root / out / "arrays")
            found[f"{out}, complete"] = (marker or {})["complete"]
        here.wait()
        write(root, "failed", resume=True)  # with two; "stopped" with one
        write(root, "from one", resume=True)
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*.*")}


def test_files_are_one_processs_also_after_a_stop_or_a_failure(tmp_path: Path) -> None:
    write(tmp_path, "one")
    signals = StopSignals()
    stop = partial(setattr, signals, "pending", signal.SIGTERM)
    with stopping.watched(signals):
        arrays_only = partial(error_of, tmp_path, "from one")
        assert "SIGTERM" in arrays_only(9, stop)
    whole = files(tmp_path / "one")
    assert len(whole) == 3 + 1 + 1 + 1 + len(KINDS) * 5 * 12
    found = in_two_processes(partial(work, str(tmp_path)), tmp_path)
    for rank, each in enumerate(found):
        assert each["stopped"] == "Stopped: SIGTERM | Stopped: SIGTERM"
        assert each["failed"].count("No space left on device: 'contrast.npy.part'") == 2
        assert each["failed"].count("rank 1: ") == 2 * (rank == 0)
        assert each["stopped, complete"] is False and each["failed, complete"] is False
    assert 5 < len(files(tmp_path / "stopped")) < len(whole)  # something is kept
    write(tmp_path, "stopped", resume=True)
    for out in ("two", "stopped", "failed", "from one"):
        assert files(tmp_path / out) == whole, out
