"""Leases: one owner of a folder on all machines, and none of one that has ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import files, lease, lease_file, stopping
from entprop_fast.lab.lease import Held, Lost
from entprop_fast.lab.lease_file import LEASE, Machine, Watch
from entprop_fast.lab.training.errors import FolderInUse, TakenOver
from entprop_fast.lab.training.run_folder import RunFolder
from tests.children import end_with_parent

FORK = multiprocessing.get_context("fork")
ROUNDS = 20


def be(host: str, lasts: float = 60.0, beat: float = 10.0) -> None:
    """Let this process be one of another machine."""
    end_with_parent()
    here = Machine(host, f"boot of {host}")
    patched: Any = lease_file
    patched.machine, patched.LASTS = (lambda: here), lasts
    lease.BEAT = beat


Start = Callable[..., tuple[BaseProcess, Connection]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``work(pipe, *arguments)`` in a process that ends with the test."""
    processes = []

    def started(work: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=work, args=(theirs, *arguments))
        process.start()
        theirs.close()
        processes.append(process)
        return process, ours

    yield started
    for process in processes:
        process.kill()
        process.join()


def foreign(folder: Path) -> bytes:
    """Leave the lease of a machine that is lost."""
    about = {"beat": "000000000007", "host": "lost", "pid": os.getpid(), "processes": "another"}
    content = json.dumps(about | {"started": "1", "token": "of a lost machine"}).encode()
    (folder / LEASE).write_bytes(content)
    return content


def race(pipe: Connection, host: str, folders: list[Path], content: bytes) -> None:
    be(host)
    for folder in folders:
        pipe.recv()
        won = lease_file.remove(folder, content)
        try:
            held = lease.take(folder)
        except Held:
            pipe.send((won, False))
            pipe.recv()
            continue
        pipe.send((won, True))
        pipe.recv()  # until both have tried
        held.check()
        lease.let_go(held)


def test_of_two_takers_one_wins(tmp_path: Path, start: Start) -> None:
    folders = [tmp_path / str(number) for number in range(ROUNDS)]
    for folder in folders:
        folder.mkdir()
        content = foreign(folder)
    takers = [start(race, host, folders, content)[1] for host in ("a", "b")]
    for _ in folders:
        for pipe in takers:
            pipe.send("go")
        won, held = zip(*(pipe.recv() for pipe in takers), strict=True)
        assert sorted(won) == sorted(held) == [False, True]
        for pipe in takers:
            pipe.send("on")
    for process in multiprocessing.active_children():
        process.join(10)
    assert [list(folder.iterdir()) for folder in folders] == [[]] * ROUNDS


def test_a_living_lease_that_was_taken_by_mistake_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a slow taker's look and its hand another was there: the worst moment."""
    content = foreign(tmp_path)
    rename, made = os.rename, []

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert lease_file.remove(tmp_path, content)
        made.append(lease.take(tmp_path))
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert not lease_file.remove(tmp_path, content)
    (owner,) = made
    owner.check()
    assert [one.name for one in tmp_path.iterdir()] == [LEASE]
    lease.let_go(owner)
    assert not list(tmp_path.iterdir())


def hold(pipe: Connection, host: str, lasts: float, beat: float, folder: Path) -> None:
    be(host, lasts, beat)
    held = lease.take(folder)
    pipe.send(os.getpid())
    while True:
        try:
            stopping.check()
            files.write_atomically(folder / "file", b"of the first")
        except Lost as lost:
            pipe.send(str(lost))
            lease.let_go(held)
            return
        time.sleep(0.01)


def test_a_stopped_owner_is_lost_and_writes_nothing_more(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_file, "LASTS", 2.0)
    process, pipe = start(hold, "first", 2.0, 0.1, tmp_path)
    pid = pipe.recv()
    with pytest.raises(FolderInUse, match=rf"writes to the run folder .*process {pid} on first"):
        RunFolder(tmp_path).claim()
    os.kill(pid, signal.SIGSTOP)
    began, folder = time.monotonic(), RunFolder(tmp_path)
    folder.claim()
    assert 1.5 < time.monotonic() - began < 20
    files.write_atomically(tmp_path / "file", b"of the second")
    os.kill(pid, signal.SIGCONT)
    assert "taken over by" in pipe.recv()
    process.join()
    assert (tmp_path / "file").read_bytes() == b"of the second"
    folder.release()
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(LEASE)] == []


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_atomically(path, b"new"),
        files.create_new,
        files.create,
        files.append,
        files.update,
    ],
)
def test_nothing_is_written_where_another_took_over(
    write: Callable[[Path], object], tmp_path: Path
) -> None:
    """Before the next sign of life, too; and the other's lease stays."""
    held, below = lease.take(tmp_path), tmp_path / "below" / "file"
    below.parent.mkdir()
    below.write_bytes(b"old")
    assert lease_file.remove(tmp_path, (tmp_path / LEASE).read_bytes())
    other = foreign(tmp_path)
    with pytest.raises(Lost, match="taken over by lost"):
        write(below)
    assert below.read_bytes() == b"old"
    lease.let_go(held)
    assert (tmp_path / LEASE).read_bytes() == other


