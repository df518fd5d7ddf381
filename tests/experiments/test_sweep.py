"""A study as jobs of a launcher: bases first, only what is missing, failures named.
tests/experiments/test_slurm.py has Slurm.
"""

import os
import re
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

import experiments.sweep
from tests import crash
from tests.helpers import results_of, snapshot
from tests.miniature import CPU, SHRUNK, shrunk
from tests.multirun import fork_multiruns
from transferability.data.pack import pack
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study.expand import study_specs

STUDY = [
    *SHRUNK,
    "split=random-0",
    "target=B",
    "study.treatments={random: [base, AnB]}",
    "study.layers=[3]",
]


def settings(folder: Path, *overrides: str) -> list[str]:
    return [*STUDY, *crash.places(folder), *overrides]


def start(folder: Path, *overrides: str) -> tuple[BaseProcess, Path]:
    """``python -m experiments.sweep`` in a process group of its own, as a terminal gives it; and
    the file of what it prints. With the basic launcher the multiruns that it starts are forked
    like itself; others, and their workers, are processes that import torch.
    """
    log = folder / "log"
    log.write_text("")
    words = settings(folder, *overrides)
    begin = fork_multiruns if "hydra/launcher=basic" in words else None
    return crash.start("experiments.sweep", words, log, begin=begin), log


def finish(process: BaseProcess, log: Path) -> tuple[int, str]:
    """Exit status and what it printed."""
    process.join(300)
    return process.exitcode, log.read_text()


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_to_the_bytes_of_one_process(cli, tmp_path):
    """Its bases are stopped; the second time the transfers follow."""
    bases, transfers = 2, 1
    asked = ["hydra/launcher=basic", "recipe.steps=150", "recipe.eval_every=150"]
    sweep, log = start(tmp_path, *asked, "checkpoint_seconds=0")
    deadline = time.monotonic() + 180
    while not list(tmp_path.glob("runs/*/checkpoint.safetensors")):
        assert sweep.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(sweep.pid, signal.SIGINT)  # as Ctrl-C does
    status, errors = finish(sweep, log)
    assert (
        status == 130
        and "interrupted; run the same command again to resume from the last checkpoint" in errors
    ), errors
    assert not list(tmp_path.glob("runs/*/DONE"))

    status, errors = finish(*start(tmp_path, *asked))
    resumed = errors.count("1 network: 150 steps of 6 images, 1 resumed")
    assert status == 0 and resumed == 1, errors
    assert re.findall(r"(\w+): (\d of \d) jobs to do", errors) == [
        ("bases", f"{bases} of {bases}"),
        ("transfers", f"{transfers} of {transfers}"),
    ]

    config = shrunk(
        tmp_path / "one",
        *STUDY[len(SHRUNK) :],
        *(word for word in asked if not word.startswith("hydra")),
    )
    dataset, alone = pack(config.dataset), Store(config.store)
    train_missing(study_specs(config, dataset), alone, dataset, CPU)
    assert results_of(tmp_path / "runs") == results_of(alone.root)
    assert len(results_of(alone.root)) == (bases + transfers) * 4

    before = snapshot(tmp_path / "runs")
    status, _, errors = cli(experiments.sweep.main, *settings(tmp_path, *asked))
    assert (
        status == 0
        and f"bases: 0 of {bases} jobs to do" in errors
        and f"transfers: 0 of {transfers} jobs to do" in errors
    )
    assert snapshot(tmp_path / "runs") == before, "nothing is done twice"


@pytest.mark.slow
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
    sweep, log = start(
        tmp_path, *endless, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "threads=1"
    )
    deadline = time.monotonic() + 180
    while (
        "steps of 6 images" not in log.read_text()
        or len(list(tmp_path.glob("runs/*/spec.json"))) < 2
    ):
        assert sweep.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(1)
    if way == "Ctrl-C":
        os.killpg(sweep.pid, signal.SIGINT)
    else:
        sweep.terminate()
    status, errors = finish(sweep, log)
    assert status == 130 and "Traceback" not in errors and "error" not in errors.lower(), errors
    saved = [
        int(step)
        for step in re.findall(r"1 network: stopped, saved 1 at step (\d+) of 100000", errors)
    ]
    store = Store(tmp_path / "runs")
    assert (
        sorted(store.step(spec) for spec in store.specs()) == sorted(saved)
        and len(saved) == 2
        and min(saved) > 0
    )
    assert not store.verify()[1] and not list(tmp_path.glob("runs/*/.*tmp*"))
    assert errors.endswith(
        "interrupted; run the same command again to resume from the last checkpoint\n"
    )


# Over 5 s of CPU: the multirun is a process that imports torch; others' workers are, too.
@pytest.mark.parametrize(
    "launcher",
    [
        "basic",
        pytest.param("joblib", marks=pytest.mark.slow),
        pytest.param("submitit_local", marks=pytest.mark.slow),
    ],
)
def test_failed_bases_are_named_and_nothing_starts_from_them(launcher, tmp_path):
    if launcher == "submitit_local":
        pytest.importorskip(
            "hydra_plugins.hydra_submitit_launcher", reason="pip install '.[slurm]'"
        )
    status, errors = finish(*start(tmp_path, f"hydra/launcher={launcher}", "recipe.lr=1e30"))
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


@pytest.mark.slow
def test_a_network_that_nothing_starts_from_does_not_stop_the_transfers(tmp_path):
    """The random-filter network of a part has a rate at which it fails."""
    parts = "+study.parts={usual:{},fails:{treatments:{random:[RnB]},recipe:{lr:1e30}}}"
    status, errors = finish(*start(tmp_path, "hydra/launcher=basic", parts))
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


def test_slurm_without_the_extra_says_what_to_install(cli, monkeypatch):
    """Without it nothing has registered the launcher's configuration."""
    Plugins.instance()  # has those that are installed register theirs, once
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(launchers, "submitit_slurm.yaml", raising=False)
    status, _, errors = cli(experiments.sweep.main, "hydra/launcher=slurm")
    assert status == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: this launcher needs pip install '.[slurm]': ")
