"""A study as jobs of a launcher: bases first, only what is missing, failures named.
tests/test_slurm.py has Slurm.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import experiments.sweep
from tests.conftest import CPU, SHRUNK, shrunk
from tests.test_store import contents, snapshot
from transferability.datasets import dataset_of
from transferability.runner import ensure
from transferability.store import Store
from transferability.study import study_specs

ROOT = Path(__file__).parent.parent
STUDY = [
    *SHRUNK,
    "split=random-0",
    "target=B",
    "study.treatments={random: [base, AnB]}",
    "study.layers=[3]",
]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    """``python -m experiments.sweep`` in a process group of its own, as a terminal gives it."""
    command = [
        sys.executable,
        "-m",
        "experiments.sweep",
        *STUDY,
        f"data_dir={folder}/data",
        f"store={folder}/runs",
    ]
    return subprocess.Popen(
        [*command, *overrides],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and standard error."""
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors


def test_a_sweep_that_is_stopped_goes_on_to_the_bytes_of_one_process(tmp_path):
    length = ["recipe.steps=150", "recipe.eval_every=150"]
    joblib = [*length, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = start(tmp_path, *joblib, "checkpoint_seconds=0")
    deadline = time.monotonic() + 180
    while len(list(tmp_path.glob("runs/*/checkpoint.safetensors"))) < 2:
        assert sweep.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(sweep.pid, signal.SIGINT)  # as Ctrl-C does
    status, errors = finish(sweep)
    assert (
        status == 130 and "stopped; the same command goes on from the last checkpoint" in errors
    ), errors
    assert not list(tmp_path.glob("runs/*/DONE"))

    status, errors = finish(start(tmp_path, *joblib))
    assert status == 0 and errors.count("1 network: 150 steps of 6 images, 1 resumed") == 2, errors
    assert re.findall(r"(\w+): (\d of \d) jobs to do", errors) == [
        ("bases", "2 of 2"),
        ("transfers", "1 of 1"),
    ]

    config = shrunk(tmp_path / "one", *STUDY[len(SHRUNK) :], *length)
    dataset, alone = dataset_of(config.dataset), Store(config.store)
    ensure(study_specs(config, dataset), alone, dataset, CPU)
    assert (
        contents(tmp_path / "runs") == contents(alone.root) and len(contents(alone.root)) == 3 * 4
    )

    before = snapshot(tmp_path / "runs")
    status, errors = finish(start(tmp_path, *joblib))
    assert (
        status == 0
        and "bases: 0 of 2 jobs to do" in errors
        and "transfers: 0 of 1 jobs to do" in errors
    )
    assert snapshot(tmp_path / "runs") == before, "nothing is done twice"


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM to the sweep alone"])
def test_all_that_trains_is_saved_before_a_sweep_ends(way, tmp_path):
    """Long before the first regular checkpoint, in processes at different steps;
    jobs in the queue stay there.
    """
    endless = [
        "study.seeds=[0,1]",
        "recipe.steps=100000",
        "recipe.eval_every=50000",
        "recipe.warmup_steps=0",
    ]
    sweep = start(
        tmp_path, *endless, "hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "threads=1"
    )
    for line in sweep.stderr:
        if "steps of 6 images" in line and len(list(tmp_path.glob("runs/*/spec.json"))) == 3:
            break
    time.sleep(1)
    if way == "Ctrl-C":
        os.killpg(sweep.pid, signal.SIGINT)
    else:
        sweep.terminate()
    status, errors = finish(sweep)
    assert status == 130 and "Traceback" not in errors and "error" not in errors.lower(), errors
    saved = [
        int(step)
        for step in re.findall(r"1 network: stopped, saved 1 at step (\d+) of 100000", errors)
    ]
    store = Store(tmp_path / "runs")
    assert (
        sorted(store.step(spec) for spec in store.specs()) == sorted(saved)
        and len(saved) == 3
        and min(saved) > 0
    )
    assert not store.verify()[1] and not list(tmp_path.glob("runs/*/.*tmp*"))
    assert errors.endswith("stopped; the same command goes on from the last checkpoint\n")


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_failed_bases_are_named_and_nothing_starts_from_them(launcher, tmp_path):
    if launcher == "submitit_local":
        pytest.importorskip(
            "hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'"
        )
    status, errors = finish(start(tmp_path, f"hydra/launcher={launcher}", "recipe.lr=1e30"))
    line = errors.strip().splitlines()[-1]
    assert status == 2 and "transfers: 0 of 0 jobs to do" in errors and "Traceback" not in errors, (
        errors
    )
    assert "; 1 jobs that start from missing bases were not begun. The same command" in line
    assert line.startswith("error: 2 of 2 jobs of the bases did not finish: "), (
        "one failure does not end the other job"
    )
    named = re.findall(r"job=(\d) \(random-0 → (\w), seed 0, 1 network(?:, log ([^)]+))?\)", line)
    assert sorted(number for number, _, _ in named) == ["0", "1"] and {
        task for _, task, _ in named
    } == {"A", "B"}
    for _, task, log in named:
        assert bool(log) == (launcher == "submitit_local")
        assert not log or f"base{task} failed at step" in Path(log).read_text()


def test_a_network_that_nothing_starts_from_does_not_stop_the_transfers(tmp_path):
    """The random-filter network of a part has a rate at which it fails."""
    parts = "+study.parts={usual:{},fails:{treatments:{random:[RnB]},recipe:{lr:1e30}}}"
    status, errors = finish(
        start(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", parts)
    )
    assert status == 2 and "Traceback" not in errors, errors
    line = errors.strip().splitlines()[-1]
    assert re.fullmatch(
        r"error: 1 of 2 jobs of the bases did not finish: job=\d \(random-0 → B, .*is missing", line
    )
    assert "not begun" not in line
    store = Store(tmp_path / "runs")
    assert {str(spec.cell) for spec in store.specs() if store.is_done(spec)} == {
        "baseA",
        "baseB",
        "A3B",
    }


@pytest.mark.parametrize("override", ["mode=plan", "-m"])
def test_a_sweep_is_neither_a_plan_nor_a_multirun(cli, tmp_path, override):
    status, _, errors = cli(
        experiments.sweep.main, f"data_dir={tmp_path}/data", f"store={tmp_path}/runs", override
    )
    assert status == 2 and errors.strip().splitlines()[-1].startswith(
        "error: experiments.sweep takes neither -m nor"
    )
    assert not (tmp_path / "data").exists()


def test_slurm_without_the_extra_says_what_to_install():
    hidden = "import sys; sys.modules['hydra_plugins.hydra_submitit_launcher'] = None\n"
    code = (
        f"{hidden}import experiments.cli as c, experiments.sweep as s\n"
        "sys.argv[1:] = ['hydra/launcher=slurm']; c.command(s.main)()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: this launcher needs pip install '.[slurm]': ")
