import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import CPU, SHRUNK
from transferability.checkpoints import Checkpoint
from transferability.errors import UserError
from transferability.files import write_atomic
from transferability.jobs import with_sources
from transferability.runner import ensure
from transferability.store import Store

ROOT = Path(__file__).parent.parent


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    """``python -m experiments.run`` on the shrunk study,
    with its own data and store below ``folder``.
    """
    arguments = [*SHRUNK, f"data_dir={folder}/data", f"store={folder}/runs", *overrides]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.run", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def contents(store: Path) -> dict[str, bytes]:
    """What must not depend on how a run was executed."""
    names = ("spec.json", "weights.safetensors", "predictions.safetensors", "metrics.jsonl")
    return {
        f"{p.parent.name}/{p.name}": p.read_bytes() for p in store.glob("*/*") if p.name in names
    }


def snapshot(folder: Path) -> dict[str, int]:
    return {
        str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock" and p.is_file()
    }


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path):
    long = [
        "split=random-0",
        "target=B",
        "study.layers=[3]",
        "recipe.steps=160",
        "recipe.eval_every=40",
    ]
    finish(start(tmp_path / "whole", *long))
    process = start(tmp_path / "killed", *long, "checkpoint_seconds=0")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        checkpoints = list((tmp_path / "killed" / "runs").glob("*A3B+*/checkpoint.safetensors"))
        if checkpoints:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = {p.parent.name for p in (tmp_path / "killed" / "runs").glob("*/DONE")}
    assert not any("A3B+" in name for name in done), "killed in the middle of the last cohort"
    errors = finish(start(tmp_path / "killed", *long))
    assert "resumed" in errors
    assert contents(tmp_path / "killed" / "runs") == contents(tmp_path / "whole" / "runs")
    assert not list((tmp_path / "killed" / "runs").rglob("checkpoint.safetensors"))
    assert not list((tmp_path / "killed" / "runs").rglob("*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_clean_and_loses_no_step(number, tmp_path):
    """Long before the first regular checkpoint: the step under way ends,
    everything is saved, status 130.
    """
    settings = ["split=random-0", "cell=baseB", "recipe.steps=100000", "recipe.eval_every=50000"]
    process = start(tmp_path, *settings)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/spec.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from the last checkpoint" in errors
    (spec,) = Store(tmp_path / "runs").specs()
    assert Store(tmp_path / "runs").step(spec) > 0


def test_two_processes_that_ask_for_overlapping_runs_train_each_once(tmp_path):
    # packs
    finish(
        start(tmp_path, "cell=baseA", "split=random-0", "recipe.steps=1", "recipe.warmup_steps=0")
    )
    asked = [
        ["split=random-0", "study.layers=[2,5]"],
        ["split=random-0", "study.layers=[5,6]", "target=B"],
    ]
    logs = [finish(p) for p in [start(tmp_path, *a, "recipe.steps=60") for a in asked]]
    trained = sum(int(n) for log in logs for n in re.findall(r"(\d+) networks?: finished", log))
    done = [p.parent.name for p in (tmp_path / "runs").glob("*/DONE")]
    # base A and B, and 5 treatments for n = 2, 5 in both directions and n = 6 for B
    assert len(done) - 1 == 2 + 20 + 5
    assert trained == len(done) - 1


def test_a_finished_run_costs_nothing(spec_of, trained, dataset):
    specs = [spec_of("A3B"), spec_of("B3B+")]
    store = trained(specs)
    before = snapshot(store.root)
    ensure(specs, store, dataset, CPU)
    assert snapshot(store.root) == before
    assert [store.state(s) for s in with_sources(specs)] == ["done"] * 4


def test_states(spec_of, trained, dataset, tmp_path):
    store, spec = Store(tmp_path), spec_of("baseB")
    assert store.state(spec) == "missing" and store.step(spec) == 0
    lock = store.claim(spec)
    assert store.state(spec) == "training"
    assert Store(tmp_path).claim(spec) is None, "one process a run"
    store.save_checkpoint(spec, Checkpoint({"x": torch.ones(2)}, 5, [{"step": 4}], 1.5))
    lock.release()
    assert store.state(spec) == "half" and store.step(spec) == 5
    found = store.load_checkpoint(spec)
    assert (found.step, found.metrics, found.seconds) == (5, [{"step": 4}], 1.5)
    assert [s.run_id for s in store.specs()] == [spec.run_id]


def test_a_folder_of_another_spec_is_refused_by_field(spec_of, trained, dataset):
    spec = spec_of("baseB")
    store = trained([spec])
    path = store.folder(spec) / "spec.json"
    values = json.loads(path.read_text())
    values["recipe"]["lr"] = 0.5
    path.write_text(json.dumps(values))
    before = snapshot(store.root)
    for ask in (lambda: ensure([spec], store, dataset, CPU), lambda: store.claim(spec)):
        with pytest.raises(UserError, match=r"recipe\.lr \(wanted 0\.03, found 0\.5\)"):
            ask()
    assert snapshot(store.root) == before, "nothing is lost"
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        store.is_done(spec)


def test_a_checkpoint_of_another_run_is_refused(spec_of, tmp_path):
    store, spec, other = Store(tmp_path), spec_of("baseB"), spec_of("baseA")
    store.claim(spec).release()
    store.claim(other).release()
    store.save_checkpoint(other, Checkpoint({"x": torch.ones(1)}, 1, [], 0.0))
    name = "checkpoint.safetensors"
    os.rename(store.folder(other) / name, store.folder(spec) / name)
    with pytest.raises(UserError, match=r"belongs to .*baseA"):
        store.load_checkpoint(spec)


def test_a_base_that_may_not_be_trained_is_asked_for(spec_of, tmp_path, dataset):
    with pytest.raises(UserError, match="A3B starts from baseA, which is not finished"):
        ensure([spec_of("A3B")], Store(tmp_path), dataset, CPU, sources="require")
    assert not list(tmp_path.iterdir())


def test_writes_are_whole_or_nothing(tmp_path, spec_of):
    path = tmp_path / "x.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")  # cannot be written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    # DONE comes last: whatever fails before it leaves a run that is not finished
    store, spec = Store(tmp_path / "runs"), spec_of("baseB")
    store.claim(spec).release()
    (store.folder(spec) / "provenance.json").mkdir()
    with pytest.raises(UserError, match=r"provenance\.json cannot be written"):
        store.finish(spec, {"x": torch.ones(1)}, [], {}, {})
    assert not store.is_done(spec)


def test_a_store_that_cannot_be_created_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        Store(tmp_path / "file" / "runs")


def test_cohorts_of_different_recipes_and_tasks_train_side_by_side_only_as_bases(spec_of, trained):
    """Four bases fill two threads two by two; their results are those of training alone."""
    specs = [
        spec_of(c, split=s) for s in ("random-0", "natural-manmade") for c in ("baseA", "baseB")
    ]
    together, alone = trained(specs), trained(specs[:1], replace(CPU, threads=1))
    assert together.provenance(specs[0])["cohort_networks"] == 2
    assert torch.equal(
        together.weights(specs[0])["layers.0.conv.weight"],
        alone.weights(specs[0])["layers.0.conv.weight"],
    )


def test_the_state_of_somebody_elses_run_can_be_asked_for(tmp_path, spec_of):
    """Its lock cannot be opened, here because it is a folder: root may open every file."""
    store, spec = Store(tmp_path), spec_of("baseB")
    store.claim(spec).release()
    (store.folder(spec) / ".lock").unlink(missing_ok=True)
    (store.folder(spec) / ".lock").mkdir()
    assert store.state(spec) == "missing"
