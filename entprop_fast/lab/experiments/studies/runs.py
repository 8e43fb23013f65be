"""The runs behind a study: spread over processes, each trained once and then read back."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from entprop_fast.devices import usable_cores
from entprop_fast.lab import stopping
from entprop_fast.lab.data.readers import workers_of_each
from entprop_fast.lab.experiments.studies.form import Options
from entprop_fast.lab.experiments.workers import follow_parent
from entprop_fast.lab.files import write_json
from entprop_fast.lab.report.progress import Reporter, duration
from entprop_fast.lab.stopping import SIGNALS
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.config import MACHINE_SETTINGS, Config
from entprop_fast.lab.training.device import resolve_device
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import RunFailed, Stopped, UsageError, bad_input
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.lab.training.trainer import Trainer

Record = dict[str, Any]  # summary.json, the last epoch's gap, and what the probe saw
Settings = Mapping[str, Value]

RECORD = "study.json"

_ASK = 0.5  # seconds after which it is asked whether to stop


class Probe(Reporter):
    """Watches a run from inside and keeps what no file of it holds.

    This one looks at nothing. Others must leave the run as it is: the model in eval mode, and
    random numbers from a generator of their own.
    """

    trainer: Trainer

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))

    def attach(self, trainer: Trainer) -> None:
        """Is given the run before its first step."""
        self.trainer = trainer

    def epoch_done(self, row: dict[str, Any], *, seconds_left: float) -> None:
        """An epoch is over."""
        self.after_epoch(row["epoch"])

    def after_epoch(self, epoch: int) -> None:
        """Look at the run after `epoch`, counted from 1."""

    def seen(self) -> Any:
        """What was seen, as JSON holds it; asked for once, at the end."""
        return None


MakeProbe = Callable[[], Probe]


@dataclass(frozen=True)
class Run:
    """One run: settings over the recipe's, what watches it, and what it is called meanwhile."""

    seed: int
    settings: Settings = field(default_factory=dict)
    probe: MakeProbe = Probe
    name: str = ""


def run_grid(
    options: Options,
    variants: Mapping[str, Settings],
    reporter: Reporter,
    probe: MakeProbe | Mapping[str, MakeProbe] = Probe,
) -> dict[str, list[Record]]:
    """Every variant with every seed: its records, in the order of the seeds.

    Args:
        options: of the study.
        variants: name to settings.
        reporter: hears of every run that ends.
        probe: watches each run; by variant where they differ, those without one unwatched.
    """
    of_variant = probe if isinstance(probe, Mapping) else dict.fromkeys(variants, probe)
    runs = [
        Run(seed, settings, of_variant.get(name, Probe), name)
        for name, settings in variants.items()
        for seed in options.seeds
    ]
    records = iter(run_all(options, runs, reporter))
    return {name: [next(records) for _ in options.seeds] for name in variants}


def source_of(records: Mapping[str, Sequence[Record]]) -> str:
    """Where the corrupted images of a grid's runs come from; they agree."""
    return str(next(iter(records.values()))[0]["corruption_source"])


def run_all(options: Options, runs: Sequence[Run], reporter: Reporter) -> list[Record]:
    """The records of `runs`, in their order; those that the folder holds are not trained again.

    Raises:
        UsageError: settings or data that cannot be used, or runs of the folder that were scored on
            other corrupted images than the rest.
        RunFailed: a loss became NaN or infinite, or a process was killed.
    """
    with bad_input():
        configs = [_config(options, run) for run in runs]
    missing = {
        config.folder: (config, run.probe)
        for config, run in zip(configs, runs, strict=True)
        if not (config.folder / RECORD).exists()
    }
    called = {config.folder: run.name for config, run in zip(configs, runs, strict=True)}
    if found := len(called) - len(missing):
        reporter.say(f"{len(called)} runs, {found} finished before")
    processes = _processes(options, len(missing))
    reporter.say(f"{len(missing)} runs to do, {processes} at a time")
    began = time.monotonic()
    try:
        with reporter.task(f"{len(missing)} runs", len(missing)) as task:
            for done, folder in enumerate(_trained(list(missing.values()), processes), 1):
                record = _read(folder)
                left = (time.monotonic() - began) * (len(missing) - done) / done
                reporter.say(
                    f"{done}/{len(missing)}  {called[folder] or record['method']}, seed "
                    f"{record['seed']}: Hscore {record['hscore']:.1f}, {record['seconds']:.0f} s  "
                    f"{duration(left)} left"
                )
                task.reach(done)
    except Stopped as stopped:
        whole = sum((folder / RECORD).exists() for folder in called)
        stopped.saved = f"{whole} of {len(called)} runs are finished, the others begin anew"
        raise
    records = {config.folder: _read(config.folder) for config in configs}
    _check_sources(records)
    return [records[config.folder] for config in configs]


