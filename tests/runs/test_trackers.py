"""Trackers, each read back with its own library: curves, parameters, resumption; and no bit of
training changes.
"""

import csv
import filecmp
import json
import logging
import os
import signal
import struct
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments import run
from tests.miniature import CPU, SHRUNK
from transferability.errors import UserError
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.runs.trackers import Trackers, parameters
from transferability.study import cells
from transferability.study.recipe import probe_recipe
from transferability.study.spec import make_spec
from transferability.study.trackers import (
    CsvConfig,
    MlflowConfig,
    TensorboardConfig,
    TrackersConfig,
    WandbConfig,
)

os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer versions ask for
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
needs = {
    name: pytest.mark.skipif(not find_spec(name), reason=f"needs {name}")
    for name in ("tensorboard", "mlflow", "wandb")
}
KINDS = [
    "csv",
    pytest.param("tensorboard", marks=needs["tensorboard"]),
    pytest.param("mlflow", marks=needs["mlflow"]),
    # it starts a process of its own, and each run takes it a second
    pytest.param("wandb", marks=[needs["wandb"], pytest.mark.slow]),
]


def settings(kind: str, folder: Path) -> TrackersConfig:
    made = {
        "csv": lambda: CsvConfig(f"{folder}/csv"),
        "tensorboard": lambda: TensorboardConfig(f"{folder}/tensorboard"),
        "mlflow": lambda: MlflowConfig("trial", f"file:{folder}/mlflow"),
        "wandb": lambda: WandbConfig("trial", str(folder), mode="offline"),
    }
    return TrackersConfig(**{kind: made[kind]()})


# --- what each has, by its own library: (parameters, evaluations, state) of a network ---


def from_csv(folder, spec):
    with open(folder / "csv" / f"{spec.run_id}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = ("step", "lr", "train_loss", "val_loss", "val_top1")
    own = {name: value for name, value in rows[0].items() if name not in metrics}
    return own, [{name: float(row[name]) for name in metrics} for row in rows], None


def from_tensorboard(folder, spec):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    events = EventAccumulator(str(folder / "tensorboard" / spec.run_id)).Reload()
    found = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {"step": event.step})[name] = event.value
            assert len(events.Scalars(name)) == len({e.step for e in events.Scalars(name)})
    text = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(text).session_start_info.hparams
    own = {k: getattr(v, v.WhichOneof("kind")) for k, v in started.items()}
    return own, [found[step] for step in sorted(found)], None


def from_mlflow(folder, spec):
    from mlflow import MlflowClient

    client = MlflowClient(f"file:{folder}/mlflow")
    experiment = client.get_experiment_by_name("trial").experiment_id
    (found,) = client.search_runs([experiment], f"params.identity = '{spec.id}'")
    assert found.info.run_name == spec.run_id
    evaluations = {}
    for name in found.data.metrics:
        for metric in client.get_metric_history(found.info.run_id, name):
            row = evaluations.setdefault(metric.step, {"step": metric.step})
            assert name not in row, "twice"
            row[name] = metric.value
    rows = [evaluations[step] for step in sorted(evaluations)]
    return found.data.params, rows, found.info.status


