"""Parts of HTML pages: templates, and figures as inline SVG."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup

from analysis.plotting.layout import AS_TEXT, render
from analysis.plotting.style import FigureSpec, Panel, Style, styled

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"

ET.register_namespace("", SVG[1:-1])
ET.register_namespace("xlink", HREF[1 : HREF.index("}")])


def template(file: str, **filters: Callable) -> jinja2.Template:
    """A template of this folder; names from datasets and tables are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, **filters}
    return environment.get_template(file)


def figure(drawing: FigureSpec, colors: Iterable[str]) -> dict[str, Any]:
    name, below = drawing.name, " The table below has the values." if len(drawing.table) else ""
    labels = [
        f"{drawing.title}.{f' {panel.title}.' if panel.title else ''}{below}"
        for panel in drawing.panels
    ]
    return {
        "name": name,
        "title": drawing.title,
        "caption": drawing.caption,
        "marks": [
            (m.label, Markup(svg(_swatch(m), f"{name}-key{i}", colors)))
            for i, m in enumerate(drawing.marks)
        ],
        "panels": [
            (panel.title, Markup(svg(panel, f"{name}{i}", colors, label)))
            for i, (panel, label) in enumerate(zip(drawing.panels, labels, strict=True))
        ],
        "table": drawing.table,
    }


def _swatch(mark: Style) -> Panel:
    """A panel with the line and mark of a legend entry."""

    def draw(axes) -> None:
        axes.plot([0, 1, 2], [0, 0, 0], mark.line, color=mark.color)
        axes.plot([1], [0], mark.marker, color=mark.color, markerfacecolor=mark.face)
        axes.set_axis_off()

    return Panel("", draw, 0.5, 0.24)


def svg(panel: Panel, name: str, colors: Iterable[str], label: str = "") -> str:
    """Render one panel as inline SVG, with theme colors as CSS variables, ``data-tip`` on every
    mark, and ids that are unique in the page.
    """
    drawn = render(panel)
    tagged: list[Any] = drawn.findobj(lambda artist: hasattr(artist, "tips"))
    for i, artist in enumerate(tagged):
        artist.set_gid(f"tips{i}")
    buffer = io.StringIO()
    with styled(**AS_TEXT):
        drawn.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True
        )
    plt.close(drawn)
    root = ET.fromstring(buffer.getvalue())
    for group, artist in (
        (root.find(f".//{SVG}g[@id='tips{i}']"), artist) for i, artist in enumerate(tagged)
    ):
        marks = list(group.iter(f"{SVG}use"))  # type: ignore[union-attr]  # savefig wrote it
        for mark, tip in zip(marks, artist.tips, strict=True):
            mark.set("data-tip", tip)
    for metadata in root.findall(f"{SVG}metadata"):
        root.remove(metadata)
    _isolate_ids(root, name)
    _theme(root, colors)
    width = float(str(root.get("width")).removesuffix("pt"))
    root.attrib.pop("height")
    root.set("width", f"{width * 4 / 3:.0f}")
    if label:
        root.set("class", "chart")
        root.set("role", "img")
        root.set("tabindex", "0")
        root.set("aria-label", label)
    else:
        root.set("aria-hidden", "true")
    return ET.tostring(root, encoding="unicode")


def _isolate_ids(root: ET.Element, name: str) -> None:
    """Drop unreferenced ids; prefix the others with ``name``."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    used = {one for pair in used for one in pair if one}
    for element in root.iter():
        if (own := element.get("id")) is not None:
            element.set("id", f"{name}-{own}") if own in used else element.attrib.pop("id")
        for key, value in element.attrib.items():
            if value.startswith("#") and key == HREF:
                element.set(key, f"#{name}-{value[1:]}")
            elif key != "data-tip" and "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))


def _theme(root: ET.Element, colors: Iterable[str]) -> None:
    """Replace colors by variables of the page, which also defines the dark ones."""
    for element in root.iter():
        for light in colors:
            if light in (style := element.get("style", "")):
                element.set("style", style.replace(light, f"var({variable(light)})"))


def variable(color: str) -> str:
    return f"--c{color[1:]}"


def number(value: Any) -> str:
    """A table entry as text."""
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.4f}"
    return str(value)
