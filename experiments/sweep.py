"""Train a study as one job per cohort, on all GPUs of a machine or on a Slurm cluster; bases
first. Rerunning the command trains only what is missing.

python -m experiments.sweep hydra/launcher=joblib hydra.launcher.n_jobs=8 experiment=imagenet
python -m experiments.sweep hydra/launcher=slurm hydra.launcher.partition=gpu experiment=imagenet

Settings used most, besides those of experiments.run:
hydra/launcher=NAME       joblib (processes, one GPU each), slurm, or your own (docs/cluster.md)
hydra.launcher.n_jobs=N   processes at the same time (joblib)
hydra.launcher.partition=NAME    Slurm's partition; conf/hydra/launcher/slurm.yaml has the rest
threads=N                 networks that train at the same time in each process, on a CPU
"""

from experiments.cli import run_module

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(run_module(__spec__.name))

import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from experiments.cli import JOB, STOPPED
from transferability.console import pluralize
from transferability.data.packed import dataset_of
from transferability.errors import UserError
from transferability.runs.store import Store
from transferability.signals import POSIX
from transferability.study.config import Config
from transferability.study.expand import study_specs
from transferability.study.jobs import group_into_jobs, with_bases
from transferability.study.spec import RunSpec

log = logging.getLogger(__name__)
QUEUE_POLL_SECONDS = 5.0
SHOWN = 5  # failed jobs named


def main(config: Config) -> None:
    if HydraConfig.get().mode == RunMode.MULTIRUN or config.mode != "train":
        raise UserError(
            "experiments.sweep takes neither -m nor mode=plan: use python -m experiments.run "
            "mode=plan"
        )
    # packs the synthetic images before the jobs need them
    dataset, store = dataset_of(config.dataset), Store(config.store)
    study = dict(enumerate(group_into_jobs(with_bases(study_specs(config, dataset)))))
    bases = {number: job for number, job in study.items() if job[0].stage == 0}
    transfers = {number: job for number, job in study.items() if job[0].stage > 0}
    failed = _train("bases", bases, store, [])
    ready = {
        n: job for n, job in transfers.items() if all(store.is_done(s.base) for s in job if s.base)
    }
    failed += _train("transfers", ready, store, ["sources=require"])
    if failed:
        waiting = len(transfers) - len(ready)
        wait = f"; {waiting} jobs that start from missing bases were not begun" if waiting else ""
        raise UserError(f"{'; '.join(failed)}{wait}. The same command resumes with what is missing")


def _train(
    what: str, phase: dict[int, list[RunSpec]], store: Store, settings: list[str]
) -> list[str]:
    """Train the unfinished jobs of ``phase``, by their numbers, in one multirun.

    Returns one message with the jobs that did not finish and their logs; an empty list if all did.
    """

    def unfinished() -> list[int]:
        return [
            number for number, job in phase.items() if not all(store.is_done(spec) for spec in job)
        ]

    left = unfinished()
    log.info("%s: %d of %d jobs to do", what, len(left), len(phase))
    if not left:
        return []
    launcher, given = HydraConfig.get().launcher, HydraConfig.get().overrides
    overrides = [
        *given.task,
        *(o for o in given.hydra if not o.startswith("hydra.mode=")),
        *settings,
    ]
    logs = None
    if "submitit_folder" in launcher:
        logs = _new_folder(store, what)
        log.info("%s: logs in %s", what, logs)
        overrides.append(f"hydra.launcher.submitit_folder='{logs}/%j'")
    _multirun([*overrides, f"job={','.join(map(str, left))}"])
    if logs and launcher._target_.endswith(".SlurmLauncher"):
        _wait_for_slurm(logs)
    if not (failed := unfinished()):
        return []
    lines = [
        f"job={n} ({_describe(phase[n])}{_log_of(logs, n, left.index(n))})" for n in failed[:SHOWN]
    ]
    more = "; ..." if len(failed) > SHOWN else ""
    return [
        f"{len(failed)} of {len(left)} jobs of the {what} did not finish: {'; '.join(lines)}{more}"
    ]


def _multirun(overrides: list[str]) -> None:
    """Run ``experiments.run -m`` to its end. Failures show in the store.

    Raises:
        KeyboardInterrupt: the multirun was stopped.
    """
    process = subprocess.Popen([sys.executable, "-m", "experiments.run", "-m", *overrides])
    # A signal may also have reached the multirun directly, as Ctrl-C does. The other signal is
    # sent, because each of the two counts separately.
    other: dict[int, int] = {signal.SIGINT: signal.SIGTERM, signal.SIGTERM: signal.SIGINT}

    def pass_on(number: int, _: object) -> None:
        if POSIX:  # on Windows, Ctrl-C reaches the multirun directly
            process.send_signal(other[number])

    before = {n: signal.signal(n, pass_on) for n in other}
    try:
        if process.wait() in (STOPPED, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _new_folder(store: Store, what: str) -> Path:
    """Make a folder for the logs of one multirun."""
    parent = store.root.absolute() / ".submitit"
    parent.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{time.strftime('%Y%m%d-%H%M%S')}-{what}-", dir=parent))


def _wait_for_slurm(logs: Path) -> None:
    """Wait until every job of this multirun has ended; the launcher returns as soon as one dies.
    The folder of a job is named after its number in the queue.
    """
    from submitit import SlurmJob

    numbers = [call.parent.name for call in logs.glob("*/*_submitted.pkl")]
    jobs: list[SlurmJob] = [SlurmJob(logs / "%j", number) for number in numbers]
    while not all(job.done(force_check=True) for job in jobs):
        time.sleep(QUEUE_POLL_SECONDS)


def _describe(job: list[RunSpec]) -> str:
    names = dict.fromkeys(f"{s.split} → {s.cell.target}, seed {s.seed}" for s in job)
    return f"{' & '.join(names)}, {pluralize(len(job), 'network')}"


def _log_of(logs: Path | None, number: int, place: int) -> str:
    """The log of a job in words, empty if there is none. The log contains the job's number; if the
    job died too early for that, its ``place`` in the Slurm array identifies the log.
    """
    paths = sorted(logs.glob("*/*_log.*")) if logs else []
    said = rf"\b{JOB} {number}$"
    own = [
        p for p in paths if re.search(said, p.read_text(encoding="utf-8", errors="replace"), re.M)
    ]
    own = own or [p for p in paths if p.parent.name.endswith(f"_{place}")]
    return f", log {own[0]}" if own else ""
