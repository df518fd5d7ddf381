"""Tables of the miniature study: whenever and wherever they are collected, and what is missing."""

import os
import re
import shutil

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import experiments.run
from analysis import collect
from analysis.earlier import first_filters
from analysis.figures import accuracy, distance
from analysis.metadata import study_metadata
from analysis.paper import published
from analysis.plotting.layout import compose
from analysis.report import write_report
from analysis.tables import StudyResults, names
from tests.made_up import row, tables_of
from tests.miniature import CPU, shrunk
from transferability import Study
from transferability.data.packed import open_dataset
from transferability.errors import UserError
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study.expand import study_specs
from transferability.study.jobs import with_bases


def collected(cli, *overrides: str) -> str:
    """What the command says that collects into the folder out=..."""
    status, said, err = cli(collect.main, *overrides)
    assert status == 0, err
    return said


def test_tables_do_not_depend_on_when_they_are_collected(miniature, cli, tmp_path):
    collected(cli, *miniature.overrides, f"out={tmp_path}")
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (miniature.tables / path.name).read_bytes(), path.name


def test_the_classes_of_both_tasks_are_recorded_with_the_rule(miniature):
    tables = StudyResults.read(miniature.tables)
    names, tasks = tables.metadata["dataset"]["class_names"], tables.metadata["tasks"]
    assert set(tasks) == {"random-0", "natural-manmade"}
    assert "RandomState([0])" in tasks["random-0"]["rule"]
    for split in tasks.values():
        assert set(split["classes"]) == {"A", "B"}
        assert sorted(split["classes"]["A"] + split["classes"]["B"]) == sorted(names)
    natural = tasks["natural-manmade"]["classes"]["A"]
    assert all("natural" in name for name in natural)


def test_tasks_of_different_sizes_have_no_number_of_outputs_in_common(dataset, spec_of, tmp_path):
    lists = tmp_path / "own.yaml"
    names = [c.name for c in dataset.classes]
    lists.write_text(f"A: {names[:3]}\nB: {names[3:]}")
    specs = [spec_of(cell, split=str(lists)) for cell in ("baseA", "baseB")]
    assert [spec.network.n_outputs for spec in specs] == [3, 5]
    assert study_metadata(specs, [], dataset)["network"]["outputs"] == "one per class of the task"
    assert study_metadata(specs[:1], [], dataset)["network"]["outputs"] == 3


def test_tables_of_another_study_are_not_overwritten(miniature, cli):
    before = (miniature.tables / "results.csv").read_bytes()
    out = f"out={miniature.tables}"
    status, _, err = cli(collect.main, *miniature.overrides, "study.layers=[1,2]", out)
    assert status == 2 and "has 88 finished networks, this study 28: nothing is overwritten" in err
    assert (miniature.tables / "results.csv").read_bytes() == before


def test_networks_that_only_the_folder_has_are_not_overwritten(miniature, cli, tmp_path):
    """By a study of as many others: the tables of one machine, where another collects its half."""
    parts = [[f"split=random-{k}", "study.treatments={random:[base]}"] for k in (0, 1)]
    half, other = ([*miniature.overrides, *part, f"out={tmp_path}/t"] for part in parts)
    collected(cli, *half)
    kept = (tmp_path / "t/results.csv").read_bytes()
    status, _, err = cli(experiments.run.main, *other, f"store={tmp_path}/runs")
    assert status == 0, err
    status, _, err = cli(collect.main, *other, f"store={tmp_path}/runs")
    assert status == 2 and (tmp_path / "t/results.csv").read_bytes() == kept
    assert f"has 2 finished networks that this study does not have, nor the store {tmp_path}" in err
    splits = "study.splits=[random-0,random-1]"
    collected(cli, *half, "split=null", splits, f"store={tmp_path}/runs")
    assert StudyResults.read(tmp_path / "t").results.state.tolist() == ["done"] * 4


