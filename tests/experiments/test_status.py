"""Watching: rates and hours from notes written by hand, stores without notes,
and what real training notes.
"""

import json
import time

import pytest
import torch

from experiments import status
from tests import crash
from tests.miniature import CPU, SHRUNK, shrunk
from transferability.data.pack import pack
from transferability.runs import progress
from transferability.runs.progress import ProgressWriter, read
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.study.expand import study_specs
from transferability.training.checkpoint import PROGRESS, Checkpoint
from transferability.training.loop import train

# four bases, 800 steps of 6 images each
BASES = ["study.treatments={random:[base],natural-manmade:[base]}", "recipe.steps=800"]


@pytest.fixture
def study(tmp_path):
    """The configuration, its four specifications and its empty store."""
    config = shrunk(tmp_path, *BASES)
    return config, study_specs(config, pack(config.dataset)), Store(config.store)


@pytest.fixture
def training():
    """training(store, specs): their locks are held until the test ends."""
    held = []

    def claim(store, specs):
        held.extend(store.lock(spec) for spec in specs)

    yield claim
    for lock in held:
        lock.release()


def write_note(store, specs, **values):
    """By hand: 2 steps and 12 images a second, 60 steps of 800 made."""
    note = {
        "runs": [s.run_id for s in specs],
        "points": [[100.0, 20, 120], [105.0, 25, 150], [120.0, 60, 360]],
        "left": 740 * 6,
        "top1": {},
        "process": "7 on here",
        "written": time.time(),
    }
    (store.folder(specs[-1]) / PROGRESS).write_text(json.dumps(note | values))


def said(config, capsys) -> list[str]:
    """What status says of training."""
    status.main(config)
    return capsys.readouterr().out.partition("\n\n")[2].splitlines()


def test_rate_and_time_left_are_those_of_the_note(study, training, capsys):
    config, specs, store = study
    training(store, specs[:1])
    write_note(store, specs[:1])
    _, line, _, whole = said(config, capsys)
    assert line == (
        "procedural random-0 → A, seed 0, 1 network: step 60 of 800, 2 steps/s, "
        "12 network-images/s, 6 min left"  # 4,440 / 12 = 370 s
    )
    # and three that are like it: 370 + 3 * 4800 / 12 = 1570 s
    assert whole == (
        "The study: 0 of 4 networks done, 1 training, 3 to begin; "
        "about 26 min left with the process that trains it now."
    )


def test_processes_share_what_is_not_begun(study, training, capsys):
    config, specs, store = study
    training(store, specs[:2])
    write_note(store, specs[:1])
    # 24 images a second
    write_note(store, specs[1:2], points=[[0, 0, 0], [10, 40, 240]], left=2400)
    *_, whole = said(config, capsys)
    # 4,440 + 2,400 + 2 * 4,800 images at 12 + 24 a second: 457 s
    assert "2 training, 2 to begin; about 8 min left with the 2 processes" in whole
    write_note(store, specs[:1], left=12 * 3000)
    *_, whole = said(config, capsys)
    assert "about 50 min left" in whole, "no sooner than the slowest of those that train"


def test_networks_are_as_fast_as_their_arithmetic(spec_of, dataset, training, tmp_path):
    """A frozen network costs less than a base; one of another kind is not estimated."""
    store, base = Store(tmp_path), spec_of("baseB")
    frozen, other = spec_of("R7B"), spec_of("baseB", network={"hidden": (20, 20)})
    training(store, [base])
    write_note(store, [base], left=0)
    waves = status.training([base], store)
    seconds = [
        float(status.time_left(waves, [one], store, dataset).split()[1])
        for one in (spec_of("baseA"), frozen)
    ]
    assert seconds[0] == 8 * 6 / 12 and 0 < seconds[1] < seconds[0]
    assert status.time_left(waves, [other], store, dataset).endswith(
        "about 0 s left with the process that trains it now, and 1 network of a kind not "
        "measured yet"
    )


def test_accuracies_by_treatment(spec_of, training, tmp_path):
    cells = ("A2B", "A5B", "A7B", "A3B+", "B3B")
    store, specs = Store(tmp_path), [spec_of(cell) for cell in cells]
    training(store, specs)
    newest = [[(4, 0.3), (8, 0.5)], [(4, 0.2), (8, 0.4)], [(4, 0.1), (8, 0.1)], [(8, 0.625)]]
    ids = [s.run_id for s in specs]
    write_note(store, specs, top1=dict(zip(ids, newest, strict=False)))
    store.fail(specs[-1], {"step": 5, "lr": 1.0, "last": None})
    ((found, note),) = status.training(specs, store)
    assert [s.run_id for s in found] == ids
    line, accuracies = status.lines(found, note, store)
    assert line.startswith("procedural random-0 → B, seed 0, 5 networks (1 failed): step 60 of 8")
    assert accuracies == (
        "    top-1 at step 8 (chance 0.250): AnB 0.200 → 0.400 (0.100 to 0.500), AnB+ 0.625"
    )


