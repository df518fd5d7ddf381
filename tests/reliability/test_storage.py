"""Disks that are full, stores that cannot be written, and files that are not as they were written.

Promised: a full disk is one line and loses nothing; a damaged checkpoint costs steps, never bits; a
damaged result is never used and is named with the way back, and that way leads to the same bits;
``Store.verify`` finds every damage.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

import experiments.run
from tests import crash
from tests.miniature import CPU, SHRUNK
from transferability.errors import UserError
from transferability.runs.load import load_run
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.training.checkpoint import CHECKPOINTS
from transferability.training.loop import train

NEWEST, PREVIOUS = CHECKPOINTS


def same(store: Store, other: Store, spec) -> bool:
    """Whether two stores hold the same results of ``spec``, and the first nothing else."""
    found, expected = crash.contents(store.folder(spec)), crash.contents(other.folder(spec))
    return crash.differences(found, expected) == []


def truncate(path: Path, size: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:size] if size >= 0 else data[: len(data) + size])


def flip(path: Path, position: int, bits: int = 0x01) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= bits
    path.write_bytes(data)


def flip_after(path: Path, words: bytes, bits: int = 0x01) -> None:
    """Change the first byte after ``words``."""
    flip(path, path.read_bytes().index(words) + len(words), bits)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: truncate(path, 0),
    "in the header": lambda path: truncate(path, 100),
    "half": lambda path: truncate(path, path.stat().st_size // 2),
    "the last byte is missing": lambda path: truncate(path, -1),
    "a flip in the length of the header": lambda path: flip(path, 0),
    "a flip in the tensors": lambda path: flip(path, path.stat().st_size * 3 // 4),
    "a flip in the last byte": lambda path: flip(path, -1),
    "zeroes": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}
IN_CHECKPOINTS = {
    **DAMAGE,
    "another step": lambda path: flip_after(path, b'"step":"'),
    "a step that is no number": lambda path: flip_after(path, b'"step":"', 0x40),
    "another metric": lambda path: flip_after(path, b"train_loss\\"),
    "another shape": lambda path: flip_after(path, b'"shape":['),
}


# Checkpoints


@pytest.fixture(scope="module")
def whole(trained, spec_of):
    """A store in which everything of this file is finished."""
    return trained([spec_of("A3B+"), spec_of("baseB")])


@pytest.fixture(scope="module")
def half(spec_of, dataset, tmp_path_factory):
    """A store in which baseB stands at step 6, with the checkpoint of step 5 beside it."""
    store, spec = Store(tmp_path_factory.mktemp("half")), spec_of("baseB")

    def save(member) -> None:
        store.save_checkpoint(spec, member.checkpoint())
        if member.step == 6:
            raise InterruptedError

    lock = store.lock(spec)
    execution = replace(CPU, checkpoint_seconds=0)
    with pytest.raises(InterruptedError):
        train(make_cohorts([spec], store, dataset, execution), execution, save, pytest.fail)
    lock.release()
    assert [_step(store.folder(spec) / name) for name in CHECKPOINTS] == [6, 5]
    return store


def _step(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])


# which checkpoints are damaged, and the step from which training then goes on
WHICH = [([NEWEST], 5), ([PREVIOUS], 6), (CHECKPOINTS, None)]


def diagonal(first, second) -> list:
    """Every pair of the two; by default those that name each once, the others are slow."""
    return [
        pytest.param(*a, *b, marks=[] if i % len(second) == j else pytest.mark.slow)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
    ]


@pytest.mark.parametrize(
    ("damage", "names", "step"), diagonal([(damage,) for damage in IN_CHECKPOINTS], WHICH)
)
def test_a_damaged_checkpoint_costs_steps_and_no_bits(
    damage, names, step, half, whole, spec_of, dataset, tmp_path, caplog
):
    store, spec = Store(shutil.copytree(half.root, tmp_path / "runs")), spec_of("baseB")
    for name in names:
        IN_CHECKPOINTS[damage](store.folder(spec) / name)
    assert [
        name
        for name in CHECKPOINTS
        if any(f"/{name} is damaged" in line for line in store.verify()[1])
    ] == [*names]
    store.step(spec), store.state(spec)  # a plan or a status does not fail
    found = store.load_checkpoint(spec)
    assert (found and found.step) == step
    assert [NEWEST in r.message for r in caplog.records if "is damaged" in r.message][:1] == [
        True
    ] * (NEWEST in names)
    train_missing([spec], store, dataset, CPU)
    assert same(store, whole, spec) and not store.verify()[1]


# Results


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_transfer_does_not_start_from_a_damaged_base(damage, whole, spec_of, dataset, tmp_path):
    """It says which file and what to do; what it says leads to the same bits."""
    store, spec = Store(tmp_path), spec_of("A3B+")
    base = store.folder(spec.source)
    shutil.copytree(whole.folder(spec.source), base)
    path = base / "weights.safetensors"
    DAMAGE[damage](path)
    with pytest.raises(UserError) as error:
        train_missing([spec], store, dataset, CPU)
    assert str(path) in str(error.value) and f"delete {base}/DONE and run the command again" in str(
        error.value
    )
    assert store.state(spec) == "missing", "nothing was trained from it, and its lock is free"
    assert len(store.verify()[1]) == 1 and str(path) in store.verify()[1][0]
    (base / "DONE").unlink()
    train_missing([spec], store, dataset, CPU)
    assert same(store, whole, spec) and same(store, whole, spec.source) and not store.verify()[1]


READERS = {
    "weights.safetensors": Store.weights,
    "predictions.safetensors": Store.predictions,
    "metrics.jsonl": Store.metrics,
    "provenance.json": Store.provenance,
}


@pytest.mark.parametrize("damage", ["empty", "half", "a flip in the tensors", "absent"])
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_result_is_named_by_whoever_reads_it(name, damage, whole, spec_of, tmp_path):
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    assert READERS[name](store, spec) is not None and store.verify() == (3, [])
    path = store.folder(spec) / name
    path.unlink() if damage == "absent" else DAMAGE[damage](path)
    with pytest.raises(UserError, match=f"{name} .*delete .*/DONE and run the command again"):
        READERS[name](store, spec)
    runs, lines = store.verify()
    assert runs == 3 and len(lines) == 1 and str(path) in lines[0]


@pytest.mark.parametrize("damage", ["empty", "half", "a flip in the tensors"])
@pytest.mark.parametrize("name", ["DONE", "spec.json"])
def test_a_damaged_record_or_specification_is_found(
    name, damage, whole, spec_of, dataset, tmp_path
):
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    DAMAGE[damage](store.folder(spec) / name)
    assert len(store.verify()[1]) == 1 and str(store.folder(spec)) in store.verify()[1][0]


@pytest.mark.parametrize("text", ["[]", "null", "1", "{}", '{"weights.safetensors": 5}'])
def test_a_record_that_is_json_of_another_form_is_named(text, whole, spec_of, tmp_path):
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    (store.folder(spec) / "DONE").write_text(text)
    for reader in (store.is_done, store.state, store.weights):
        with pytest.raises(UserError, match=r"DONE cannot be read \(.*delete .*/DONE and run"):
            reader(spec)
    assert len(store.verify()[1]) == 1 and "DONE cannot be read" in store.verify()[1][0]


@pytest.mark.parametrize("change", [{"network": None}, {"network": []}, {"seed": float("nan")}])
def test_a_specification_of_another_form_stops_nobody(change, whole, spec_of, tmp_path, caplog):
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    path = store.folder(spec) / "spec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert spec.run_id not in {found.run_id for found in store.specs()}
    assert f"{path} cannot be read" in caplog.text
    assert f"{path} cannot be read" in store.verify()[1][0]


def test_a_renamed_run_is_named_and_not_taken_for_missing(whole, spec_of, tmp_path, caplog):
    """Also where its hash is still in the name: by the whole name it would be trained again."""
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    for name in (f"best-{spec.id}", "best"):
        folder = store.folder(spec).rename(store.root / name)
        assert spec not in store.specs() and f"is of the run {spec.run_id}" in caplog.text
        assert "renamed, give it that name again" in store.verify()[1][0]
        with pytest.raises(UserError, match=f"is of the run {spec.run_id}: if the folder was ren"):
            load_run(folder)
        folder.rename(store.folder(spec))
    assert store.verify()[1] == []


def test_a_run_whose_marker_was_deleted_is_trained_again(whole, spec_of, dataset, tmp_path):
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("A3B+")
    (store.folder(spec) / "DONE").unlink()
    (store.folder(spec.source) / "DONE").unlink()
    train_missing([spec], store, dataset, CPU)
    assert same(store, whole, spec) and same(store, whole, spec.source)


def test_an_edited_specification_is_named_and_nothing_is_trained_over_it(
    whole, spec_of, dataset, tmp_path
):
    """Neither in a finished folder nor in one where the marker is gone;
    ``verify`` tells which run it is of.
    """
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    path = store.folder(spec) / "spec.json"
    values = json.loads(path.read_text())
    values["seed"] = 5
    path.write_text(json.dumps(values))
    before = crash.files(store.root)
    assert "if the file was changed, restore it" in store.verify()[1][0]
    for _ in range(2):
        with pytest.raises(UserError, match=r"seed \(wanted 0, found 5\)"):
            train_missing([spec], store, dataset, CPU)
        before.pop(f"{spec.run_id}/DONE", None)
        (store.folder(spec) / "DONE").unlink(missing_ok=True)
    assert crash.files(store.root) == before


def test_folders_that_are_no_runs_stop_nobody(whole, spec_of, dataset, tmp_path, caplog):
    """A copy of a run, and a run of a program that knows one key more: each is named,
    the others are read.
    """
    store, spec = Store(shutil.copytree(whole.root, tmp_path / "runs")), spec_of("baseB")
    wanted = store.specs()
    assert not caplog.messages and store.verify() == (len(wanted), [])
    for copy in ("copy of baseB", f"another-{spec.id}", f"{spec.run_id} copy"):
        shutil.copytree(store.folder(spec), store.root / copy)
    newer = shutil.copytree(store.folder(spec), store.root / "newer-0123456789ab") / "spec.json"
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"recipe": {"a_new_key": 1}}))
    (store.root / "notes").mkdir()
    assert store.specs() == wanted
    assert (
        len(caplog.messages) == 4
        and caplog.text.count(" is a copy of ") == 3
        and "a_new_key" in caplog.text
    )
    assert store.runs_of_other_packs(spec.dataset) == 0
    train_missing([spec], store, dataset, CPU)
    runs, damaged = store.verify()
    assert runs == len(wanted) + 4 and len(damaged) == 4
    assert (
        sum(f"is a copy of {spec.run_id}: move it out of the store" in line for line in damaged)
        == 3
    )


def test_runs_of_a_hidden_name_are_read_too(spec_of, trained, dataset, tmp_path):
    """dataset.name=.x is possible."""
    spec = spec_of("baseB")
    store = trained([replace(spec, dataset=replace(spec.dataset, name=".x"))])
    assert store.verify() == (1, [])
    (folder,) = store.root.glob(".x-*")
    flip(folder / "weights.safetensors", -1)
    assert store.verify()[0] == 1 and str(folder / "weights.safetensors") in store.verify()[1][0]


# Disks

# what the disk has no room for: the size of files in bytes,
# and when a checkpoint is written, so that this file is the first
FULL = {
    "checkpoint.safetensors": (17_000, "checkpoint_seconds=0"),
    "weights.safetensors": (6_000, "checkpoint_seconds=1000"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_one_line_and_loses_nothing(name, half, whole, config, spec_of, tmp_path):
    """The kernel refuses to let a file grow; when there is room again the same command ends with
    the same bytes.
    """
    size, when = FULL[name]
    store, spec = Store(shutil.copytree(half.root, tmp_path / "runs")), spec_of("baseB")
    data = f"data_dir={Path(config.dataset.folder).parent}"
    arguments = [*SHRUNK, data, f"store={store.root}", "split=random-0", "cell=baseB"]
    full(name, size, [*arguments, when], store, spec, tmp_path / "log")
    _run(arguments, tmp_path / "log", 0)
    assert same(store, whole, spec)


def full(name: str, size: int, arguments: list[str], store: Store, spec, log: Path) -> None:
    """The command on a full disk ends in one line and leaves the run as it was."""
    before = store.load_checkpoint(spec)
    _run(arguments, log, 2, {"RLIMIT_FSIZE": size})
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("error")]
    assert log.read_text().splitlines()[-1] == line
    assert (
        f"{store.folder(spec)}/{name} cannot be written" in line
        and "is kept" in line
        and "too large" in line
    )
    assert (
        not list(store.folder(spec).glob(".*tmp*"))
        and store.state(spec) == "partial"
        and not store.verify()[1]
    )
    assert store.load_checkpoint(spec).step == before.step


@pytest.mark.slow
def test_a_disk_that_is_full_of_metrics_is_one_line_and_loses_nothing(config, dataset, tmp_path):
    """After a kill: only a long run's metrics are larger than its weights."""
    store, log = Store(tmp_path / "runs"), tmp_path / "log"
    arguments = [*SHRUNK, f"data_dir={Path(config.dataset.folder).parent}", f"store={store.root}"]
    arguments += ["split=random-0", "cell=baseB", "recipe.steps=240", "recipe.eval_every=1"]
    process = crash.start("experiments.run", [*arguments, "checkpoint_seconds=0"], log)
    while not list(tmp_path.glob("runs/*/checkpoint-previous.safetensors")):
        assert process.is_alive(), log.read_text()
    process.kill()
    process.join()
    (spec,) = store.specs()
    full("metrics.jsonl", 17_000, [*arguments, "checkpoint_seconds=1000"], store, spec, log)
    _run(arguments, log, 0)
    _run([*arguments, f"store={tmp_path}/whole"], log, 0)
    assert same(store, Store(tmp_path / "whole"), spec)


