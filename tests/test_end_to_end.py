"""The miniature study from nothing to tables: plan, train, status, and the notebook on it."""

import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from analysis import collect
from analysis.tables import StudyResults
from experiments import status
from tests.miniature import ROOT, shrunk
from transferability.data.packed import open_dataset
from transferability.runs.store import Store
from transferability.study.expand import study_specs


def test_the_study_is_the_papers_list(miniature):
    table = StudyResults.read(miniature.tables).results
    counts = table.groupby(["split_kind", "treatment"]).size().to_dict()
    assert counts == {
        ("random", "base"): 2,
        **{("random", t): 14 for t in ("BnB", "BnB+", "AnB", "AnB+", "RnB")},
        ("natural-manmade", "base"): 2,
        ("natural-manmade", "AnB"): 14,
    }
    assert (table.state == "done").all() and table.top1.between(0, 1).all()
    assert table.run.is_unique
    assert (table.images == 8 * 6).all() and (table.evaluations == 2).all()


def test_plan_and_status_count(miniature, cli):
    printed = miniature.printed
    # 88 x 8 steps x 6 images
    assert "To train: 88 networks, 4,224 network-images, in 8 jobs" in printed["plan"]
    # 8 jobs x 8 steps x 6 images
    assert "To read: 384 images, each for 11.0 networks." in printed["plan"]
    assert "every network is finished" in printed["plan after"]
    code, said, err = cli(status.main, *miniature.overrides)
    assert code == 0, err
    assert said.splitlines()[-1].split() == ["all", "88", "88", *"----"]


def test_the_plan_says_how_many_bytes_the_study_will_write(miniature):
    plan = miniature.printed["plan"]
    number, unit = re.search(r"To write: ([\d.]+) (KB|MB) to keep", plan).groups()
    planned = float(number) * {"KB": 1e3, "MB": 1e6}[unit]
    written = sum(p.stat().st_size for p in (miniature.folder / "runs").rglob("*") if p.is_file())
    assert planned == pytest.approx(written, rel=0.25)


@pytest.mark.slow
def test_a_sweep_over_processes_equals_one_process(miniature, tmp_path):
    sweep = [
        f"store={tmp_path}",
        "split=random-0,natural-manmade",
        "target=A,B",
        "study.layers=[2,6]",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "-m", *miniature.overrides, *sweep],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    config = shrunk(miniature.folder, "study.layers=[2,6]")
    specs = study_specs(config, open_dataset(config.dataset.folder))
    store, swept = Store(config.store), Store(tmp_path)
    assert len(specs) == 28
    for spec in specs:
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (store.folder(spec) / name).read_bytes() == (
                swept.folder(spec) / name
            ).read_bytes()


@pytest.fixture
def tour(tmp_path, monkeypatch):
    """The notebook, and what executes it as if it lay in ``tmp_path``/docs; its advice ends with
    the linear classifiers.
    """
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "docs").mkdir()
    notebook = nbformat.read(ROOT / "docs/tour.ipynb", as_version=4)
    (advice,) = (cell for cell in notebook.cells if cell.id == "advise")
    assert advice.source.count("minutes=1 / 3,") == 1
    advice.source = advice.source.replace("minutes=1 / 3,", "minutes=0.01,")
    return notebook, NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path / "docs"}}
    )


@pytest.mark.slow
def test_the_tour_shows_what_the_tables_say_and_trains_its_own(miniature, tour, cli, tmp_path):
    """With the layers that the short demo of .ci/run has; without a study it says in one line
    what to do, and the same kernel goes on when there is one.
    """
    notebook, client = tour
    with pytest.raises(CellExecutionError):
        client.execute(cleanup_kc=False)
    shown = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert [o.traceback for o in shown] == [
        [f"error: {tmp_path}/runs is not there: run `make demo` first"]
    ]
    folder = miniature.folder
    (tmp_path / "runs").symlink_to(folder / "runs")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/demo").symlink_to(folder / "data/procedural")
    where = tmp_path / "figures/demo"
    cli(collect.main, *miniature.overrides, "study.layers=[1,4,7]", f"out={where}")
    tables = StudyResults.read(where)
    known = tables.networks.query("split == 'random-0'").set_index("cell")
    # A7B as if it were always right: all that only one network has right is A7B's
    always = tables.predictions[f"{known.task['A7B']} validation"]
    tables.predictions[f"{known.run['A7B']} validation"] = always
    tables.write(where)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    client.execute()
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    outputs = {c.id: c.outputs for c in notebook.cells if c.cell_type == "code"}
    drawn = [name for name, shown in outputs.items() if "image/png" in str(shown)]
    assert drawn == [
        *("pictures", "filters", "features", "curve", "training", "classes", "advise-plot"),
    ]
    assert re.search(r"random-0 → B, \d networks: +\d+%\|", str(outputs["study"]))  # a bar
    trained = outputs["study-networks"][0].data["text/plain"]
    assert trained.count("done") == 7 and "A4B+" in trained
    assert "Always predicting" in outputs["advise"][-1].data["text/plain"]
    a4b = f"{known.accuracy['A4B']:.3f}"
    assert outputs["classify"][0].text == (
        f"20 images. Accuracy now: {a4b}\nAccuracy when it was trained: {a4b}\n"
    )
    wrong = int((~known.right["B7B"]).sum())
    said = outputs["difference"][0].text
    assert said.startswith(f"A7B minus B7B: {wrong / 20:+.3f} over 20 images\n")
    assert said.endswith(f"p = {2 ** (1 - wrong):.2g}\n")
