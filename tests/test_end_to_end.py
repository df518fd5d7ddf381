"""The miniature study from nothing to figures: plan, train, resume, collect, draw."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from analysis.collect import collect
from analysis.decomposition import decompose
from analysis.figures import accuracy, distance
from analysis.figures.write import drawings
from analysis.paper import published
from analysis.style import compose, render, save
from analysis.tables import RESULTS, Tables, names
from tests.conftest import CPU, SHRUNK, shrunk
from transferability.datasets import open_dataset
from transferability.errors import UserError
from transferability.runner import ensure
from transferability.store import Store
from transferability.study import study_specs

ROOT = Path(__file__).parent.parent


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Folder of the runs, folder of the tables, and what the commands printed."""
    folder = tmp_path_factory.mktemp("end-to-end")
    overrides = [*SHRUNK, f"data_dir={folder}/data", f"store={folder}/runs"]
    printed = {"plan": run("experiments.run", *overrides, "mode=plan")}
    sweep = [
        "split=random-0,natural-manmade",
        "target=A,B",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    run("experiments.run", "-m", *overrides, *sweep)
    printed["plan after"] = run("experiments.run", *overrides, "mode=plan")
    printed["status"] = run("experiments.status", *overrides)
    tables = folder / "tables"
    printed["collect"] = run("analysis.collect", *overrides, f"out={tables}")
    printed["figures"] = run("analysis.figures", str(tables))
    printed["report"] = run("analysis.report", str(tables))
    return folder, tables, printed


def test_the_study_is_the_papers_list(study):
    table = Tables.read(study[1]).results
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
    # 88 x 8 steps x 6 images
    assert "To train: 88 networks, 4,224 network-images, in 8 jobs" in printed["plan"]
    # 8 jobs x 8 steps x 6 images
    assert "To read: 384 images, each for 11.0 networks." in printed["plan"]
    assert "every network is finished" in printed["plan after"]
    assert printed["status"].splitlines()[-1].split() == ["all", "88", "88", *"----"]


def test_the_plan_says_how_many_bytes_the_study_will_write(study):
    folder, _, printed = study
    number, unit = re.search(r"To write: ([\d.]+) (KB|MB) that stay", printed["plan"]).groups()
    planned = float(number) * {"KB": 1e3, "MB": 1e6}[unit]
    written = sum(p.stat().st_size for p in (folder / "runs").rglob("*") if p.is_file())
    assert planned == pytest.approx(written, rel=0.25)


def test_a_sweep_over_processes_equals_one_process(study, tmp_path):
    folder, _, _ = study
    config = shrunk(folder, "split=random-0", "target=B", "study.layers=[2,6]")
    dataset = open_dataset(config.dataset.folder)
    specs = study_specs(config, dataset)
    store, swept = Store(tmp_path), Store(folder / "runs")
    ensure(specs, store, dataset, CPU)
    for spec in specs:
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (store.folder(spec) / name).read_bytes() == (
                swept.folder(spec) / name
            ).read_bytes()


def test_figures_and_report_are_written_and_equal_for_equal_tables(study, tmp_path):
    _, tables, printed = study
    lines = printed["figures"].splitlines()
    drawn = [Path(line) for line in lines if "not drawn" not in line]
    assert [line.split(":")[0] for line in lines if "not drawn" in line] == [
        "advice",
        "dissimilar",
        "volume",
        "predictors",
    ]
    figures = (
        "design",
        "accuracy",
        "distance",
        "decomposition",
        "filters",
        "similarity",
        "activity",
        "curves",
    )
    assert [p.name for p in drawn] == [
        f"{f}.{kind}" for f in figures for kind in ("pdf", "svg", "png")
    ]
    assert printed["report"].splitlines()[-1] == f"report: {tables.resolve()}/report.html"
    assert len(pd.read_csv(tables / "claims.csv")) == len(printed["report"].splitlines()) - 2
    for name in ("results", "curves", "filters", "similarity", "activity"):
        (tmp_path / f"{name}.csv").write_bytes((tables / f"{name}.csv").read_bytes())
    for name in ("about.json", "predictions.safetensors"):
        (tmp_path / name).write_bytes((tables / name).read_bytes())
    run("analysis.figures", str(tmp_path))
    run("analysis.report", str(tmp_path))
    for name in [*(p.name for p in drawn), "report.html"]:
        assert (tables / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_tables_do_not_depend_on_when_they_are_collected(study, tmp_path):
    folder, tables, _ = study
    run(
        "analysis.collect",
        *SHRUNK,
        f"data_dir={folder}/data",
        f"store={folder}/runs",
        f"out={tmp_path}",
    )
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (tables / path.name).read_bytes(), path.name


def test_tables_of_another_study_are_not_overwritten(study, tmp_path):
    folder, tables, _ = study
    before = (tables / "results.csv").read_bytes()
    of = [*SHRUNK, f"data_dir={folder}/data", f"store={folder}/runs", "study.layers=[1,2]"]
    command = [sys.executable, "-m", "analysis.collect", *of, f"out={tables}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and "has 88 finished networks, this study 28: nothing is overwritten" in done.stderr
    )
    assert (tables / "results.csv").read_bytes() == before


def test_tables_outlive_the_weights(study, tmp_path):
    folder, tables, _ = study
    kept = shutil.copytree(tables, tmp_path / "kept")
    of = [*SHRUNK, f"data_dir={folder}/data", f"store={tmp_path}/none"]
    printed = run("analysis.collect", *of, f"out={kept}")
    assert (
        "88 networks, 0 missing" in printed
        and f"88 of them are not in the store {tmp_path}/none" in printed
    )
    for path in kept.iterdir():
        assert path.read_bytes() == (tables / path.name).read_bytes(), path.name


@pytest.mark.parametrize("first", ["random-0", "natural-manmade"])
def test_a_study_trained_in_two_places_has_the_tables_of_one_trained_in_one(study, tmp_path, first):
    folder, tables, _ = study
    for part in (True, False):
        for path in (folder / "runs").iterdir():
            if path.is_dir() and (first in path.name) == part:
                shutil.copytree(path, tmp_path / f"runs-{part}" / path.name)
        of = [*SHRUNK, f"data_dir={folder}/data", f"store={tmp_path}/runs-{part}"]
        run("analysis.collect", *of, f"out={tmp_path}/tables")
    assert not any(path.name in {p.name for p in (tmp_path / "runs-True").iterdir()} for path in
                   (tmp_path / "runs-False").iterdir())  # fmt: skip
    for name in ("results", "curves", "filters", "similarity", "activity"):
        found, wanted = [
            sorted((at / f"{name}.csv").read_text().splitlines())
            for at in (tmp_path / "tables", tables)
        ]
        assert found == wanted, name
    about, one = Tables.read(tmp_path / "tables").about, Tables.read(tables).about
    assert about == one


def test_what_the_store_has_comes_before_what_the_folder_had(study, tmp_path):
    folder, tables, _ = study
    shutil.copytree(tables, tmp_path / "t")
    results = pd.read_csv(tables / "results.csv")
    results.assign(top1=0.123).to_csv(tmp_path / "t/results.csv", index=False)
    shutil.copytree(folder / "runs" / results.run[0], tmp_path / "runs" / results.run[0])
    run(
        "analysis.collect",
        *SHRUNK,
        f"data_dir={folder}/data",
        f"store={tmp_path}/runs",
        f"out={tmp_path}/t",
    )
    top1 = Tables.read(tmp_path / "t").results.top1
    assert (
        top1[0] == pytest.approx(results.top1[0], abs=1e-6) != 0.123 and (top1[1:] == 0.123).all()
    )


def test_missing_networks_are_named_and_marked(study, tmp_path):
    folder, _, _ = study
    config = shrunk(folder, "study.layers=[1,2]")
    dataset = open_dataset(config.dataset.folder)
    specs = study_specs(config, dataset)
    ensure([s for s in specs if str(s.cell) in ("A1B", "B1B")], Store(tmp_path), dataset, CPU)
    tables = collect(specs, Store(tmp_path), dataset)
    missing = tables.results[tables.results.state == "missing"]
    assert len(missing) == len(tables.results) - 6  # A1B twice, B1B once, three bases
    made, _ = drawings(tables)
    assert {d.name for d in made} == {
        "accuracy",
        "distance",
        "decomposition",
        "filters",
        "similarity",
        "curves",
    }
    for figure in (accuracy, distance):
        assert "networks of the study are missing" in figure.draw(tables).caption
    for drawing in made:
        compose(drawing)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "analysis.collect",
            *SHRUNK,
            f"data_dir={folder}/data",
            f"store={tmp_path}",
            f"out={tmp_path}/t",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "missing: " in done.stderr and "random-0 A1A" in done.stderr
    run("analysis.report", f"{tmp_path}/t")


def test_the_marks_of_a_figure_are_the_rows_of_the_table(study):
    tables = Tables.read(study[1])
    axes = render(accuracy.draw(tables).panels[0]).axes[0]
    drawn = sorted(y for c in axes.collections for _, y in c.get_offsets())
    results = tables.results
    wanted = results[(results.split_kind == "random") & (results.treatment != "RnB")].top1
    assert drawn == pytest.approx(sorted(wanted))
    tips = [tip for c in axes.collections for tip in c.tips]
    assert len(tips) == len(drawn) and f"baseA, random-0, seed 0: {drawn_base(results):.3f}" in tips


def drawn_base(results):
    return results[(results.cell == "baseA") & (results.split == "random-0")].top1.item()


def test_the_papers_statistic_is_the_mean_of_the_ten_best(study, tmp_path):
    folder, _, _ = study
    config = shrunk(folder, "cell=baseB", "split=random-0")
    spec = study_specs(config, open_dataset(config.dataset.folder))[0]
    store, source = Store(tmp_path), Store(folder / "runs")
    values = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5, 0.55, 0.45, 0.35]
    metrics = [
        {"step": i, "lr": 1, "train_loss": 1, "val_loss": 1, "val_top1": v}
        for i, v in enumerate(values)
    ]
    store.claim(spec).release()
    made = source.provenance(spec), source.predictions(spec)
    store.finish(spec, source.weights(spec), metrics, *made)
    row = collect([spec], store, open_dataset(config.dataset.folder)).results.iloc[0]
    assert row.top1 == 0.35  # the final evaluation
    assert row.top1_mean_best10 == pytest.approx((sum(values) - 0.1 - 0.2) / 10)


@pytest.fixture
def tour(tmp_path, monkeypatch):
    """The notebook, and what executes it as if it lay in ``tmp_path``/docs."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "docs").mkdir()
    notebook = nbformat.read(ROOT / "docs/tour.ipynb", as_version=4)
    return notebook, NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path / "docs"}}
    )


def test_the_tour_shows_what_the_tables_say_and_trains_nothing(study, tour, tmp_path):
    """With the layers that the short demo of .ci/run has."""
    folder, _, _ = study
    notebook, client = tour
    (tmp_path / "runs").symlink_to(folder / "runs")
    (tmp_path / "data").symlink_to(folder / "data")
    where = tmp_path / "figures/figures-procedural"
    of = [*SHRUNK, f"data_dir={folder}/data", f"store={folder}/runs", "study.layers=[1,4,7]"]
    run("analysis.collect", *of, f"out={where}")
    tables = Tables.read(where)
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
    assert drawn == ["pictures", "filters", "features", "curve", "training", "classes"]
    a4b = f"{known.accuracy['A4B']:.3f}"
    assert outputs["classify"][0].text == (
        f"20 images. Accuracy now: {a4b}\nAccuracy when it was trained: {a4b}\n"
    )
    wrong = int((~known.right["B7B"]).sum())
    said = outputs["difference"][0].text
    assert said.startswith(f"A7B minus B7B: {wrong / 20:+.3f} over 20 images\n")
    assert said.endswith(f"p = {2 ** (1 - wrong):.2g}\n")


def test_the_tour_without_a_study_says_in_one_line_what_to_do(tour, tmp_path):
    notebook, client = tour
    with pytest.raises(CellExecutionError):
        client.execute()
    shown = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert [o.traceback for o in shown] == [
        [f"error: {tmp_path}/runs is not there: give `make demo` first"]
    ]


def row(
    cell,
    treatment,
    n,
    top1,
    target="B",
    split="random-0",
    kind="random",
    in_study=True,
    images_per_class=None,
):
    return dict.fromkeys(RESULTS) | {
        "dataset": "d",
        "split": split,
        "split_kind": kind,
        "cell": cell,
        "treatment": treatment,
        "target": target,
        "n": n,
        "seed": 0,
        "classes": 10,
        "images_per_class": images_per_class,
        "run": f"{split}-{cell}-{in_study}",
        "state": "done",
        "top1": top1,
        "in_study": in_study,
        "val_images": 100,
        "recipe": "r",
        "network": "small",
    }


def tables_of(*rows) -> Tables:
    about = {
        "title": "t",
        "statistic": "top1",
        "statistic_label": "top-1",
        "dataset": {"name": "d"},
    }
    return Tables(about | {"network": {"name": "small"}}, pd.DataFrame(rows, columns=RESULTS))


def test_all_treatments_between_dissimilar_tasks_have_a_figure_and_their_own_specificity_loss():
    rows = []
    for split, kind, loss in (
        ("random-0", "random", 0.1),
        ("natural-manmade", "natural-manmade", 0.3),
    ):
        for target, base in (("A", 0.8), ("B", 0.6)):
            rows.append(row(f"base{target}", "base", 0, base, target, split, kind))
            rows += [
                row(f"X{n}{target}", "BnB", n, base - 0.05, target, split, kind) for n in (1, 2)
            ]
            rows += [
                row(f"X{n}{target}", "AnB", n, base - 0.05 - loss * n / 2, target, split, kind)
                for n in (1, 2)
            ]
            rows += [
                row(f"R{n}{target}", "RnB", n, 0.1 + 0.3 * (target == "A"), target, split, kind)
                for n in (1, 2)
            ]
    tables = tables_of(*rows)
    losses = decompose(tables.networks).set_index(["quantity", "n"])
    assert losses.value[("specificity loss", 2)] == pytest.approx(0.1)
    assert losses.value[("specificity loss, dissimilar tasks", 2)] == pytest.approx(0.3)
    width = losses.high[("specificity loss", 2)] - losses.low[("specificity loss", 2)]
    assert width < 1e-6, (
        "random filters, which differ by 0.3 between tasks, are no noise of the others"
    )
    made = {drawing.name: drawing for drawing in drawings(tables)[0]}
    titles = [panel.title.split(":")[0] for panel in made["dissimilar"].panels]
    assert titles == ["Target A", "Target B", "Random, untrained layers", "Specificity loss"]

    def heights(panel: int) -> list[float]:
        axes = render(made["dissimilar"].panels[panel]).axes[0]
        return sorted(
            {round(y, 3) for collection in axes.collections for _, y in collection.get_offsets()}
        )

    assert heights(0) == heights(1) == [-0.35, -0.2, -0.05, 0.0], (
        "each minus the base of its own task"
    )
    assert heights(2) == [-0.5, -0.4]
    only = tables_of(*[r for r in rows if r["treatment"] in ("base", "AnB")])
    assert "nothing but AnB" in drawings(only)[1]["dissimilar"]


def test_only_bases_of_the_study_are_baselines():
    """A base of another task or volume that only lends its layers is neither drawn nor averaged."""
    tables = tables_of(
        row("baseA", "base", 0, 0.9, target="A", in_study=False),
        row("baseB", "base", 0, 0.8, in_study=False),
        row("baseB", "base", 0, 0.5, images_per_class=10),
        row("A3B", "AnB", 3, 0.6, images_per_class=10),
        row("R3B", "RnB", 3, 0.2, images_per_class=10),
    )
    drawing = accuracy.draw(tables)
    axes = render(drawing.panels[0]).axes[0]
    assert axes.lines[0].get_ydata()[0] == 0.5, "the reference line is the study's own base"
    assert "10 images a class" in drawing.title
    right = render(distance.draw(tables).panels[-1]).axes[0]
    drawn = sorted(y for c in right.collections for _, y in c.get_offsets())
    assert drawn == pytest.approx([-0.3, 0.1])


def test_what_a_study_varies_is_not_averaged_away():
    """Networks from 10 and from 100 images a class have no common mean;
    the small studies' figure compares them.
    """
    networks = [row("baseB", "base", 0, 0.4), row("A1B", "AnB", 1, 0.3)]
    made, absent = drawings(tables_of(*networks, row("A1B", "AnB", 1, 0.2, images_per_class=10)))
    assert {"accuracy", "distance", "dissimilar", "decomposition"} <= absent.keys()
    assert (
        absent["accuracy"]
        == "the networks differ in images_per_class: `make question` compares them"
    )
    made, absent = drawings(tables_of(*networks, row("baseB", "base", 0, 0.9, images_per_class=10)))
    (found,) = (drawing for drawing in made if drawing.name == "accuracy")
    assert "2 networks" in found.caption, (
        "a base that nothing is compared with is no part of the mean"
    )


def test_a_study_whose_bases_are_not_its_own_is_drawn():
    (found,) = (
        d for d in drawings(tables_of(row("A1B", "AnB", 1, 0.3)))[0] if d.name == "accuracy"
    )
    compose(found)


def test_figures_have_the_panels_that_the_study_has():
    mine = {"split": "mine", "kind": "user"}
    tables = tables_of(row("baseB", "base", 0, 0.5, **mine), row("A3B", "AnB", 3, 0.6, **mine))
    assert "mine" in accuracy.draw(tables).caption and isinstance(distance.draw(tables), str)
    tables = tables_of(row("baseB", "base", 0, 0.5), row("R3B", "RnB", 3, 0.1))
    assert [panel.title for panel in distance.draw(tables).panels] == [
        "Random, untrained layers",
        "Relative to base",
    ]
    far = {"split": "natural-manmade", "kind": "natural-manmade"}
    tables = tables_of(row("baseB", "base", 0, 0.5, **far), row("A3B", "AnB", 3, 0.1, **far))
    assert isinstance(accuracy.draw(tables), str) and len(distance.draw(tables).panels) == 2


@pytest.mark.parametrize("name", ["a $\\frac$ b", "100% $^$", "cost_$x_$", "<b>&amp;</b>"])
def test_names_are_drawn_as_they_are(name, tmp_path):
    odd = tables_of(
        row("baseB", "base", 0, 0.5, split=name, kind="user"),
        row("A3B", "AnB", 3, 0.25, split=name),
    )
    odd.about["dataset"]["name"] = name
    figure = compose(accuracy.draw(odd))
    assert name in figure.get_suptitle()
    save(figure, tmp_path / "figure")


def test_tables_survive_writing_and_reading(tmp_path):
    odd = tables_of(
        row("baseB", "base", 0, 0.5, split='a, "b"\nNA', kind="user"), row("A3B", "AnB", 3, 0.25)
    )
    odd.write(tmp_path)
    again = Tables.read(tmp_path)
    assert again.results.split.tolist() == ['a, "b"\nNA', "random-0"]
    assert again.networks.accuracy.tolist() == [0.5, 0.25] and again.about == odd.about
    assert names(again.networks) == ['a, "b"\nNA baseB', "random-0 A3B"]
    published().write(tmp_path)
    text = (tmp_path / "results.csv").read_text()
    assert ",25000," in text and "25000.0" not in text, (
        "whole numbers stay whole beside missing ones"
    )


@pytest.mark.parametrize("split", ["007", "1e3", "mine"])
def test_an_empty_store_keeps_the_filters_of_any_split(split, study, tmp_path):
    """What a folder has of networks that the store lacks is kept,
    also where a split is named like a number.
    """
    folder, _, _ = study
    config = shrunk(folder)
    dataset = open_dataset(config.dataset.folder)
    lists = [[info.name for info in dataset.classes[i : i + 3]] for i in (0, 3)]
    (tmp_path / f"{split}.yaml").write_text(f"A: {lists[0]}\nB: {lists[1]}\n")
    config = shrunk(folder, f"split={tmp_path}/{split}.yaml", "study.treatments={user:[base]}")
    specs = study_specs(config, dataset)
    ensure(specs, Store(tmp_path / "full"), dataset, CPU)
    whole = collect(specs, Store(tmp_path / "full"), dataset)
    whole.write(tmp_path / "tables")
    again = collect(specs, Store(tmp_path / "empty"), dataset, Tables.read(tmp_path / "tables"))
    assert len(whole.filters) and set(again.filters.split) == {split}
    before = {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.csv")}
    again.write(tmp_path / "tables")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.csv")} == before


@pytest.mark.parametrize("name", ["results", "curves"])
def test_a_table_that_is_none_has_a_way_back(name, tmp_path):
    """Semicolons, tabs, another encoding, nothing: collecting again reads it too,
    so that is no advice.
    """
    good = Tables(published().about, published().results, pd.DataFrame({"run": ["ü"], "step": [1]}))
    good.write(tmp_path)
    path = tmp_path / f"{name}.csv"
    text = path.read_text()
    for damage in (text.replace(",", ";"), text.replace(",", "\t")):
        path.write_text(damage)
        with pytest.raises(
            UserError,
            match=f"{name}.csv is not separated by commas.*or move the folder away and coll",
        ):
            Tables.read(tmp_path)
    path.write_bytes((text + "é").encode("latin-1"))
    with pytest.raises(
        UserError, match=f"{name}.csv is damaged .*: move the folder away and collect again"
    ):
        Tables.read(tmp_path)
    path.write_text("")
    with pytest.raises(
        UserError,
        match=f"{name}.csv is damaged .No columns.*: move the folder away and collect again",
    ):
        Tables.read(tmp_path)
    path.write_text(text)
    (tmp_path / "results.csv").write_text(
        (tmp_path / "results.csv").read_text().replace("split_kind", "kind")
    )
    with pytest.raises(UserError, match="lacks the column 'split_kind': move the folder away"):
        Tables.read(tmp_path)


def visible_texts(figure) -> list:
    """Every text that is drawn: titles, labels, legends,
    and the labels of ticks within the axes.
    """
    texts = [figure._suptitle, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        texts += [
            axes.title,
            *axes.texts,
            *(axes.get_legend().get_texts() if axes.get_legend() else []),
        ]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            texts += [
                axis.label,
                *(t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high),
            ]
    return [t for t in texts if t.get_visible() and t.get_text().strip()]


def overlapping(figure) -> list[tuple[str, str]]:
    """Pairs of texts of a figure whose boxes overlap by more than a pixel,
    and texts that leave the page.
    """
    figure.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in visible_texts(figure)]
    width, height = figure.canvas.get_width_height()
    outside = [
        (t, "page")
        for t, b in boxes
        if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1
    ]
    return outside + [
        (first, second)
        for i, (first, a) in enumerate(boxes)
        for second, b in boxes[:i]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]


@pytest.mark.parametrize("layers", [[1], [1, 4, 7], [1, 2, 3, 4, 5, 6, 7]])
def test_no_text_overlaps_at_any_size_of_study(study, layers):
    tables = Tables.read(study[1])
    for part in (tables, published()):
        own = Tables(
            part.about,
            part.results[part.results.n.isin([0, *layers])],
            part.curves,
            part.filters,
            part.similarity,
            part.activity,
        )
        for drawing in drawings(own)[0]:
            figure = compose(drawing)
            assert not overlapping(figure), drawing.name
            plt.close(figure)