def _run(arguments: list[str], log: Path, status: int, limits: dict | None = None) -> None:
    log.write_text("")
    process = crash.start("experiments.run", arguments, log, limits=limits)
    process.join(200)
    assert process.exitcode == status, log.read_text()


def test_a_store_that_cannot_be_written_is_named(whole, config, dataset, cli, tmp_path):
    """A file system mounted read-only: what is finished is read, what is not is one line."""
    shutil.copytree(whole.root, tmp_path / "there" / "runs")
    (tmp_path / "runs").mkdir()
    mounting = [
        "mount",
        "--bind",
        "-o",
        "ro",
        str(tmp_path / "there" / "runs"),
        str(tmp_path / "runs"),
    ]
    try:
        subprocess.run(mounting, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {getattr(error, 'stderr', error)}")
    arguments = [
        *SHRUNK,
        f"data_dir={Path(config.dataset.folder).parent}",
        f"store={tmp_path}/runs",
        "split=random-0",
    ]
    try:
        status, _, said = cli(experiments.run.main, *arguments, "cell=baseB")
        assert status == 0 and "nothing to train" in said
        status, _, said = cli(experiments.run.main, *arguments, "cell=B3B")
        (line,) = said.splitlines()
        assert status == 2
        assert line.startswith(
            f"error: store={tmp_path}/runs: cannot be written: Read-only file system"
        )
    finally:
        subprocess.run(["umount", str(tmp_path / "runs")], check=True)
