"""Figures at the size of a paper's column."""

import re
from itertools import product

import pytest
from matplotlib import pyplot
from matplotlib.text import Text
from PIL import Image

from analysis.command import command
from analysis.figures import __main__, accuracy
from analysis.figures.write import write_figures
from analysis.page import Page
from analysis.plotting.layout import _for_paper
from tests.made_up import networks, tables_of
from transferability.errors import UserError

COLUMN = Page(("png", "pdf"), 3.3, 8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tables_of(*networks(8)).write(folder)
    return folder


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_a_panel_is_as_wide_as_the_column_and_its_text_as_large_as_the_papers(folder):
    paths, absent = write_figures(folder, COLUMN, ["accuracy"])
    kinds = product((1, 2), COLUMN.formats)
    assert [p.name for p in paths] == [f"accuracy-{i}.{kind}" for i, kind in kinds]
    assert not absent and Image.open(paths[0]).width == round(3.3 * 150)
    page = paths[1].read_bytes()
    (width,) = re.findall(rb"/MediaBox \[ ?0 0 ([0-9.]+)", page)
    assert float(width) == pytest.approx(3.3 * 72, abs=0.01)
    assert b"/Type3" not in page and b"/CIDFontType2" in page  # TrueType, as venues want


@pytest.mark.parametrize("font", [6, 8, 11])
def test_nothing_is_cut_off_and_no_text_is_larger_than_asked(font):
    drawing = accuracy.draw(tables_of(*networks(8)))
    for panel in drawing.panels:
        figure = _for_paper(panel, drawing.marks, Page(("png",), 3.3, font))
        figure.draw_without_rendering()
        axes, whole = figure.axes[0], figure.bbox
        texts = [
            text
            for text in [*figure.findobj(Text), *axes.get_xticklabels(), *axes.get_yticklabels()]
            if text.get_text() and text.get_visible()
        ]
        assert max(text.get_fontsize() for text in texts) == pytest.approx(font)
        for text in (axes.xaxis.label, axes.yaxis.label, *figure.legends[0].get_texts()):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0, text
            assert box.x1 <= whole.width and box.y1 <= whole.height, text


def test_chosen_treatments_stand_beside_the_bases(folder, tmp_path):
    chosen, other = tmp_path / "chosen", tmp_path / "other"
    tables_of(*networks(8)).write(chosen)
    rows = [row for row in networks(8) if row["treatment"] in ("base", "AnB")]
    tables_of(*rows).write(other)
    paths, _ = write_figures(chosen, Page(("svg",)), ["design", "accuracy"], ["AnB"])
    write_figures(other, Page(("svg",)), ["accuracy"])
    assert {p.stem for p in paths} == {"design", "accuracy"}
    ours, theirs = ((f / "accuracy.svg").read_text() for f in (chosen, other))
    assert ours == theirs
    for key, settings in (("only", (["acuracy"], None)), ("treatments", (None, ["CnB"]))):
        with pytest.raises(UserError, match=f"--{key} .* is no choice.* There are "):
            write_figures(folder, Page(("png",)), *settings)
    paths, absent = write_figures(folder, COLUMN, ["design", "volume"])
    assert paths == [] and absent.keys() == {"design", "volume"}


@pytest.mark.parametrize("value", ["-3", "0", "wide", "nan"])
def test_an_impossible_size_is_one_line(value, folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["figures", str(folder), "--width", value])
    with pytest.raises(SystemExit):
        command("analysis.figures.__main__", "", True, __main__.settings)
    assert "a number above 0 and below 100" in capsys.readouterr().err