def test_tables_outlive_the_weights(miniature, cli, tmp_path):
    kept = shutil.copytree(miniature.tables, tmp_path / "kept")
    said = collected(cli, *miniature.overrides, f"store={tmp_path}/none", f"out={kept}")
    assert (
        "88 networks, 0 missing" in said
        and f"88 of them are not in the store {tmp_path}/none" in said
    )
    for path in kept.iterdir():
        assert path.read_bytes() == (miniature.tables / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    "first", ["random-0", pytest.param("natural-manmade", marks=pytest.mark.slow)]
)
def test_a_study_trained_in_two_places_has_the_tables_of_one_trained_in_one(
    miniature, cli, tmp_path, first
):
    for part in (True, False):
        for path in (miniature.folder / "runs").iterdir():
            if path.is_dir() and (first in path.name) == part:
                shutil.copytree(path, tmp_path / f"runs-{part}" / path.name, copy_function=os.link)
        store = f"store={tmp_path}/runs-{part}"
        collected(cli, *miniature.overrides, store, f"out={tmp_path}/tables")
    assert not any(path.name in {p.name for p in (tmp_path / "runs-True").iterdir()} for path in
                   (tmp_path / "runs-False").iterdir())  # fmt: skip
    for name in ("results", "curves", "filters", "similarity", "activity"):
        found, wanted = [
            sorted((at / f"{name}.csv").read_text().splitlines())
            for at in (tmp_path / "tables", miniature.tables)
        ]
        assert found == wanted, name
    about, one = (
        StudyResults.read(tmp_path / "tables").metadata,
        StudyResults.read(miniature.tables).metadata,
    )
    assert about.pop("use")["recipes"] == one.pop("use")["recipes"]  # the rest is where they lie
    assert about == one


@pytest.mark.parametrize("targets", [("A", "B"), ("B",)])
def test_similarity_is_measured_again_where_a_split_has_other_tasks_than_before(miniature, targets):
    """Its images are drawn from all tasks of the split, and their number may be the same."""
    study = Study(*miniature.overrides, "study.treatments={random:[base]}")
    first = study.results()
    marked = first.similarity.assign(cka=-2.0)
    results = first.results[first.results.target.isin(targets)]
    earlier = StudyResults(first.metadata, results, similarity=marked)
    found = collect.collect(study.specs, study.store, study.dataset, earlier).similarity
    assert (found.cka == -2).all() if "A" in targets else found.equals(first.similarity)


def test_what_the_store_has_comes_before_what_the_folder_had(miniature, cli, tmp_path):
    shutil.copytree(miniature.tables, tmp_path / "t")
    results = pd.read_csv(miniature.tables / "results.csv")
    results.assign(top1=0.123).to_csv(tmp_path / "t/results.csv", index=False)
    run = results.run[0]
    shutil.copytree(miniature.folder / "runs" / run, tmp_path / "runs" / run)
    collected(cli, *miniature.overrides, f"store={tmp_path}/runs", f"out={tmp_path}/t")
    top1 = StudyResults.read(tmp_path / "t").results.top1
    assert (
        top1[0] == pytest.approx(results.top1[0], abs=1e-6) != 0.123 and (top1[1:] == 0.123).all()
    )


# 6 s of a CPU: a whole report
def test_missing_networks_are_named_and_marked(miniature, cli, tmp_path):
    config = shrunk(miniature.folder, "study.layers=[1,2]")
    dataset = open_dataset(config.dataset.folder)
    specs, store = study_specs(config, dataset), Store(tmp_path / "runs")
    done = with_bases([s for s in specs if str(s.cell) in ("A1B", "B1B")])
    for spec in done:
        run = Store(config.store).folder(spec)
        shutil.copytree(run, store.root / run.name, copy_function=os.link)
    status, _, err = cli(
        collect.main, *miniature.overrides, f"store={store.root}", f"out={tmp_path}/t"
    )
    assert status == 0 and "missing: " in err and "random-0 A1A" in err
    tables = collect.collect(specs, store, dataset)
    missing = tables.results[tables.results.state == "missing"]
    assert len(missing) == len(tables.results) - 6  # A1B twice, B1B once, three bases
    for figure in (accuracy, distance):
        drawing = figure.draw(tables)
        assert "networks of the study are missing" in drawing.caption
        plt.close(compose(drawing))
    page = write_report(tmp_path / "t").read_text()
    assert set(re.findall(r'<figure id="(\w+)"', page)) == {
        "design",
        "accuracy",
        "distance",
        "decomposition",
        "filters",
        "similarity",
        "curves",
    }


def test_the_papers_statistic_is_the_mean_of_the_ten_best(miniature, tmp_path):
    config = shrunk(miniature.folder, "cell=baseB", "split=random-0")
    spec = study_specs(config, open_dataset(config.dataset.folder))[0]
    store, source = Store(tmp_path), Store(config.store)
    values = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5, 0.55, 0.45, 0.35]
    metrics = [
        {"step": i, "lr": 1, "train_loss": 1, "val_loss": 1, "val_top1": v}
        for i, v in enumerate(values)
    ]
    store.lock(spec).release()
    made = source.provenance(spec), source.predictions(spec)
    store.finish(spec, source.weights(spec), metrics, *made)
    found = collect.collect([spec], store, open_dataset(config.dataset.folder)).results.iloc[0]
    assert found.top1 == 0.35  # the final evaluation
    assert found.top1_mean_best10 == pytest.approx((sum(values) - 0.1 - 0.2) / 10)


