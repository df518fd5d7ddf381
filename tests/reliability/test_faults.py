"""What happens to training when processes die, are told to stop, compete,
diverge or run out of memory.

Promised: the store ends bit for bit as if nothing had happened, or the command says in one line
what is wrong. The processes are real ones, forked by ``tests/crash.py``.
"""

import errno
import fcntl
import gc
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import experiments.run
from tests import crash
from tests.miniature import CPU, SHRUNK, shrunk
from transferability.data.pack import pack
from transferability.errors import UserError
from transferability.networks.sequential import SequentialNetwork
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.study.expand import study_specs
from transferability.training.devices import is_out_of_memory
from transferability.training.loop import train

RUN = "experiments.run"
PATIENCE = 200  # seconds, on a loaded machine


def until(condition: Callable[[], object], process=None) -> None:
    """Wait for ``condition``, as long as ``process`` lives."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.is_alive(), "the process ended before"
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.005)


def end(process, log: Path, status: int = 0) -> str:
    """Wait for the process; what it said."""
    process.join(PATIENCE)
    said = log.read_text()
    assert process.exitcode == status, said
    return said


def last_line(said: str) -> str:
    return said.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def data(config, dataset):
    """The setting that names data packed before."""
    return f"data_dir={Path(config.dataset.folder).parent}"


@pytest.fixture
def command(data, tmp_path):
    """command(*overrides): the shrunk study's arguments, with a store of this test."""
    return lambda *overrides: [*SHRUNK, data, f"store={tmp_path}/runs", *overrides]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(*overrides): the folder of the shrunk study's data and runs, made once and in
    this process, which no signal disturbs.
    """
    made = {}

    def make(*overrides) -> Path:
        if overrides not in made:
            made[overrides] = folder = tmp_path_factory.mktemp("undisturbed")
            config = shrunk(folder, *overrides)
            packed = pack(config.dataset)
            train_missing(study_specs(config, packed), Store(config.store), packed, CPU)
        return made[overrides]

    return make


def differences(folder: Path, other: Path) -> list[str]:
    """What is not the same in the stores of two folders."""
    return crash.differences(crash.contents(folder / "runs"), crash.contents(other / "runs"))


# Kills


@pytest.fixture(scope="module")
def unforked(tmp_path_factory):
    """The folder of the whole study of ``tests/crash.py``, made by a process that nobody forked."""
    return crash.references(tmp_path_factory.mktemp("unforked"), [crash.Study])


@pytest.fixture(scope="module")
def small(undisturbed):
    """The folder of the small study of ``tests/crash.py``."""
    return undisturbed(*crash.Small.settings[len(SHRUNK) :])


# Over 5 s of CPU: kills of both are needed, and some come when there is nothing left to kill.
def test_random_kills_of_a_small_study_change_nothing(tmp_path, small):
    kinds = {crash.Small: small, crash.Packing: small}
    tally = crash.harass(tmp_path, 2, 1, [*kinds], most=1, expected=kinds)
    assert not tally.wrong, tally.table(0)
    assert tally.finished["small"] >= 1 and tally.finished["packing"] >= 1


@pytest.mark.slow
def test_random_kills_change_nothing(tmp_path, unforked):
    tally = crash.harass(tmp_path, 10, 1, [crash.Study, crash.Packing], expected=unforked)
    assert not tally.wrong, tally.table(0)
    assert tally.finished["study"] >= 1 and tally.finished["packing"] >= 1


# Over 5 s of CPU: after each of the deaths a second process goes on.
@pytest.mark.parametrize(
    ("stride", "kills", "phases"), [(71, 4, 3), pytest.param(23, 10, 5, marks=pytest.mark.slow)]
)
def test_a_death_at_any_file_operation_changes_nothing(stride, kills, phases, tmp_path, small):
    tally = crash.each(tmp_path, first=3, stride=stride, expected=small)
    assert not tally.wrong, tally.table(0)
    assert tally.kills.total() >= kills and len(tally.kills) >= phases, "it died in many phases"


# Stop requests


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_stop_saves_the_very_step_where_training_stood(number, command, tmp_path, undisturbed):
    """Evaluations at every step tell in the log where it stood;
    the stopped study ends as one that was not.
    """
    long = ["split=random-0", "target=B", "study.treatments.random=[base]", "study.seeds=[0,1]"]
    long += ["recipe.steps=60", "recipe.eval_every=1"]
    log, store = tmp_path / "log", Store(tmp_path / "runs")
    process = crash.start(RUN, command(*long), log)
    until(lambda: log.exists() and "step 5/60" in log.read_text(), process)
    os.kill(process.pid, number)
    said = end(process, log, 130)
    wanted = "interrupted; run the same command again to resume from the last checkpoint"
    assert last_line(said) == wanted
    stood = int(re.findall(r"step (\d+)/60", said)[-1])
    assert 5 <= stood < 60
    assert {store.step(spec) for spec in store.specs()} == {stood} and len(store.specs()) == 2
    assert not store.verify()[1] and not list(tmp_path.rglob(".*.tmp"))
    end(crash.start(RUN, command(*long), log), log)
    assert re.search(r"2 networks: 60 steps of 6 images, 2 resumed", log.read_text())
    assert differences(tmp_path, undisturbed(*long)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_stop_does_not_wait_for_the_step(number, command, tmp_path):
    """A step of seconds is under way; the second signal does without its end and without the
    checkpoint that a first one asks for. Nothing is damaged.
    """
    log, store = tmp_path / "log", Store(tmp_path / "runs")
    process = crash.start(
        RUN, command("cell=baseB", "recipe.batch_size=20000", "recipe.steps=1000"), log
    )
    until(lambda: log.exists() and "1000 steps of" in log.read_text(), process)
    time.sleep(0.5)
    os.kill(process.pid, number)
    time.sleep(0.2)
    os.kill(process.pid, number)
    began = time.monotonic()
    process.join(PATIENCE)
    print(f"the process ended {time.monotonic() - began:.1f} s after the second signal")
    assert process.exitcode == -number, "killed by the signal itself: nothing was waited for"
    assert not store.verify()[1] and {store.state(s) for s in store.specs()} == {"missing"}


def test_a_stop_after_the_last_step_ends_the_command_too(spec_of, dataset, tmp_path):
    """It comes with the last evaluation of the base: what is finished is kept,
    the next network is not begun.
    """

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "step 8/8" in record.getMessage():
                signal.raise_signal(signal.SIGINT)

    log = logging.getLogger("transferability.runs")
    interrupt = Interrupt()
    store = Store(tmp_path)
    log.setLevel("INFO")
    log.addHandler(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_missing([spec_of("B3B")], store, dataset, CPU)
    finally:
        log.removeHandler(interrupt)
        log.setLevel("NOTSET")
    assert store.state(spec_of("baseB")) == "done" and store.state(spec_of("B3B")) == "missing"


# Several processes


def together(commands: list[list[str]], folder: Path) -> int:
    """Start the commands at the same moment; how many networks they trained when all have ended."""
    logs = [folder / f"log{i}" for i in range(len(commands))]
    processes = [crash.start(RUN, one, log) for one, log in zip(commands, logs, strict=True)]
    said = [end(process, log) for process, log in zip(processes, logs, strict=True)]
    return sum(int(n) for text in said for n in re.findall(r"(\d+) networks?: finished", text))


def test_two_processes_train_every_run_once(tmp_path, command, undisturbed):
    study = ["split=random-0", "study.layers=[3]", "study.treatments.random=[base,BnB,AnB]"]
    trained = together([command(*study), command(*study, "target=B")], tmp_path)
    assert differences(tmp_path, undisturbed(*study)) == []
    assert trained == len(list(tmp_path.glob("runs/*/DONE"))) == 6


@pytest.mark.slow
def test_eight_processes_train_every_run_once(tmp_path, unforked, data):
    """They ask for overlapping parts of one study at the same moment."""
    asked = [
        [],
        ["split=random-0"],
        ["target=A"],
        ["target=B"],
        ["study.layers=[2]"],
        ["study.layers=[5]"],
    ]
    asked += [["cell=A2B+", "split=random-0"], ["split=natural-manmade"]]
    settings = [*crash.STUDY, data, f"store={tmp_path}/runs"]
    trained = together([[*settings, *a] for a in asked], tmp_path)
    assert differences(tmp_path, unforked[crash.Study]) == []
    assert trained == len(list(tmp_path.glob("runs/*/DONE"))) == 28


@pytest.mark.slow
def test_those_who_wait_take_over_from_an_owner_that_is_killed(command, tmp_path, undisturbed):
    long = ["cell=baseB", "split=random-0", "recipe.steps=100", "recipe.eval_every=50"]
    store, logs = Store(tmp_path / "runs"), [tmp_path / f"log{i}" for i in range(3)]
    owner = crash.start(RUN, command(*long, "checkpoint_seconds=0"), logs[0])
    until(lambda: list(tmp_path.glob("runs/*/checkpoint-previous.safetensors")), owner)
    # it holds its lock and does nothing, however slow the others start
    os.kill(owner.pid, signal.SIGSTOP)
    waiting = [crash.start(RUN, command(*long), log) for log in logs[1:]]
    for process, log in zip(waiting, logs[1:], strict=True):
        until(lambda log=log: log.exists() and "waiting for 1 runs" in log.read_text(), process)
    (spec,) = store.specs()
    assert store.state(spec) == "training"
    owner.kill()
    owner.join()
    said = "".join(end(process, log) for process, log in zip(waiting, logs[1:], strict=True))
    assert said.count("1 resumed") == 1 and said.count("1 network: finished") == 1
    assert differences(tmp_path, undisturbed(*long)) == []


def test_the_lock_of_a_dead_process_is_no_obstacle(spec_of, tmp_path):
    store, spec = Store(tmp_path), spec_of("baseB")
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
            "print('held', flush=True); sys.stdin.read()",
            str(tmp_path / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    store.lock(spec).release()
    os.replace(tmp_path / "lock", store.folder(spec) / ".lock")
    assert store.lock(spec) is None and store.state(spec) == "training"
    process.kill()
    process.communicate()
    assert store.state(spec) == "missing"
    store.lock(spec).release()


NO_FLOCK = """
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int flock(int fd, int operation) {
    char link[64], path[4096] = "";
    (void)operation;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0) return 0;
    if (!strstr(path, "/runs/")) return 0; /* the data's locks */
    if (FAILS) errno = FAILS;
    return FAILS ? -1 : 0;
}
"""


LOCKS = {
    errno.ENOLCK: "this file system has no locks (No locks available)",
    errno.ENOSYS: "this file system has no locks",
    0: "this file system has locks that exclude nobody",
}


def says_that_locks_do_not_work(errors: str, message: str, folder: Path) -> None:
    """One line and no network."""
    assert errors.startswith(f"error: store={folder}/runs: ") and message in errors
    assert len(errors.splitlines()) == 1 and "put the store on a local disk" in errors
    assert not list(folder.glob("runs/*/")), "nothing was trained"


@pytest.mark.parametrize("fails", LOCKS)
def test_a_store_without_working_locks_is_named(fails, command, cli, tmp_path, monkeypatch):
    """Python's ``flock`` is replaced by one that fails, and by one that keeps nobody out."""
    real = fcntl.flock

    def flock(file, operation):
        if "/runs/" not in os.readlink(
            f"/proc/self/fd/{file if type(file) is int else file.fileno()}"
        ):
            return real(file, operation)  # the data's locks
        if fails:
            raise OSError(fails, os.strerror(fails))

    monkeypatch.setattr(fcntl, "flock", flock)
    status, _, errors = cli(experiments.run.main, *command("cell=baseB"))
    assert status == 2, errors
    says_that_locks_do_not_work(errors, LOCKS[fails], tmp_path)


