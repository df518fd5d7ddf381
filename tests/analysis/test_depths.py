"""Networks of 5 and of 20 layers: every figure, every question, the claims and the report;
numbers are made up.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.patches import Rectangle

from analysis.command import command
from analysis.figures import FIGURES, curves, design
from analysis.figures.predictors import LOOKS
from analysis.figures.write import drawings
from analysis.measurements.predictors import PREDICTORS
from analysis.measurements.representations import ACTIVITY, SIMILARITY
from analysis.page import MARGIN
from analysis.paper import published
from analysis.plotting.layout import compose, render
from analysis.plotting.style import BY_LAYER, DARK, layer_colors
from analysis.questions import QUESTIONS
from analysis.questions.write import question
from analysis.report import write_report
from analysis.statistics.claims import assess
from analysis.statistics.decomposition import boosts
from analysis.statistics.depths import Depths, listed
from analysis.tables import StudyResults
from tests.made_up import SPLITS, networks, tables_of


def study(layers: int) -> StudyResults:
    """With everything that a figure shows."""
    volumes = [
        networks(layers, (), ["random-1"], images_per_class=v, top1=v / 1000)[0] for v in (100, 300)
    ]
    results = tables_of(*networks(layers), *volumes, layers=layers).results
    below = pd.DataFrame({"layer": range(1, layers)})
    share = below.layer / layers
    curves = pd.DataFrame(
        {"step": [50, 100], "train_loss": [2, 1], "val_loss": [3, 2], "val_top1": [0.2, 0.3]}
    )
    pixels = np.indices((3, 16, 3, 3)).reshape(4, -1).T
    filters = pd.DataFrame(pixels, columns=["network", "filter", "row", "column"]).assign(
        split="random-0", seed=0
    )
    filters["network"] = np.array(["baseA", "baseB", "untrained"])[filters.network]
    filters[["red", "green", "blue"]] = np.random.default_rng(0).normal(size=(len(filters), 3))
    pairs = pd.DataFrame(
        [(s, p) for s in SPLITS for p in ("bases", "untrained")], columns=["split", "pair"]
    )
    similarity = pairs.merge(below.assign(cka=1 - 0.8 * share, images=100), how="cross")
    told = pd.DataFrame({"predictor": list(LOOKS)}).merge(
        pd.DataFrame({"n": below.layer, "value": 1 - share**2}), how="cross"
    )
    told.loc[len(told)] = {"predictor": "LEEP", "n": layers, "value": -0.5}
    inside = below.assign(cosine=share, silent=share / 2, images=100)
    random = results.loc[
        results.treatment.isin(["RnB", "base"]) & results.images_per_class.isna(), ["run"]
    ]
    return tables_of(
        *networks(layers),
        *volumes,
        layers=layers,
        curves=results[["run"]].merge(curves, how="cross"),
        filters=filters,
        similarity=similarity.reindex(columns=SIMILARITY, fill_value=0),
        activity=random.merge(inside, how="cross")[ACTIVITY],
        predictors=told.reindex(columns=PREDICTORS, fill_value=0).assign(images=100),
    )


def asked(name: str, layers: int) -> StudyResults:
    """The tables of a study that asks this question."""
    near = ["random-0"]
    rows = {
        "volume": [
            row
            for v in (30, 100)
            for row in networks(layers, ("AnB", "AnB+"), ["random-0"], images_per_class=v)
        ],
        "preserved": networks(layers, ("AnB", "AnB~1"), near),
        "variants": networks(layers, ("BnB",), near)
        + networks(layers, ("BnB",), near, network="other"),
        "longer": networks(layers, ("BnB+", "AnB+"), near)
        + networks(layers, (), near, recipe="twice"),
        "replicates": networks(layers, ("BnB", "AnB"), ["random-0", "random-1"]),
        "wordnet": [
            row | {"split_kind": "distance", "split": split, "task": row["target"]}
            for split in ("distance-0", "distance-2", "distance-4")
            for row in networks(layers, ("BnB", "AnB"), near)
        ],
    }[name]
    tables = tables_of(*rows, layers=layers)
    if name == "wordnet":
        steps = tables.results.split.str.removeprefix("distance-").astype(float)
        tables.results["distance"] = (8 + 2 * steps).where(tables.results.treatment == "AnB")
    return tables


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module", params=[5, 20])
def tables(request) -> StudyResults:
    return study(request.param)


def overlaps(axes) -> list[tuple[str, str]]:
    """Neighbouring numbers of the axis of n that touch."""
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    labels = [
        tick.label1
        for tick in axes.xaxis.get_major_ticks()
        if low <= tick.get_loc() <= high and axes.axison
    ]
    boxes = [label.get_window_extent() for label in labels]
    return [(a.get_text(), b.get_text()) for a, b, p, q in
            zip(labels, labels[1:], boxes, boxes[1:], strict=False) if p.x1 + 2 > q.x0]  # fmt: skip


# 10 s of a CPU: all figures there are
@pytest.mark.parametrize("tables", [5, pytest.param(20, marks=pytest.mark.slow)], indirect=True)
def test_every_figure_is_drawn_with_every_n(tables):
    made, absent = drawings(tables)
    names = [drawing.name for drawing in made]
    assert names == [f for f in FIGURES if f != "advice"] and absent.keys() == {"advice"}
    last = tables.layers - 1
    for drawing in made:
        if "n" in drawing.table and drawing.name != "curves":
            assert set(drawing.table.n) | {0} == {0, *range(1, last + 1)}, drawing.name
        assert "paper's means" not in drawing.caption and "published" not in drawing.caption, (
            "n is another layer there"
        )
    for drawing in [design.draw(tables.layers), *(d for d in made if d.name != "curves")]:
        for panel in drawing.panels:
            axes = render(panel).axes[0]
            assert overlaps(axes) == [], (drawing.name, panel.title)
            if axes.get_xlabel().startswith(("Layer", "Random")):
                shown = [
                    tick.get_loc()
                    for tick in [*axes.xaxis.get_major_ticks(), *axes.xaxis.get_minor_ticks()]
                ]
                assert {*range(1, last + 1)} <= set(shown) and axes.get_xlim()[1] > last
            pyplot.close(axes.figure)


# 6 s of a CPU with 20 layers: every claim's two intervals
@pytest.mark.parametrize("tables", [5, pytest.param(20, marks=pytest.mark.slow)], indirect=True)
def test_every_claim_is_tested_with_every_n(tables):
    claims = assess(tables.networks, tables.layers, MARGIN)
    assert len(claims) and "not tested" not in set(claims.verdict)


@pytest.mark.slow
def test_the_report_says_how_many_layers(tmp_path):
    tables_of(*networks(20, ("AnB",), ["random-0"]), layers=20).write(tmp_path)
    assert "A network of 20 layers" in write_report(tmp_path).read_text()


def test_each_n_has_a_color_of_its_own(tables):
    marks = curves.draw(tables).marks
    assert [mark.label for mark in marks] == [
        "base",
        *(f"n = {n}" for n in range(1, tables.layers)),
    ]
    colors = [mark.color for mark in marks]
    assert len(set(colors)) == tables.layers
    assert list(layer_colors(7)) == BY_LAYER and list(layer_colors(7).values()) == [
        DARK[c] for c in BY_LAYER
    ]


@pytest.mark.parametrize("layers", [5, 20])
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_is_drawn(name, layers):
    made = question(asked(name, layers))
    assert made.name == name and len(made.table)
    if name == "replicates":
        assert [panel.title for panel in made.panels] == [f"n = {n}" for n in range(1, layers)]
    axes = render(made.panels[0]).axes[0]
    axes.figure.draw_without_rendering()
    if name == "volume":  # an accuracy in each cell of the grid
        boxes = sorted(
            (text.get_window_extent() for text in axes.texts), key=lambda box: (box.y0, box.x0)
        )
        assert not any(p.x1 > q.x0 for p, q in pairwise(boxes) if abs(p.y0 - q.y0) < 1)
    elif name != "replicates":
        assert overlaps(axes) == []


@pytest.mark.parametrize(
    ("layers", "low", "middle", "high", "around", "below_high", "above_low"),
    [
        (8, [1, 2], [4, 5], [6, 7], [1, 2, 7], [3, 4, 5], [3, 4, 5, 6, 7]),  # the paper's
        (5, [1], [3], [4], [1, 4], [2, 3], [2, 3, 4]),
        (
            20,
            [1, 2, 3, 4, 5],
            [10, 11, 12, 13, 14],
            [15, 16, 17, 18, 19],
            [1, 2, 3, 4, 5, 16, 17, 18, 19],
            list(range(6, 15)),
            list(range(6, 20)),
        ),
        (3, [], [2], [], [], [1, 2], [1, 2]),
    ],
)
def test_low_middle_and_high_are_quarters(layers, low, middle, high, around, below_high, above_low):
    depths = Depths(layers)
    assert (depths.low, depths.middle, depths.high, depths.around) == (low, middle, high, around)
    assert (depths.below_high, depths.above_low) == (below_high, above_low)


def test_layers_are_listed_as_the_paper_does():
    assert [listed([1, 2, 7]), listed([3, 4, 5]), listed([3, 4, 5, 6, 7])] == [
        "1, 2, 7",
        "3, 4, 5",
        "3 to 7",
    ]
    assert [listed([6, 7], " and "), listed([4], " and "), listed([])] == ["6 and 7", "4", "-"]


def test_claims_and_boosts_are_of_the_layers_of_the_network(tables):
    claims = assess(tables.networks, tables.layers).set_index("difference")
    five = tables.layers == 5
    high = claims.loc[
        "AnB at n = 2, 3 minus AnB at n = 4"
        if five
        else "AnB at n = 6 to 14 minus AnB at n = 15 to 19"
    ]
    # linear in n, 0.18 from 0 to the last n: n = 2.5 against 4 of 4, and 10 against 17 of 19
    assert high.effect == pytest.approx(0.18 * (1.5 / 4 if five else 7 / 19), abs=0.01)
    assert high.statement == f"AnB falls most at {'layer 4' if five else 'layers 15 to 19'}"
    assert claims.statement.iloc[0].startswith(
        "Layer 1 transfers" if five else "Layers 1 to 5 transfer without"
    )
    assert list(boosts(tables.networks, tables.layers).n)[:3] == (
        ["1–4", "2–4", "3–4"] if five else ["1–19", "6–19", "11–19"]
    )
    theirs = assess(published().networks, 3)
    assert theirs[theirs.verdict == "not tested"].difference.str.contains("n = -").all()


@pytest.mark.parametrize("layers", [2, 5, 8, 12, 20, 50])
def test_the_design_has_a_box_a_layer_up_to_twelve(layers):
    (axes,) = compose(design.draw(layers)).axes
    boxes = [
        p
        for p in axes.patches
        if isinstance(p, Rectangle) and p.get_height() == pytest.approx(0.38)
    ]
    columns = layers if layers <= 12 else 11
    rows = 7  # two bases, BnB, BnB+, AnB, AnB+, RnB
    assert len(boxes) == rows * columns + 3  # and the key
    texts = [text.get_text() for text in axes.texts]
    assert (
        str(layers) in texts
        and f"→ class   (layers 1–{layers})" in texts
        and ("…" in texts) == (layers > 12)
    )


@pytest.mark.slow
def test_a_command_takes_several_folders_and_one_format(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        tables_of(*networks(5, ("BnB", "AnB"), ["random-0"]), layers=5).write(folder)
    monkeypatch.setattr("sys.argv", ["figures", *map(str, folders), "--format", "png"])
    command("analysis.figures.__main__", "", draws=True)
    drawn = [Path(line) for line in capsys.readouterr().out.splitlines() if "not drawn" not in line]
    one, two = ([path.name for path in drawn if path.parent == folder] for folder in folders)
    assert one == two and {"design.png", "accuracy.png", "decomposition.png"} <= set(one)
    assert {
        path.name for path in folders[0].glob("*.*") if path.suffix in (".png", ".svg", ".pdf")
    } == set(one)
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in one)


def test_tables_of_before_are_of_eight_layers():
    """Tables that do not say how many layers there are."""
    tables = study(5)
    assert replace(tables, metadata=tables.metadata | {"network": {"name": "small"}}).layers == 8
