"""A study on a real Slurm cluster of one node: preempted, timed-out and dying jobs,
and the same bytes in the end.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.slurm.cluster import ask, cluster, missing
from tests.helpers import results_of
from tests.miniature import ROOT, SHRUNK

pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'")
pytestmark = [
    pytest.mark.slow,  # sixteen processes that import torch, and the daemons
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

STUDY = [
    *SHRUNK,
    "split=random-0",
    "target=B",
    "study.treatments={random: [base, AnB]}",
    "study.layers=[3]",
]
# longer than a preemption takes; every step is saved
LONG = [*STUDY, "recipe.steps=3000", "recipe.eval_every=1500"]
SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=1",
]


@pytest.fixture(scope="module")
def slurm():
    with cluster() as environment:
        yield environment


def start(
    module: str, folder: Path, *overrides: str, environment: dict[str, str] | None = None
) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        module,
        *overrides,
        f"data_dir={folder}/data",
        f"store={folder}/runs",
    ]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and standard error."""
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors


def wait_for(what, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while not what():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.02)


def logs(store: Path) -> dict[str, str]:
    """What the jobs wrote, by their numbers in the queue."""
    return {path.parent.name: path.read_text() for path in store.glob(".submitit/*/*/*_log.out")}


def test_jobs_that_are_preempted_or_time_out_go_on_to_the_same_bytes(slurm, tmp_path):
    local = start("experiments.run", tmp_path / "local", *LONG)
    store = tmp_path / "cluster" / "runs"
    overrides = [*LONG, "checkpoint_seconds=0", *SLURM]
    sweep = start("experiments.sweep", tmp_path / "cluster", *overrides, environment=slurm)
    wait_for(lambda: len(list(store.glob("*/checkpoint.safetensors"))) == 2, sweep)
    first, second = sorted(logs(store))
    # What Slurm sends before the time limit; submitit requeues the job.
    ask(slurm, "scancel", "--signal=USR2", first)
    # A job that takes the node from the others: SIGTERM, a time of grace, SIGKILL,
    # and Slurm requeues them.
    ask(
        slurm,
        "sbatch",
        "--partition=urgent",
        "--cpus-per-task=4",
        "--output=/dev/null",
        "--wrap=true",
    )
    wait_for(lambda: "Bypassing signal SIGTERM" in logs(store)[second], sweep)
    # lest it is finished when Slurm gets round to killing it
    ask(slurm, "scancel", "--signal=STOP", second)
    status, errors = finish(sweep)
    assert status == 0, errors
    said = logs(store)
    for number in (first, second):
        assert "steps of 6 images, 1 resumed" in said[number], said[number]
        assert "Restarts=1" in ask(slurm, "scontrol", "show", "job", number)
    assert "SIGUSR2" in said[first] and "SIGUSR2" not in said[second]
    assert len(said) == 3, "two jobs of bases and one that starts from them"
    assert finish(local)[0] == 0
    assert (
        results_of(store) == results_of(tmp_path / "local" / "runs")
        and len(results_of(store)) == 3 * 4
    )
    assert not list(store.rglob("*.tmp")) and not list(store.rglob("checkpoint*"))

    status, errors = finish(
        start("experiments.sweep", tmp_path / "cluster", *overrides, environment=slurm)
    )
    assert (
        status == 0
        and "bases: 0 of 2 jobs to do" in errors
        and "transfers: 0 of 1 jobs to do" in errors
    )
    assert logs(store) == said, "a rerun submits nothing"


def test_a_job_that_dies_is_named_with_its_log_and_the_others_finish(slurm, tmp_path):
    dies = "hydra.launcher.setup=['[ $SLURM_ARRAY_TASK_ID != 0 ] || { echo no memory; exit 3; }']"
    status, errors = finish(
        start("experiments.sweep", tmp_path, *STUDY, *SLURM, dies, environment=slurm)
    )
    line = errors.strip().splitlines()[-1]
    assert status == 2
    assert line.startswith(
        "error: 1 of 2 jobs of the bases did not finish: "
        "job=0 (random-0 → A, seed 0, 1 network, log "
    )
    log = Path(line.partition(", log ")[2].partition(")")[0])
    assert log.read_text() == "no memory\n"
    assert [path.parent.name.split("-")[3] for path in tmp_path.glob("runs/*/DONE")] == ["baseB"]
    assert len(logs(tmp_path / "runs")) == 2, "nothing that needs base A was submitted"
