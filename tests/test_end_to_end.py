"""The miniature study from nothing to figures: plan, train, resume, collect, draw."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.collect import collect
from analysis.figures import figure2, figure3
from analysis.style import save
from tests.conftest import CPU, SHRUNK, shrunk
from transferability.datasets import open_dataset
from transferability.runner import ensure
from transferability.store import Store
from transferability.study import study_specs

ROOT = Path(__file__).parent.parent


def run(module: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder, overrides and what the commands printed."""
    folder = tmp_path_factory.mktemp("end-to-end")
    overrides = [*SHRUNK, f"data_dir={folder}/data", f"store={folder}/runs"]
    printed = {"plan": run("experiments.run", *overrides, "mode=plan")}
    sweep = ["split=random-0,natural-manmade", "target=A,B", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    run("experiments.run", "-m", *overrides, *sweep)
    printed["plan after"] = run("experiments.run", *overrides, "mode=plan")
    printed["status"] = run("experiments.status", *overrides)
    table = folder / "out" / "table.csv"
    printed["collect"] = run("analysis.collect", *overrides, f"out={table}")
    printed["figures"] = run("analysis.figures", str(table))
    return folder, table, printed


def test_the_study_is_the_papers_list(study):
    table = pd.read_csv(study[1])
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


def test_plan_and_status_count(study):
    _, _, printed = study
    assert "To train: 88 networks, 4,224 network-images" in printed["plan"]  # 88 x 8 steps x 6 images
    assert "every network is finished" in printed["plan after"]
    assert printed["status"].splitlines()[-1].split() == ["all", "88", "88", "-", "-", "-"]


def test_a_sweep_over_processes_equals_one_process(study, tmp_path):
    folder, _, _ = study
    config = shrunk(folder, "split=random-0", "target=B", "study.layers=[2,6]")
    dataset = open_dataset(config.dataset.folder)
    specs = study_specs(config, dataset)
    store, swept = Store(tmp_path), Store(folder / "runs")
    ensure(specs, store, dataset, CPU)
    for spec in specs:
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (store.folder(spec) / name).read_bytes() == (swept.folder(spec) / name).read_bytes()


def test_figures_are_written_and_equal_for_equal_tables(study, tmp_path):
    _, table, printed = study
    drawn = [Path(line) for line in printed["figures"].splitlines()]
    assert len(drawn) == 6 and all(p.stat().st_size > 5000 for p in drawn)
    run("analysis.figures", str(table), "--out", str(tmp_path))
    for path in drawn:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_missing_networks_are_named_and_marked(study, tmp_path, capsys):
    folder, _, _ = study
    config = shrunk(folder, "study.layers=[1,2]")
    dataset = open_dataset(config.dataset.folder)
    specs = study_specs(config, dataset)
    ensure([s for s in specs if str(s.cell) in ("A1B", "B1B")], Store(tmp_path), dataset, CPU)
    table = collect(specs, Store(tmp_path))
    assert (table.state == "missing").sum() == len(table) - 6  # A1B twice, B1B once, three bases
    for draw in (figure2, figure3):
        figure = draw(table)
        assert "NETWORKS OF THE STUDY ARE MISSING" in figure.get_suptitle()
        save(figure, tmp_path / "figures" / draw.__name__)
    done = subprocess.run(
        [sys.executable, "-m", "analysis.collect", *SHRUNK, f"data_dir={folder}/data", f"store={tmp_path}", "out="
         f"{tmp_path}/t.csv"], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert "missing: " in done.stderr and "random-0 A1A" in done.stderr


def test_the_marks_of_a_figure_are_the_rows_of_the_table(study):
    table = pd.read_csv(study[1])
    axes = figure2(table).axes[0]
    drawn = sorted(y for c in axes.collections for _, y in c.get_offsets())
    wanted = table[(table.split_kind == "random") & (table.treatment != "RnB")].top1
    assert drawn == pytest.approx(sorted(wanted))


def test_the_papers_statistic_is_the_mean_of_the_ten_best(study, tmp_path):
    import json

    folder, _, _ = study
    config = shrunk(folder, "cell=baseB", "split=random-0")
    spec = study_specs(config, open_dataset(config.dataset.folder))[0]
    store = Store(tmp_path)
    target = store.folder(spec)
    target.mkdir()
    source = Store(folder / "runs").folder(spec)
    for name in ("spec.json", "provenance.json", "DONE"):
        (target / name).write_bytes((source / name).read_bytes())
    values = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5, 0.55, 0.45, 0.35]
    lines = [{"step": i, "lr": 1, "train_loss": 1, "val_loss": 1, "val_top1": v} for i, v in enumerate(values)]
    (target / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = collect([spec], store).iloc[0]
    assert row.top1 == 0.35  # the final evaluation
    assert row.top1_mean_best10 == pytest.approx((sum(values) - 0.1 - 0.2) / 10)


def row(cell, treatment, n, top1, target="B", split="random-0", kind="random", in_study=True, images_per_class=None):
    return {
        "dataset": "d", "split": split, "split_kind": kind, "cell": cell, "treatment": treatment, "target": target,
        "n": n, "seed": 0, "classes": 10, "images_per_class": images_per_class, "run": f"{split}-{cell}-{in_study}",
        "state": "done", "top1": top1, "in_study": in_study,
    }  # fmt: skip


def test_only_bases_of_the_study_are_baselines():
    """A base of another task or volume that only lends its layers is neither drawn nor averaged."""
    table = pd.DataFrame(
        [
            row("baseA", "base", 0, 0.9, target="A", in_study=False),
            row("baseB", "base", 0, 0.8, in_study=False),
            row("baseB", "base", 0, 0.5, images_per_class=10),
            row("A3B", "AnB", 3, 0.6, images_per_class=10),
            row("R3B", "RnB", 3, 0.2, images_per_class=10),
        ]
    )
    axes = figure2(table).axes[0]
    assert axes.lines[0].get_ydata()[0] == 0.5, "the reference line is the study's own base"
    assert "10 images a class" in figure2(table).get_suptitle()
    right = figure3(table).axes[-1]
    drawn = sorted(y for c in right.collections for _, y in c.get_offsets())
    assert drawn == pytest.approx([-0.3, 0.1])


def test_figures_have_the_panels_that_the_study_has():
    user = [
        row("baseB", "base", 0, 0.5, split="mine", kind="user"),
        row("A3B", "AnB", 3, 0.6, split="mine", kind="user"),
    ]
    table = pd.DataFrame(user)
    assert "mine" in figure2(table).get_suptitle() and figure3(table) is None
    random = pd.DataFrame([row("baseB", "base", 0, 0.5), row("R3B", "RnB", 3, 0.1)])
    assert figure3(random).axes[0].get_title() == "Random, untrained layers" and len(figure3(random).axes) == 2
    distant = {"split": "natural-manmade", "kind": "natural-manmade"}
    table = pd.DataFrame([row("baseB", "base", 0, 0.5, **distant), row("A3B", "AnB", 3, 0.1, **distant)])
    assert figure2(table) is None and len(figure3(table).axes) == 2
