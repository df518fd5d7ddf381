"""Layout of figures on a page or as single panels, and their files."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection, PathCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text

from analysis.page import FORMATS, Page
from analysis.plotting.style import RC, FigureSpec, Panel, Style, styled
from transferability.files import replacing

AS_TEXT = {"svg.fonttype": "none"}  # for inline SVG


class SteadyLayout(ConstrainedLayoutEngine):
    """Matplotlib's constrained layout, rounded to nine digits: rounding errors of its solver vary
    between drawings, and the identifiers in an SVG are hashes of all digits.
    """

    def execute(self, fig: Figure) -> Any:
        grids = super().execute(fig)
        for part in fig.subfigs:
            part.bbox_relative.set_points(part.bbox_relative.get_points().round(9))
        for axes in fig.axes:
            bounds = axes.get_position(original=True).bounds
            left, bottom, width, height = (round(value, 9) for value in bounds)
            axes.set_position((left, bottom, width, height), which="original")
            axes.set_in_layout(True)  # set_position resets it
        return grids


def compose(drawing: FigureSpec) -> Figure:
    """Lay out the title, all panels, the legend and the caption on one page."""
    columns = min(drawing.columns, len(drawing.panels))
    rows = ceil(len(drawing.panels) / columns)
    first = drawing.panels[0]
    width, height = first.width * columns + 0.6, first.height * rows + 1.0
    characters = int(width * 13.5)  # at 9 points
    caption = textwrap.wrap(drawing.caption, characters)
    below = (len(caption) + 1) * 9 * 1.2 / 72  # inches
    with styled():
        page = plt.figure(figsize=(width, height + below), layout=SteadyLayout())
        figure, text = np.asarray(page.subfigures(2, 1, height_ratios=(height, below)))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, drawing.panels, strict=False):
            panel.draw(axes)
            axes.set_title(panel.title)
        for axes in grid.flat[len(drawing.panels) :]:
            axes.set_axis_off()
        title = textwrap.fill(drawing.title, int(width * 11))
        figure.suptitle(title, fontsize=10, weight="bold", x=0.02, ha="left")
        text.text(0.02, 1, "\n".join(caption), fontsize=9, va="top")
        if drawing.marks:
            _legend(figure, [_handle(mark) for mark in drawing.marks])
    return page


def _legend(figure: Figure | SubFigure, handles: list[plt.Line2D], least: int = 2) -> None:
    """Draw the legend below the panels, in as many columns as fit."""
    inches = figure.bbox.width / figure.dpi
    for columns in range(min(len(handles), max(least, int(inches / 3))), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width < figure.bbox.width:
            return
        legend.remove()


def write(drawing: FigureSpec, folder: Path, page: Page) -> list[Path]:
    """Write the files of a drawing to ``folder``."""
    stem = folder / drawing.name
    if page.width is None:
        return save(compose(drawing), stem, page.formats)
    several = len(drawing.panels) > 1
    return [
        path
        for number, panel in enumerate(drawing.panels, 1)
        for path in save(
            _for_paper(panel, drawing.marks if panel.marks is None else panel.marks, page),
            stem.with_name(f"{stem.name}-{number}") if several else stem,
            page.formats,
        )
    ]


def _for_paper(panel: Panel, marks: list[Style], page: Page) -> Figure:
    """Lay out a panel at the size it was made for, then scale it so that text has the size of
    ``page``; lines and marks are scaled by the same factor.
    """
    scale = page.font / RC["font.size"]
    width = page.width / scale
    with styled():
        height = width * panel.height / panel.width
        figure, axes = plt.subplots(figsize=(width, height), layout=SteadyLayout())
        panel.draw(axes)
        if marks:
            characters = int(width * 11.5)  # at 9 points, next to the mark
            fitting = [replace(m, label=textwrap.fill(m.label, characters)) for m in marks]
            _legend(figure, [_handle(mark) for mark in fitting], least=1)
            legend = figure.legends[0].get_window_extent().height
            figure.set_figheight(height + legend / figure.dpi)
        _wrap_labels(axes)
    figure.set_size_inches(*(figure.get_size_inches() * scale))
    for artist in figure.findobj():
        if isinstance(artist, Text):
            artist.set_fontsize(float(artist.get_fontsize()) * scale)
        elif isinstance(artist, Line2D):
            artist.set_linewidth(artist.get_linewidth() * scale)
            artist.set_markersize(artist.get_markersize() * scale)
        elif isinstance(artist, Collection):
            artist.set_linewidth(np.asarray(artist.get_linewidth()) * scale)
            if isinstance(artist, PathCollection):
                artist.set_sizes(artist.get_sizes() * scale**2)
    axes.tick_params(which="both", labelsize=page.font, pad=3 * scale)  # also for later ticks
    return figure


def _wrap_labels(axes: Axes) -> None:
    """Wrap labels that are longer than their axis."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # none is a subfigure
    for axis, room in ((axes.xaxis, axes.bbox.width), (axes.yaxis, axes.bbox.height)):
        box, text = axis.label.get_window_extent(), axis.label.get_text()
        if (length := max(box.width, box.height)) > room:
            axis.label.set_text(textwrap.fill(text, int(len(text) * room / length)))


def render(panel: Panel) -> Figure:
    """Draw a single panel without its title, which the page has, and with text kept as text."""
    with styled(**AS_TEXT):
        figure, axes = plt.subplots(figsize=(panel.width, panel.height), layout=SteadyLayout())
        panel.draw(axes)
    return figure


def save(figure: Figure, stem: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write ``stem``.pdf ..., each atomically and without dates in its metadata."""
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    paths = [stem.with_suffix(f".{kind}") for kind in formats]
    # the salt of SVG identifiers and the fonts are read when a file is written
    with styled():
        for path, kind in zip(paths, formats, strict=True):
            with replacing(path) as temporary:
                figure.savefig(temporary, format=kind, metadata=undated[kind])
    plt.close(figure)
    return paths


def _handle(mark: Style) -> plt.Line2D:
    return plt.Line2D(
        [],
        [],
        color=mark.color,
        marker=mark.marker,
        ls=mark.line,
        label=mark.label,
        markerfacecolor=mark.face,
    )