def test_tables_survive_writing_and_reading(tmp_path):
    odd = tables_of(
        row("baseB", "base", 0, 0.5, split='a, "b"\nNA', kind="user"), row("A3B", "AnB", 3, 0.25)
    )
    odd.write(tmp_path)
    again = StudyResults.read(tmp_path)
    assert again.results.split.tolist() == ['a, "b"\nNA', "random-0"]
    assert again.networks.accuracy.tolist() == [0.5, 0.25] and again.metadata == odd.metadata
    assert names(again.networks) == ['a, "b"\nNA baseB', "random-0 A3B"]
    published().write(tmp_path)
    text = (tmp_path / "results.csv").read_text()
    assert ",25000," in text and "25000.0" not in text, (
        "whole numbers stay whole beside missing ones"
    )


@pytest.mark.parametrize(
    "split", ["007", *(pytest.param(s, marks=pytest.mark.slow) for s in ("1e3", "mine"))]
)
def test_an_empty_store_keeps_the_filters_of_any_split(split, miniature, tmp_path):
    """What a folder has of networks that the store lacks is kept,
    also where a split is named like a number.
    """
    folder = miniature.folder
    config = shrunk(folder)
    dataset = open_dataset(config.dataset.folder)
    lists = [[info.name for info in dataset.classes[i : i + 3]] for i in (0, 3)]
    (tmp_path / f"{split}.yaml").write_text(f"A: {lists[0]}\nB: {lists[1]}\n")
    config = shrunk(folder, f"split={tmp_path}/{split}.yaml", "study.treatments={user:[base]}")
    specs = study_specs(config, dataset)
    train_missing(specs, Store(tmp_path / "full"), dataset, CPU)
    whole = collect.collect(specs, Store(tmp_path / "full"), dataset)
    whole.write(tmp_path / "tables")
    again = collect.collect(
        specs, Store(tmp_path / "empty"), dataset, StudyResults.read(tmp_path / "tables")
    )
    assert len(whole.filters) and set(again.filters.split) == {split}
    before = {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.csv")}
    again.write(tmp_path / "tables")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.csv")} == before


def test_filters_stay_those_of_the_first_split_that_has_any():
    """The weights of random-0 are nowhere; those of random-1 were there when it was collected,
    those of random-2 are now.
    """
    results = pd.DataFrame(
        [
            {"treatment": "base", "state": "done", "split": f"random-{k}", "seed": 0}
            for k in (0, 1, 2)
            for _ in "AB"
        ]
    )
    earlier, now = (pd.DataFrame({"split": [f"random-{k}"], "seed": [0]}) for k in (1, 2))
    assert first_filters(results, now, earlier) is earlier
    assert first_filters(results, earlier, now) is earlier
    assert first_filters(results, now, now.iloc[:0]) is now


@pytest.mark.parametrize("name", ["results", "curves"])
def test_a_table_that_is_none_has_a_way_back(name, tmp_path):
    """Semicolons, tabs, another encoding, nothing: collecting again reads it too,
    so that is no advice.
    """
    good = StudyResults(
        published().metadata, published().results, pd.DataFrame({"run": ["ü"], "step": [1]})
    )
    good.write(tmp_path)
    path = tmp_path / f"{name}.csv"
    text = path.read_text()
    for damage in (text.replace(",", ";"), text.replace(",", "\t")):
        path.write_text(damage)
        with pytest.raises(
            UserError,
            match=f"{name}.csv is not separated by commas.*or move the folder away and coll",
        ):
            StudyResults.read(tmp_path)
    path.write_bytes((text + "é").encode("latin-1"))
    with pytest.raises(
        UserError, match=f"{name}.csv is damaged .*: move the folder away and collect again"
    ):
        StudyResults.read(tmp_path)
    path.write_text("")
    with pytest.raises(
        UserError,
        match=f"{name}.csv is damaged .No columns.*: move the folder away and collect again",
    ):
        StudyResults.read(tmp_path)
    path.write_text(text)
    (tmp_path / "results.csv").write_text(
        (tmp_path / "results.csv").read_text().replace("split_kind", "kind")
    )
    with pytest.raises(UserError, match="lacks the column 'split_kind': move the folder away"):
        StudyResults.read(tmp_path)