def test_the_end_of_a_process_of_this_machine_is_seen_at_once(tmp_path: Path, start: Start) -> None:
    """And only of one whose number means the same here: a container counts its own."""
    process, pipe = start(hold, "here", 60.0, 10.0, tmp_path)
    pid = pipe.recv()
    process.kill()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a zombie has ended
    for other in (Machine("there", "boot of here"), Machine("here", "its other container")):
        assert not _seen_by(other, tmp_path).ended
    assert _seen_by(Machine("here", "boot of here"), tmp_path).ended


def _seen_by(machine: Machine, folder: Path) -> lease_file.Seen:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_file, "machine", lambda: machine)
        seen = lease_file.look(folder)
    assert seen is not None
    return seen


def test_a_count_that_moves_is_life_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch, about = Watch(tmp_path), json.loads(foreign(tmp_path))

    def ended(at: float, beat: str) -> Any:
        (tmp_path / LEASE).write_text(json.dumps(about | {"beat": beat}))
        now[0] = at
        seen = watch.look()
        return seen and (seen.ended, watch.moved)

    assert ended(0, "1") == (False, False)
    assert ended(59, "1") == (False, False)
    assert ended(61, "2") == (False, True)
    assert ended(120, "2") == (False, True)
    assert ended(121.5, "2") == (True, True)


@pytest.mark.parametrize("gone", ["run", "run/.lease"])
def test_what_was_removed_is_said_to_be(gone: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(TakenOver, match="was removed: nothing more is written"):
        with folder.claimed():
            path = tmp_path / gone
            path.unlink() if path.is_file() else shutil.rmtree(path)
            files.write_atomically(folder / "file", b"")
    assert not (folder / "file").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\0", b"[" * 4096, b"{}", b"[1]", b"x" * 10**6),
        *(b'"pid": 1e999', b'"pid": -9', b'"host": "\\ud800"', b'"token": ""'),
    ],
)
def test_a_file_that_is_no_lease_is_outlived(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in it, it is that of an unknown machine, which shows no life."""
    monkeypatch.setattr(lease_file, "LASTS", 0.0)
    monkeypatch.setattr(lease, "_PAUSE", 0.0)
    if content.startswith(b'"'):
        about = foreign(tmp_path)
        name = content.partition(b":")[0]
        content = b"{%s, %s" % (content, about[1:].replace(name, b'"beat"'))
    (tmp_path / LEASE).write_bytes(content)
    with RunFolder(tmp_path).claimed():
        assert lease_file.look(tmp_path).pid == os.getpid()  # type: ignore[union-attr]


def test_a_process_that_is_hidden_may_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, where /proc shows one's own alone (hidepid)."""

    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    held = lease.take(tmp_path)
    monkeypatch.setattr(lease_file, "_started", lambda pid: "")
    assert _seen_by(lease_file.machine(), tmp_path).ended
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert not _seen_by(lease_file.machine(), tmp_path).ended
    lease.let_go(held)


def test_a_process_may_hold_its_folder_twice(tmp_path: Path) -> None:
    outer, inner = RunFolder(tmp_path), RunFolder(tmp_path)
    outer.claim()
    inner.claim()
    inner.release()
    assert (tmp_path / LEASE).is_file()
    outer.release()
    assert not list(tmp_path.iterdir())


def test_a_loss_that_two_threads_notice_is_one_which_ends_with_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One halts the process with it; the other may not put another in its place."""
    held, look, both = lease.take(tmp_path), lease_file.look, threading.Barrier(2)
    assert lease_file.remove(tmp_path, (tmp_path / LEASE).read_bytes())
    foreign(tmp_path)

    def slow(folder: Path) -> lease_file.Seen | None:
        seen = look(folder)
        both.wait(10)
        return seen

    def notice() -> Lost:
        lost = held._lose()
        stopping.halt(lost)
        return lost

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(lease_file, "look", slow)
        found = [one.result() for one in [threads.submit(notice) for _ in range(2)]]
    assert found[0] is found[1]
    stopping.proceed(found[0])  # there is one, but both threads of this test told it
    lease.let_go(held)
    stopping.check()
