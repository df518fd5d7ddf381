"""The run store: what it holds, what it refuses, and that its files are whole.
tests/reliability/test_faults.py has processes that die, are stopped or compete, test_storage.py
beside it damage.
"""

import json
import os
from dataclasses import replace

import pytest
import torch

from tests.helpers import snapshot
from tests.miniature import CPU
from transferability.errors import UserError
from transferability.files import write_atomic
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study.jobs import with_bases
from transferability.training.checkpoint import Checkpoint


def test_a_finished_run_costs_nothing(spec_of, trained, dataset):
    specs = [spec_of("A3B"), spec_of("B3B+")]
    store = trained(specs)
    before = snapshot(store.root)
    train_missing(specs, store, dataset, CPU)
    assert snapshot(store.root) == before
    assert [store.state(s) for s in with_bases(specs)] == ["done"] * 4


def test_states(spec_of, trained, dataset, tmp_path):
    store, spec = Store(tmp_path), spec_of("baseB")
    assert store.state(spec) == "missing" and store.step(spec) == 0
    lock = store.lock(spec)
    assert store.state(spec) == "training"
    assert Store(tmp_path).lock(spec) is None, "one process a run"
    store.save_checkpoint(spec, Checkpoint({"x": torch.ones(2)}, 5, [{"step": 4}], 1.5))
    lock.release()
    assert store.state(spec) == "partial" and store.step(spec) == 5
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
    for ask in (lambda: train_missing([spec], store, dataset, CPU), lambda: store.lock(spec)):
        with pytest.raises(UserError, match=r"recipe\.lr \(wanted 0\.03, found 0\.5\)"):
            ask()
    assert snapshot(store.root) == before, "nothing is lost"
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        store.is_done(spec)


def test_a_checkpoint_of_another_run_is_refused(spec_of, tmp_path):
    store, spec, other = Store(tmp_path), spec_of("baseB"), spec_of("baseA")
    store.lock(spec).release()
    store.lock(other).release()
    store.save_checkpoint(other, Checkpoint({"x": torch.ones(1)}, 1, [], 0.0))
    name = "checkpoint.safetensors"
    os.rename(store.folder(other) / name, store.folder(spec) / name)
    with pytest.raises(UserError, match=r"belongs to .*baseA"):
        store.load_checkpoint(spec)


def test_a_base_that_may_not_be_trained_is_asked_for(spec_of, tmp_path, dataset):
    with pytest.raises(UserError, match="A3B starts from baseA, which is not finished"):
        train_missing([spec_of("A3B")], Store(tmp_path), dataset, CPU, sources="require")
    assert not list(tmp_path.iterdir())


def test_writes_are_whole_or_nothing(tmp_path, spec_of):
    path = tmp_path / "x.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")  # cannot be written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    # DONE comes last: whatever fails before it leaves a run that is not finished
    store, spec = Store(tmp_path / "runs"), spec_of("baseB")
    store.lock(spec).release()
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
    store.lock(spec).release()
    (store.folder(spec) / ".lock").unlink(missing_ok=True)
    (store.folder(spec) / ".lock").mkdir()
    assert store.state(spec) == "missing"