def from_wandb(folder, spec):
    own, rows, exits = {}, [], []
    for path in sorted(folder.glob(f"wandb/offline-run-*-{spec.id}/*.wandb")):
        for record in records_of(path):
            if record.HasField("run"):
                assert (record.run.run_id, record.run.project) == (spec.id, "trial")
                assert record.run.display_name == spec.run_id
                for item in record.run.config.update:
                    own[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            if record.HasField("history"):
                row = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                if "val_top1" in row:
                    row["step"] = record.history.step.num
                    rows.append({k: v for k, v in row.items() if not k.startswith("_")})
            if record.HasField("exit"):
                exits.append(record.exit.exit_code)
    own = {name: value for name, value in own.items() if not name.startswith("_")}
    return own, rows, exits[-1]


def records_of(path, patience=60) -> list:
    """Up to that of the run's exit, which the process that writes the file may write later."""
    from wandb.proto.wandb_internal_pb2 import Record

    end = time.monotonic() + patience
    while True:
        found = [Record.FromString(data) for data in records(path.read_bytes())]
        if any(record.HasField("exit") for record in found) or time.monotonic() > end:
            return found
        time.sleep(0.1)


def records(data: bytes):
    """Those of a W&B file, which is a log of LevelDB: blocks of 32 KiB with parts of records."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, part = struct.unpack_from("<IHB", data, place)
        if place + 7 + size > len(data):  # it is being written
            return
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if part in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


READ = {
    "csv": from_csv,
    "tensorboard": from_tensorboard,
    "mlflow": from_mlflow,
    "wandb": from_wandb,
}
ENDED = {"csv": None, "tensorboard": None, "mlflow": "FINISHED", "wandb": 0}


def check(kind, folder, store, spec):
    own, evaluations, state = READ[kind](folder, spec)
    assert {k: str(v) for k, v in own.items()}.items() >= {
        "identity": spec.id, "cell": str(spec.cell), "split": spec.split,
    }.items()  # fmt: skip
    assert float(own["n"]) == spec.cell.n and set(own) == set(parameters(spec))
    metrics = store.metrics(spec)
    assert [one["step"] for one in evaluations] == [4, 8] == [m["step"] for m in metrics]
    for one, metric in zip(evaluations, metrics, strict=True):
        # TensorBoard keeps float32
        assert one == pytest.approx(metric, rel=1e-6 if kind == "tensorboard" else 1e-12)
    assert state == ENDED[kind]


@contextmanager
def interrupted_at(words: str):
    """Ctrl-C comes with a line of the log."""

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if words in record.getMessage():
                signal.raise_signal(signal.SIGINT)

    log, interrupt = logging.getLogger("transferability.runs"), Interrupt()
    log.setLevel("INFO")
    log.addHandler(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        log.removeHandler(interrupt)
        log.setLevel("NOTSET")


@pytest.mark.parametrize("kind", KINDS)
def test_each_network_is_a_run_of_its_own_and_no_bit_changes(
    kind, spec_of, dataset, trained, tmp_path
):
    specs = [spec_of(cell) for cell in ("A3B+", "B3B", "baseB")]
    without = trained(specs)
    store = Store(tmp_path / "runs")
    train_missing(specs, store, dataset, CPU, trackers=Trackers(settings(kind, tmp_path)))
    for spec in specs:
        check(kind, tmp_path, store, spec)
        assert (store.folder(spec).name, store.metrics(spec)) == (
            without.folder(spec).name,
            without.metrics(spec),
        )
        names = ["spec.json", "weights.safetensors", "predictions.safetensors", "metrics.jsonl"]
        equal, *others = filecmp.cmpfiles(store.folder(spec), without.folder(spec), names, False)
        assert sorted(equal) == sorted(names) and others == [[], []]
        assert sorted(p.name for p in store.folder(spec).iterdir()) == sorted(
            p.name for p in without.folder(spec).iterdir()
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead", [False, True], ids=["", "ahead of the checkpoint"])
def test_resumed_training_goes_on_in_the_same_run(kind, ahead, spec_of, dataset, tmp_path):
    """Also where the tracker has an evaluation that the checkpoint, or none, is before."""
    store, spec = Store(tmp_path / "runs"), spec_of("baseB")
    go = partial(train_missing, [spec], store, dataset, CPU)
    with interrupted_at("step 4/8"):
        go(trackers=Trackers(settings(kind, tmp_path)))
    assert store.step(spec) == 5
    _, evaluations, state = READ[kind](tmp_path, spec)
    assert [one["step"] for one in evaluations] == [4]
    assert state == {"mlflow": "KILLED", "wandb": 1}.get(kind)
    if kind == "wandb":
        time.sleep(1.1)  # its folders are named by the second
    if ahead:
        for path in store.folder(spec).glob("checkpoint*"):
            path.unlink()
        if kind == "wandb":
            pytest.skip("offline it cannot know what it has: sent later, the numbers are the same")
    go(trackers=Trackers(settings(kind, tmp_path)))
    check(kind, tmp_path, store, spec)


def test_a_tracker_that_is_added_later_has_the_whole_curve(spec_of, dataset, tmp_path):
    store, spec = Store(tmp_path / "runs"), spec_of("baseB")
    with interrupted_at("step 4/8"):
        train_missing([spec], store, dataset, CPU)
    train_missing([spec], store, dataset, CPU, trackers=Trackers(settings("csv", tmp_path)))
    check("csv", tmp_path, store, spec)


def test_linear_classifiers_are_runs_too(config, dataset, tmp_path):
    store, probe = Store(tmp_path / "runs"), probe_recipe(mirror=True)
    spec = make_spec(
        cells.parse("B3.B"), "random-0", dataset, config.network, probe, 0,
        source_recipe=config.recipe,
    )  # fmt: skip
    train_missing([spec], store, dataset, CPU, trackers=Trackers(settings("csv", tmp_path)))
    own, evaluations, _ = from_csv(tmp_path, spec)
    assert own["cell"] == "B3.B" and evaluations == [pytest.approx(store.metrics(spec)[0])]


def test_a_library_that_is_not_there_ends_it_before_training(
    spec_of, dataset, tmp_path, monkeypatch
):
    for name, install in (("mlflow", "mlflow-skinny"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, name, None)
        store, trackers = Store(tmp_path / "runs"), Trackers(settings(name, tmp_path))
        with pytest.raises(UserError, match=f"^tracker={name} needs pip install {install} "):
            train_missing([spec_of("baseB")], store, dataset, CPU, trackers=trackers)
        assert not store.specs()


@needs["mlflow"]
def test_a_server_that_is_down_ends_it_before_training(spec_of, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(tmp_path / "runs")
    trackers = Trackers(TrackersConfig(mlflow=MlflowConfig("trial", "http://127.0.0.1:9")))
    with pytest.raises(UserError, match=r"^tracker=mlflow cannot be used: .*127\.0\.0\.1") as error:
        train_missing([spec_of("baseB")], store, dataset, CPU, trackers=trackers)
    assert "\n" not in str(error.value) and not store.specs()


def test_one_that_fails_during_training_is_told_once_and_loses_nothing(
    spec_of, dataset, trained, tmp_path, caplog
):
    store, specs = Store(tmp_path / "runs"), [spec_of("baseB"), spec_of("baseA")]
    (tmp_path / "csv" / f"{specs[0].run_id}.csv").mkdir(parents=True)
    train_missing(specs, store, dataset, CPU, trackers=Trackers(settings("csv", tmp_path)))
    told = [r.getMessage() for r in caplog.records if "tracker" in r.getMessage()]
    assert len(told) == 1 and told[0].startswith("tracker=csv failed (") and "\n" not in told[0]
    assert [store.metrics(s) for s in specs] == [trained(specs).metrics(s) for s in specs]


@needs["mlflow"]
def test_a_network_that_fails_is_failed_there_too(spec_of, dataset, tmp_path):
    store, well = Store(tmp_path / "runs"), spec_of("baseB")
    ill = spec_of("baseB", recipe={"lr": 1e6})
    with pytest.raises(UserError, match="the loss of 1 of 2 networks"):
        trackers = Trackers(settings("mlflow", tmp_path))
        train_missing([well, ill], store, dataset, CPU, trackers=trackers)
    check("mlflow", tmp_path, store, well)
    own, evaluations, state = from_mlflow(tmp_path, ill)
    assert (own["learning_rate"], evaluations, state) == ("1000000.0", [], "FAILED")


def test_without_a_tracker_no_thread_is_started():
    """Where memory has run out it could not be, and its error would hide the one that says so."""
    before = set(threading.enumerate())
    with Trackers(TrackersConfig()).opened():
        pass
    assert set(threading.enumerate()) <= before


def test_nothing_to_train_asks_no_tracker(spec_of, dataset, trained, tmp_path):
    store = trained([spec_of("baseB")])
    trackers = Trackers(TrackersConfig(mlflow=MlflowConfig("trial", "http://127.0.0.1:9")))
    train_missing([spec_of("baseB")], store, dataset, CPU, trackers=trackers)


def test_on_a_command_line_there_are_several_or_none(cli, tmp_path):
    where = [*SHRUNK, f"data_dir={tmp_path}/data", f"store={tmp_path}/runs"]
    one = [*where, "split=random-0", "cell=baseB"]
    assert cli(run.main, *one, "tracker=null")[0] == 0 and not (tmp_path / "runs/csv").exists()
    status, _, err = cli(run.main, *one, "tracker=[csv,nix]")
    assert (status, err) == (
        2,
        "error: tracker=nix is unknown. Available: csv, tensorboard, mlflow, wandb\n",
    )
    words = ["tracker=[csv]", f"tracker.csv.folder={tmp_path}/mine", "seed=1"]
    assert cli(run.main, *one, *words)[0] == 0
    assert [p.name.rsplit("-", 1)[0] for p in (tmp_path / "mine").iterdir()] == [
        "procedural-random-0-baseB-s1"
    ]
