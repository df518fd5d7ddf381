"""Figures and report of a study: what is drawn of which networks, equal bytes for equal tables,
and no text on another.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from analysis.command import command
from analysis.figures import accuracy, distance
from analysis.figures.__main__ import settings as figure_settings
from analysis.figures.write import drawings
from analysis.page import FORMATS
from analysis.paper import published
from analysis.plotting.layout import compose, render, save
from analysis.statistics.decomposition import decompose
from analysis.tables import StudyResults
from tests.made_up import row, tables_of
from tests.miniature import ROOT, captured

SMALL, USUAL, WHOLE = [1], [1, 4, 7], [1, 2, 3, 4, 5, 6, 7]  # n, in studies of any size
ABSENT = ["advice", "dissimilar", "volume", "predictors"]
DRAWN = [
    "design",
    "accuracy",
    "distance",
    "decomposition",
    "filters",
    "similarity",
    "activity",
    "curves",
]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_study_has_these_figures(miniature):
    made, absent = drawings(StudyResults.read(miniature.tables))
    assert [drawing.name for drawing in made] == DRAWN[1:] and [*absent] == ABSENT


SVG = ["analysis.figures", "--format", "svg"]
PDF = ["analysis.figures", "--format", "pdf", "--only", "design", "accuracy"]
REPORT = ["analysis.report"]


def written(tables: StudyResults, folder: Path, *commands: list[str]) -> list[list[str]]:
    """The lines of each command that draws the figures or writes the report of ``tables``."""
    tables.write(folder)
    said = []
    for module, *options in commands:
        if module == "analysis.figures":
            run = partial(command, "analysis.figures.__main__", "", True, figure_settings)
        else:
            run = partial(command, module, "")
        status, out, err = captured(run, str(folder), *options)
        assert status == 0, err
        said.append(out.splitlines())
    return said


COMMANDS = """
import json, runpy, sys
folder, commands = sys.argv[1], json.loads(sys.argv[2])
for module, *options in commands:
    sys.argv = [module, folder, *options]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
"""


def write_elsewhere(folder: Path, *commands: list[str]) -> None:
    """Figures and report, in a process of another hash seed."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    subprocess.run(
        [sys.executable, "-c", COMMANDS, folder, json.dumps(commands)],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": seed},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_figures_and_report_are_written_and_equal_for_equal_tables(miniature, tmp_path, whole):
    """Of two figures of its bases and of AnB at the highest n; or all figures, the second time in a
    process in which sets of strings have another order. The bytes of PNG ``make results`` compares.
    """
    tables = StudyResults.read(miniature.tables)
    if whole:
        tables.results = tables.results[tables.results.n.isin([0, *USUAL])]
    else:
        of = tables.results[tables.results.split == "random-0"]
        of = of[(of.treatment == "base") | ((of.treatment == "AnB") & (of.n == 7))]
        tables = StudyResults(tables.metadata, of)
    commands = [SVG, REPORT] + [PDF] * whole
    figures, said, *more = written(tables, tmp_path / "one", *commands)
    drawn = [Path(line) for line in figures if "not drawn" not in line]
    assert [p.name for p in drawn] == [f"{f}.svg" for f in (DRAWN if whole else DRAWN[:2])]
    absent = [line.split(":")[0] for line in figures if "not drawn" in line]
    assert absent == ABSENT or not whole
    drawn += [Path(line) for lines in more for line in lines]
    assert [p.name for p in drawn if p.suffix == ".pdf"] == ["design.pdf", "accuracy.pdf"] * whole
    assert said[-1] == f"report: {tmp_path.resolve()}/one/report.html"
    assert said[0].startswith("So few images cannot answer: with 20 validation images")
    of_claims = [line for line in said if line.startswith("  ")]
    assert len(pd.read_csv(tmp_path / "one/claims.csv")) == len(of_claims) == len(said) - 3
    again = StudyResults.read(tmp_path / "one")
    if whole:
        again.write(tmp_path / "two")
        write_elsewhere(tmp_path / "two", *commands)
    else:
        written(again, tmp_path / "two", *commands)
    for name in [*(p.name for p in drawn), "report.html"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), (
            name
        )