@pytest.mark.slow
def test_locks_of_the_system_that_do_not_work_are_noticed(tmp_path):
    """The C library's ``flock`` is replaced by one that fails, and by one that keeps nobody out."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler")
    (tmp_path / "flock.c").write_text(NO_FLOCK)
    (tmp_path / "runs").mkdir()
    check = (
        "import pathlib, sys; from transferability.runs.locks import check_locks;"
        "check_locks(pathlib.Path(sys.argv[1]))"
    )
    for fails, message in LOCKS.items():
        library = tmp_path / f"flock{fails}.so"
        build = [
            compiler,
            "-shared",
            "-fPIC",
            f"-DFAILS={fails}",
            str(tmp_path / "flock.c"),
            "-o",
            str(library),
        ]
        subprocess.run(build, check=True)
        done = subprocess.run(
            [sys.executable, "-c", check, tmp_path / "runs"],
            cwd=crash.ROOT,
            env={**os.environ, "LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and f"UserError: store={tmp_path}/runs: " in done.stderr
        assert message in done.stderr.splitlines()[-1]


# Networks that fail


@pytest.mark.parametrize(("scale", "step"), [(1e6, 0), (40.0, None)])
def test_a_network_that_explodes_does_not_touch_its_cohort(
    scale, step, spec_of, trained, dataset, tmp_path, caplog
):
    """Its inputs are too large; it is marked, its cohort continues to the same bits,
    what starts from it waits.
    """
    wild, more = {"input_scale": scale}, {"recipe": {"steps": 24, "eval_every": 4, "lr": 0.3}}
    cells = ("A3A", "A3B", "A3B+")
    healthy = [spec_of(c, **more) for c in ("baseA", "baseB")]
    dependent = [spec_of(c, network=wild, **more) for c in cells]
    bad, store = dependent[0].source, Store(tmp_path)
    with pytest.raises(
        UserError, match=f"random-0 baseA seed 0 .*; {len(cells)} that start from them"
    ) as error:
        train_missing([*healthy, *dependent], store, dataset, CPU)
    failure = store.failure(bad)
    assert f"(step {failure['step']}, rate {failure['lr']:.3g}, last" in str(error.value)
    assert failure["step"] == step if step is not None else failure["step"] > 0
    assert bad.source is None and store.state(bad) == "failed"
    assert (failure["last"] is not None) == (failure["step"] >= 4), (
        "the last metrics, where there were any"
    )
    assert {store.state(s) for s in dependent} == {"missing"}
    alone = trained(healthy)
    for spec in healthy:
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (store.folder(spec) / name).read_bytes() == (
                alone.folder(spec) / name
            ).read_bytes()
    _tries_again_only(bad, [*healthy, *dependent], store, dataset, caplog)


def _tries_again_only(bad, specs, store: Store, dataset, caplog) -> None:
    before = store.failure(bad)["attempt"]
    caplog.clear()
    caplog.set_level("INFO")
    with pytest.raises(UserError, match="became infinite or NaN"):
        train_missing(specs, store, dataset, CPU)
    assert re.findall(r"(\d+) networks?: \d+ steps", caplog.text) == ["1"]
    assert store.failure(bad)["attempt"] != before


def test_a_command_whose_network_explodes_does_not_end_well(command, cli):
    wild = command("cell=A3B", "split=random-0", "network.input_scale=1e30", "study.layers=[3]")
    status, _, said = cli(experiments.run.main, *wild)
    assert status == 2 and last_line(said).startswith(
        "error: the loss of 1 of 2 networks became infinite or NaN"
    )


# Memory

LARGE = [
    "split=random-0",
    "target=B",
    "study.treatments.random=[BnB+,AnB+]",
    "study.layers=[1,2,3]",
    "threads=1",
]
LARGE += [
    "network.hidden=[3500,3500]",
    "recipe.steps=2",
    "recipe.eval_every=1",
    "recipe.warmup_steps=0",
]
# bytes: three networks of 150 MB with their sources fit in 550, six in 930
ROOM = {"RLIMIT_AS": 720 << 20}


@pytest.mark.slow
def test_memory_that_runs_out_splits_the_cohort(command, tmp_path):
    """The kernel refuses memory; fewer networks at a time end with the same bytes."""
    whole, log = tmp_path / "whole", tmp_path / "log"
    end(crash.start(RUN, command(*LARGE, f"store={whole}"), log), log)
    said = end(crash.start(RUN, command(*LARGE), log, limits=ROOM), log)
    halved = re.findall(
        r"out of memory with (\d+) networks held at once: continuing with (\d+)", said
    )
    assert halved[0] == ("6", "3")
    assert crash.differences(crash.contents(tmp_path / "runs"), crash.contents(whole)) == []
    for base in whole.glob("*base*"):  # the limit that a user has set is not lowered silently
        shutil.copytree(base, tmp_path / "set" / base.name)
    said = end(
        crash.start(
            RUN, command(*LARGE, f"store={tmp_path}/set", "max_networks=6"), log, limits=ROOM
        ),
        log,
        2,
    )
    assert "with 6 networks held at once: set max_networks=3, or null" in last_line(said)


GPU_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    # pinned memory
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
]


@pytest.mark.parametrize("error", GPU_MEMORY, ids=lambda e: str(e)[:30])
def test_memory_of_a_gpu_runs_out_in_many_words(error):
    """What torch and its libraries say, also where the end of a capture fails because of it."""
    assert is_out_of_memory(error)
    try:
        try:
            raise error
        finally:
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            )
    except RuntimeError as end_of_capture:
        assert is_out_of_memory(end_of_capture)
    for other in (
        "CUDA error: an illegal memory access was encountered",
        "mat1 and mat2 shapes cannot be multiplied",
    ):
        assert not is_out_of_memory(RuntimeError(other))


@pytest.mark.slow
def test_a_long_run_keeps_nothing(spec_of, trained, dataset, tmp_path):
    """Objects, tensors and open files stay as many from a fifth of the steps on;
    memory (printed) all but so.
    """
    steps = 1000
    recipe = {"steps": steps, "eval_every": 20}
    store = Store(tmp_path)
    specs = [spec_of("baseB", recipe=recipe), spec_of("baseA", recipe=recipe)]
    locks = [store.lock(s) for s in specs]
    cohorts, seen = make_cohorts(specs, store, dataset, CPU), []

    def look(step: int, active: list) -> None:
        if step % (steps // 10) == 0:
            gc.collect()
            objects = gc.get_objects()
            tensors = sum(issubclass(type(o), torch.Tensor) for o in objects)
            files = os.listdir("/proc/self/fd")
            resident = int(Path("/proc/self/statm").read_text().split()[1]) / 256
            seen.append((step, len(objects), tensors, len(files), resident))

    execution = replace(CPU, checkpoint_seconds=0.2)
    train(
        cohorts,
        execution,
        lambda m: store.save_checkpoint(m.spec, m.checkpoint()),
        pytest.fail,
        look,
    )
    late = [row for row in seen if row[0] >= steps // 5]
    (_, *first), (_, *last) = late[0], late[-1]
    print("step, objects, tensors, files, MiB:", *seen, sep="\n")
    # where a batch is just being read, there are fewer tensors, and a file more
    before, after = (
        (max(tensors for _, _, tensors, *_ in part), min(files for *_, files, _ in part))
        for part in (late[:4], late[4:])
    )
    assert abs(last[0] - first[0]) < 100 and after == before
    assert last[3] - first[3] < 30, "MiB"
    for lock in locks:
        lock.release()
    before = _networks()
    trained([spec_of(c, seed=7) for c in ("baseA", "A3B", "B3B", "A3A")])
    del cohorts, look
    assert _networks() <= before, "those of finished waves are gone"


def _networks() -> int:
    gc.collect()
    return sum(type(o) is SequentialNetwork for o in gc.get_objects())