def test_a_silent_process_and_one_that_finishes(study, training, capsys):
    config, specs, store = study
    training(store, specs[:1])
    write_note(store, specs[:1], written=time.time() - 720)
    assert said(config, capsys)[1].endswith("6 min left, silent for 12 min (process 7 on here)")
    write_note(store, specs[:1], points=[[0, 799, 4794], [1, 800, 4800]], left=0)
    assert said(config, capsys)[1].endswith("finishing")


@pytest.mark.parametrize("note", [None, "", '{"step": 3}', "[]"])
def test_a_store_without_notes_says_less(note, study, training, capsys):
    """Of a version that wrote none, or other ones; and before the first."""
    config, specs, store = study
    training(store, specs[:1])
    store.save_checkpoint(specs[0], Checkpoint({"x": torch.ones(2)}, 5, [], 1.5))
    if note is not None:
        (store.folder(specs[0]) / PROGRESS).write_text(note)
    _, line, _, whole = said(config, capsys)
    assert line.endswith("1 network: step 5 of 800 saved; nothing newer is known yet")
    assert whole.endswith(
        "3 to begin; the time left is not known yet, because a speed is not measured."
    )


def test_one_note_is_no_rate(study, training, capsys):
    config, specs, store = study
    training(store, specs[:1])
    write_note(store, specs[:1], points=[[100.0, 1, 6]])
    _, line, _, whole = said(config, capsys)
    assert line.endswith("step 1 of 800, no rate yet") and "is not known yet" in whole


def test_a_dead_process_trains_nothing(study, capsys):
    config, specs, store = study
    store.lock(specs[0]).release()
    write_note(store, specs[:1])
    assert said(config, capsys) == []
    store.lock(specs[0]).release()
    assert read(store.folder(specs[0])) is None, "whoever resumes begins with no note"


def test_another_study_is_running(study, training, capsys, tmp_path):
    """Its runs are not of the study asked for; or the dataset of that one is not packed."""
    _, specs, store = study
    training(store, specs[:1])
    other = shrunk(tmp_path, "recipe.steps=9")
    unpacked = shrunk(tmp_path, f"data_dir={tmp_path}/elsewhere")
    for asked in (other, unpacked):
        _, line, _, whole = said(asked, capsys)
        assert "random-0 → A" in line and whole.startswith("None of these is in the study of these")
    assert not (tmp_path / "elsewhere").exists(), "status packs nothing"


def test_training_notes_where_it_stands(spec_of, dataset, trained, tmp_path, monkeypatch):
    """What a note says is what the networks are; results do not change, and no note stays."""
    monkeypatch.setattr(progress, "NOTE_SECONDS", 0.0)
    specs = [spec_of("baseB"), spec_of("R3B")]
    store = Store(tmp_path)
    locks = [store.lock(spec) for spec in specs]
    cohorts = make_cohorts(specs, store, dataset, CPU)
    notes, found = ProgressWriter(store.root, cohorts), []

    def on_step(step, stepped):
        notes(step, stepped)
        found.append(read(store.folder(specs[-1])))

    train(cohorts, CPU, pytest.fail, pytest.fail, on_step)
    for lock in locks:
        lock.release()
    assert [note.step for note in found] == [*range(1, 9)]
    assert [note.points[-1][2] for note in found] == [12 * step for step in range(1, 9)]
    assert [note.left for note in found] == [12 * step for step in reversed(range(8))]
    states = cohorts[0].states
    assert found[3].runs == [m.spec.run_id for m in states]
    assert {run: [tuple(e) for e in two] for run, two in found[-1].top1.items()} == {
        m.spec.run_id: [(e["step"], e["val_top1"]) for e in m.metrics] for m in states
    }
    whole = trained(specs)
    assert [m.metrics for m in states] == [whole.metrics(s) for s in specs], "same bits"
    train_missing(specs, store, dataset, CPU)
    assert not list(tmp_path.rglob(PROGRESS)) and not list(whole.root.rglob(PROGRESS))


def test_a_note_that_cannot_be_written_stops_nothing(spec_of, dataset, tmp_path):
    store, spec = Store(tmp_path), spec_of("baseB")
    cohorts = make_cohorts([spec], store, dataset, CPU)
    notes = ProgressWriter(store.root, cohorts)  # the folder is not there
    train(cohorts, CPU, pytest.fail, pytest.fail, notes)
    assert cohorts[0].states[0].step == 8 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_status_while_a_process_trains(tmp_path, capsys):
    endless = ["split=random-0", "recipe.steps=100000", "recipe.eval_every=20"]
    config = shrunk(tmp_path, *endless)
    arguments = [*SHRUNK, *crash.places(tmp_path), *endless]
    process = crash.start("experiments.run", arguments, tmp_path / "log")
    deadline = time.monotonic() + 120
    try:
        while not any(
            len(note.points) > 1 and all(note.top1.values())
            for folder in tmp_path.glob("runs/*")
            if (note := read(folder))
        ):
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.2)
        _, line, accuracies, _, whole = said(config, capsys)
    finally:
        process.kill()
        process.join()
    assert "network-images/s" in line and line.endswith(" left") and " of 100,000, " in line
    assert accuracies.startswith("    top-1 at step ") and "base 0." in accuracies
    assert whole.startswith("The study: 0 of ") and "about " in whole
    assert said(config, capsys) == [], "it is dead"
