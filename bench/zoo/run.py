"""Check every network of the zoo, each in a process of its own: ``python -m bench.zoo.run``.

An interrupted run goes on. ``--left-over`` checks again what failed or was not converted wholly,
names given as arguments those alone. The committed rows change once every network has one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection

import torch

from bench import rows
from bench.zoo.builders import Network
from bench.zoo.cases import networks
from bench.zoo.check import check
from bench.zoo.table import NAME, complaint
from entprop_fast.lab.files import json_lines
from entprop_fast.optional import import_torchvision

SECONDS = 300  # for one network
GIGABYTES = 10


def main(arguments: list[str] | None = None) -> int:
    """Check what is not checked yet; the exit code is 0 once every network has its row."""
    parser = argparse.ArgumentParser(prog="python -m bench.zoo.run", description=__doc__)
    parser.add_argument("names", nargs="*", help="such as timm:resnet18; check these again")
    parser.add_argument("--left-over", action="store_true", help="check again what was not right")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for one network")
    parser.add_argument("--gigabytes", type=int, default=GIGABYTES, help="for one network")
    given = parser.parse_args(arguments)
    every = {str(network): network for network in networks()}
    if unknown := [name for name in given.names if name not in every]:
        parser.error(f"names: {', '.join(unknown)}: not among the networks of bench/zoo/cases.py")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end the process that runs
    done = _known()
    again = set(given.names)
    if given.left_over:
        again |= {name for name, row in done.items() if complaint(row)}
    todo = [n for name, n in every.items() if name in again or (name not in done and not again)]
    _prepare()
    for place, network in enumerate(todo, 1):
        row = _in_process(network, given.seconds, given.gigabytes)
        done[str(network)] = row | rows.stamp()
        rows.add(NAME, [row])  # the last one of a network counts
        print(f"{place}/{len(todo)} {network}: {complaint(row) or 'right'}", flush=True)
    missing = every.keys() - done.keys()
    if missing:
        print(f"{len(missing)} of {len(every)} networks are still to be checked")
        return 1
    path = rows.ROWS / f"{NAME}.jsonl"
    path.write_text(json_lines(done[name] for name in every))
    print(f"rows: {path}")
    return 0


def _known() -> dict[str, rows.Row]:
    """Return the committed rows and, over them, those of runs since, by network."""
    found: dict[str, rows.Row] = {}
    for path in (rows.ROWS / f"{NAME}.jsonl", rows.part(NAME)):
        if path.exists():
            found |= {r["network"]: r for r in map(json.loads, path.read_text().splitlines())}
    return found


def _prepare() -> None:
    """Import once what every process needs; one thread, so that a fork finds no other."""
    torch.set_num_threads(1)
    import_torchvision("models", purpose="the zoo")
    import timm  # noqa: F401

    rows.stamp()
    rows.PARTS.mkdir(parents=True, exist_ok=True)


def _in_process(network: Network, seconds: int, gigabytes: int) -> rows.Row:
    """Return the row of a network, or one that says what became of its process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(network, gigabytes, sender))
    began = time.perf_counter()
    process.start()
    sender.close()
    try:
        if receiver.poll(seconds):
            row: rows.Row = receiver.recv()
            return row
        why = f"took more than {seconds} s"
    except EOFError:
        process.join()
        why = f"its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
    taken = time.perf_counter() - began
    return {"network": str(network), "family": network.family, "failed": why, "seconds": taken}


def _child(network: Network, gigabytes: int, sender: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limit = gigabytes * 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        row = check(network)
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        row = {"network": str(network), "family": network.family, "failed": why, "seconds": 0.0}
    sender.send(row)


if __name__ == "__main__":
    sys.exit(main())
