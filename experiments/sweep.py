"""Train a study as one job a cohort, on all GPUs of a machine or on a Slurm cluster; bases before what starts from them.

python -m experiments.sweep hydra/launcher=joblib hydra.launcher.n_jobs=8 study=paper ...     8 processes, a GPU each
python -m experiments.sweep hydra/launcher=slurm hydra.launcher.partition=gpu study=paper ... a Slurm job each

Two Hydra multiruns of ``experiments.run``, of the jobs that are not finished: the same command again does what is missing.
"""

import logging
import subprocess
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from experiments.cli import command, dataset_of
from transferability.config import Config
from transferability.errors import UserError
from transferability.runner import jobs, with_sources
from transferability.spec import RunSpec
from transferability.store import Store
from transferability.study import study_specs

log = logging.getLogger(__name__)


def main(config: Config) -> None:
    dataset, store = dataset_of(config), Store(config.store)  # packs the embedded images before the jobs ask for them
    overrides = list(HydraConfig.get().overrides.task)
    launcher = [o for o in HydraConfig.get().overrides.hydra if not o.startswith("hydra.mode=")]
    study = jobs(with_sources(study_specs(config, dataset)))
    for what, of_phase in (("bases", lambda s: s.generation == 0), ("transfers", lambda s: s.generation > 0)):
        phase = {number: job for number, job in enumerate(study) if of_phase(job[0])}
        left = [number for number, job in phase.items() if not _done(job, store)]
        log.info("%s: %d of %d jobs to do", what, len(left), len(phase))
        if left:
            sources = ["sources=require"] if what == "transfers" else []
            numbers = f"job={','.join(map(str, left))}"
            subprocess.run([sys.executable, "-m", "experiments.run", "-m", *overrides, *launcher, *sources, numbers])
        if failed := [number for number in left if not _done(study[number], store)]:
            raise UserError(
                f"{len(failed)} of {len(left)} jobs of the {what} did not finish: {', '.join(map(str, failed))} "
                f"(numbers as in mode=plan){_logs(store)}; the same command goes on with what is missing"
            )


def _done(job: list[RunSpec], store: Store) -> bool:
    return all(store.is_done(spec) for spec in job)


def _logs(store: Store) -> str:
    """Where a cluster's jobs have left their logs."""
    folder = Path(store.root) / ".submitit"
    return f"; their logs are in {folder}" if folder.exists() else ""


if __name__ == "__main__":
    command(main)()