def _check_sources(records: Mapping[Path, Record]) -> None:
    """Refuse a table of runs that were scored on different corrupted images."""
    of_source = {record["corruption_source"]: folder for folder, record in records.items()}
    if len(of_source) > 1:
        seen = "; ".join(f"{folder}: {source}" for source, folder in of_source.items())
        raise UsageError(
            f"one table needs one set of corrupted images, not several ({seen}): name one with "
            "--corruptions, or remove the runs that saw the others"
        )


def _config(options: Options, run: Run) -> Config:
    given: dict[str, Value | None] = {
        "train_size": options.train_size,
        "epochs": options.epochs,
        **options.overrides,
        **run.settings,
        "seed": run.seed,
        "device": options.device,
        "data_dir": options.data_dir,
        "threads": 1,
    }
    config = recipe.resolve(options.recipe, **given)
    if config.corruptions == "none":
        raise ValueError("corruptions = none: a study compares Hscores, which need some")
    decides = {k: v for k, v in asdict(config).items() if k not in MACHINE_SETTINGS}
    decides["probe"] = repr(run.probe)  # a class, or a partial of one and its arguments
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    folder = options.out / "runs" / f"{config.method}-{run.seed}-{key}"
    return replace(config, out=str(folder))


def _processes(options: Options, runs: int) -> int:
    """Count the processes that train at a time."""
    with bad_input():
        on_cpu = resolve_device(options.device).type == "cpu"
    return max(1, min(options.workers or (usable_cores() if on_cpu else 1), runs))


def _trained(work: Sequence[tuple[Config, MakeProbe]], processes: int) -> Iterator[Path]:
    """Train; yields each run's folder once it is done."""
    readers = workers_of_each(processes)
    work = [
        (config if config.workers is not None else replace(config, workers=readers), probe)
        for config, probe in work
    ]
    if processes == 1:
        yield from (_train(*one) for one in work)
        return
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_leave_signals
    )
    with pool:
        try:
            left = {pool.submit(_train, *one) for one in work}
            while left:
                done, left = wait(left, timeout=_ASK, return_when=FIRST_COMPLETED)
                stopping.check()
                for one in done:
                    yield one.result()
        except BrokenProcessPool as error:
            raise RunFailed(
                "a process of the study was killed, for want of memory perhaps: --workers sets "
                "their number; run again to go on, finished runs are kept"
            ) from error
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal: what runs would begin anew anyway
                for process in active_children():
                    process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _leave_signals() -> None:
    """Leave signals that reach a whole terminal or job to the parent, which ends this process."""
    for one in SIGNALS:
        if one != signal.SIGTERM:
            signal.signal(one, signal.SIG_IGN)
    follow_parent()


def _train(config: Config, probe: MakeProbe) -> Path:
    watching = probe()
    # A run that was interrupted begins anew: what its probe had seen is lost.
    try:
        summary = train(
            config, overwrite=True, reporter=watching, watch=watching.attach, pictures=False
        )
    except RunFailed as error:
        raise RunFailed(f"the run in {config.folder}: {error}") from None
    last = watching.trainer.rows[-1]
    more = {"gap": last["gap"], "train_accuracy": last["train_accuracy"], "seen": watching.seen()}
    write_json(config.folder / RECORD, asdict(summary) | more)
    return config.folder


def _read(folder: Path) -> Record:
    record: Record = json.loads((folder / RECORD).read_text())
    return record