def test_the_marks_of_a_figure_are_the_rows_of_the_table(miniature):
    tables = StudyResults.read(miniature.tables)
    axes = render(accuracy.draw(tables).panels[0]).axes[0]
    drawn = sorted(y for c in axes.collections for _, y in c.get_offsets())
    results = tables.results
    wanted = results[(results.split_kind == "random") & (results.treatment != "RnB")].top1
    assert drawn == pytest.approx(sorted(wanted))
    tips = [tip for c in axes.collections for tip in c.tips]
    assert len(tips) == len(drawn) and f"baseA, random-0, seed 0: {drawn_base(results):.3f}" in tips


def drawn_base(results):
    return results[(results.cell == "baseA") & (results.split == "random-0")].top1.item()


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
    assert width < 0.02, (
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
    assert "10 images per class" in drawing.title
    right = render(distance.draw(tables).panels[-1]).axes[0]
    drawn = sorted(y for c in right.collections for _, y in c.get_offsets())
    assert drawn == pytest.approx([-0.3, 0.1])


def test_what_a_study_varies_is_not_averaged_away():
    """Networks from 10 and from 100 images per class have no common mean;
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


def test_axes_name_the_statistic_that_is_drawn(miniature):
    """A study whose best are chosen by balanced accuracy draws that; axes said top-1."""
    tables = StudyResults.read(miniature.tables)
    plain = _labels(tables)
    tables.metadata |= {"statistic": "top1_balanced", "statistic_label": "balanced accuracy"}
    tables.results["top1_balanced"] = tables.results.top1
    renamed = {label.replace("Top-1", "Balanced").replace("top-1", "balanced") for label in plain}
    assert _labels(tables) == renamed != plain


def test_the_table_of_bases_on_few_images_has_the_statistic_that_is_drawn():
    rows = [row("baseB", "base", 0, 0.5, images_per_class=images) for images in (10, 20)]
    tables = tables_of(*rows)
    tables.metadata["statistic"] = "top1_balanced"
    tables.results["top1_balanced"] = [0.3, 0.4]
    (table,) = [one.table for one in drawings(tables)[0] if one.name == "volume"]
    assert table.top1_balanced.tolist() == [0.3, 0.4]


def _labels(tables: StudyResults) -> set[str]:
    made = [compose(one) for one in drawings(tables)[0] if one.name not in ("filters", "curves")]
    return {axes.get_ylabel() for figure in made for axes in figure.axes}


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


def test_a_caption_refers_to_lines_that_are_drawn():
    rows = [row("baseB", "base", 0, 0.5), row("A3B", "AnB", 3, 0.4)]
    assert (
        "How the paper reads the lines: 1 base; 4 AnB." in accuracy.draw(tables_of(*rows)).caption
    )
    rows.append(row("B3B", "BnB", 3, 0.5))
    said = (
        "1 base; 2 BnB: below 1, co-adaptation is lost; 4 AnB: below 2, features are specific to A."
    )
    assert said in accuracy.draw(tables_of(*rows)).caption


@pytest.mark.parametrize("name", ["a $\\frac$ b", "100% $^$", "cost_$x_$", "<b>&amp;</b>"])
def test_names_are_drawn_as_they_are(name, tmp_path):
    odd = tables_of(
        row("baseB", "base", 0, 0.5, split=name, kind="user"),
        row("A3B", "AnB", 3, 0.25, split=name),
    )
    odd.metadata["dataset"]["name"] = name
    figure = compose(accuracy.draw(odd))
    assert name in figure.subfigs[0].get_suptitle()
    save(figure, tmp_path / "figure", FORMATS if "frac" in name else ["svg"])


def visible_texts(figure) -> list:
    """Every text that is drawn: titles, labels, legends,
    and the labels of ticks within the axes.
    """
    drawn, below = figure.subfigs
    texts = [drawn._suptitle, *(t for legend in drawn.legends for t in legend.get_texts())]
    texts += below.texts
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
    figure.draw_without_rendering()
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


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("miniature", SMALL),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("miniature", WHOLE),
                ("miniature", USUAL),
                ("paper", SMALL),
                ("paper", USUAL),
                ("paper", WHOLE),
            )
        ),
    ],
    ids=str,
)
def test_no_text_overlaps_at_any_size_of_study(miniature, name, layers):
    tables = published() if name == "paper" else StudyResults.read(miniature.tables)
    own = StudyResults(
        tables.metadata,
        tables.results[tables.results.n.isin([0, *layers])],
        tables.curves,
        tables.filters,
        tables.similarity,
        tables.activity,
    )
    for drawing in drawings(own)[0]:
        figure = compose(drawing)
        assert not overlapping(figure), drawing.name
        plt.close(figure)
