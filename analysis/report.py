"""The report of a study: one HTML page that needs no network, from the tables alone.

python -m analysis.report figures/demo       writes FOLDER/report.html, claims.csv,
                                                           decomposition.csv ...
"""

from analysis.command import command, with_margin

if __name__ == "__main__":  # above the imports, which --help does without
    raise SystemExit(command(__spec__.name, __doc__, settings=with_margin))


import datetime
import io
import re
import shlex
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup

from analysis.advice import LATER, advise, confusions, summary
from analysis.figures import design
from analysis.figures.write import drawings
from analysis.page import MARGIN
from analysis.paper import published
from analysis.plotting import captions
from analysis.plotting.style import (
    AS_TEXT,
    DARK,
    FigureSpec,
    Panel,
    Style,
    layer_colours,
    render,
    styled,
)
from analysis.statistics.baseline import commonest, few_images
from analysis.statistics.claims import assess
from analysis.statistics.decomposition import Transition, boosts, decompose, transition
from analysis.statistics.over_splits import LEAST
from analysis.statistics.paired import class_changes
from analysis.tables import StudyResults, mixed, names, read_csv, write_csv
from analysis.use import settings_of
from transferability.files import remove_leftovers, write_atomic

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
FIRST = ("advice", "accuracy", "distance", "decomposition")  # the figures that come first

ET.register_namespace("", SVG[1:-1])
ET.register_namespace("xlink", HREF[1 : HREF.index("}")])


def write_report(folder: Path, margin: float = MARGIN) -> Path:
    """Write ``folder``/report.html, and what it computes as CSV files beside it,
    from the tables in ``folder``.

    Args:
        margin: a difference of accuracy up to which one counts as good as the other.

    Raises:
        UserError: there are no tables.
    """
    tables = StudyResults.read(folder)
    remove_leftovers(folder)
    networks = _comparable(tables)
    write_csv(folder / "claims.csv", assess(networks, tables.layers, margin))
    write_csv(folder / "decomposition.csv", decompose(networks))
    write_csv(folder / "boosts.csv", boosts(networks, tables.layers))
    if advice := advise(tables, margin):
        ways = pd.concat([a.strategies.assign(images_per_class=a.images_per_class) for a in advice])
        later = () if "choose_by" in tables.metadata else LATER
        write_csv(folder / "advice.csv", ways.drop(columns=list(later)))
    path = folder / "report.html"
    now = datetime.datetime.now().astimezone()
    written = f"{now:%Y-%m-%d %H:%M %Z}" if unfinished(tables) else None
    write_atomic(path, page(tables, written, margin))
    return path


def unfinished(tables: StudyResults) -> bool:
    """Whether networks of the study are missing that may still come."""
    return not tables.is_paper and bool((tables.results.state == "missing").any())


def page(tables: StudyResults, written: str | None = None, margin: float = MARGIN) -> str:
    """The whole page; every name that comes from a dataset or a table is escaped.

    Args:
        written: when, on the page of an unfinished study: it loads itself again in the browser.
        margin: as in :func:`write_report`.
    """
    made, absent = drawings(tables)
    colours = DARK | layer_colours(tables.layers - 1)
    networks, is_paper = _comparable(tables), tables.is_paper
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": _number, "signed": _signed, "p": _p}
    claims, advice = _claims(networks, tables, margin), advise(tables, margin)
    missing = tables.results[tables.results.state == "missing"]
    return environment.get_template("report.html.j2").render(
        about=tables.metadata,
        written=written,
        is_paper=is_paper,
        colours={_variable(light): (light, dark) for light, dark in colours.items()},
        design=_figure(design.draw(tables.layers), colours),
        figures=[_figure(drawing, colours) for drawing in made if drawing.name in FIRST],
        others=[_figure(drawing, colours) for drawing in made if drawing.name not in FIRST],
        absent=absent,
        claims=claims,
        covers={"model": captions.MODEL_COVERS, "splits": captions.SPLITS_COVER, "least": LEAST},
        mixed=mixed(tables.networks),
        tested=not advice or any(claim["verdict"] != "not tested" for claim in claims),
        verdicts=Counter(claim["verdict"] for claim in claims),
        transition=transition(networks),
        their_transition=None if is_paper else _of_the_paper(margin)[1],
        answers=_answers,
        boosts=boosts(networks, tables.layers),
        decomposition=decompose(networks),
        changes=class_changes(tables),
        advice=advice[-1] if advice else None,
        store=tables.metadata.get("use", {}).get("store", "runs"),
        paste=shlex.join(settings_of(tables.metadata, advice[-1])) if advice else None,
        sizes=summary(advice) if len(advice) > 1 else None,
        confused=confusions(tables, advice[-1]) if advice else None,
        counts=_counts(tables),
        commonest=commonest(tables),
        few=None if advice or is_paper else few_images(tables),
        missing=names(missing),
        results=tables.results,
    )


def _comparable(tables: StudyResults) -> pd.DataFrame:
    """The networks, or none where means over them would mix what the study varies."""
    return tables.networks.iloc[:0] if mixed(tables.networks) else tables.networks


def _counts(tables: StudyResults) -> dict[str, Any]:
    results = tables.results
    done = results[results.state == "done"]
    return {
        "networks": len(results),
        "done": len(done),
        "missing": len(results) - len(done),
        "images": int(done.images.sum()),
        "hours": done.seconds.sum() / 3600,
        "splits": sorted(set(results.split)),
        "seeds": sorted(set(results.seed)),
        "treatments": list(dict.fromkeys(tables.networks.treatment)),
    }


def _claims(networks: pd.DataFrame, tables: StudyResults, margin: float) -> list[dict[str, Any]]:
    """The claims on this study, with what the published numbers say of each."""
    ours = assess(networks, tables.layers, margin).to_dict("records")
    if not tables.is_paper:
        for mine, theirs in zip(ours, _of_the_paper(margin)[0], strict=True):
            mine["paper"] = theirs
    return ours


@cache
def _of_the_paper(margin: float) -> tuple[list[dict[str, Any]], Transition | None]:
    """What the published numbers say of the claims, and where specificity arises in them."""
    paper = published()
    claims = assess(paper.networks, paper.layers, margin).to_dict("records")
    return claims, transition(paper.networks)


def _answers(found: Transition) -> dict[str, str]:
    """The paper's three questions, answered in numbers."""
    before, after, share = found.largest_step
    splits = [
        f" (over {found.splits} splits: {_interval(one, digits)})"
        for one, digits in zip(found.over_splits, (3, 1, 1), strict=False)
    ]
    total, half, spread = splits or ("", "", "")
    return {
        "How much?": f"{_interval(found.total, 3)}{total} of top-1 accuracy is lost at "
        f"n = {found.layers[-1]} because the frozen layers are another task's "
        "(BnB minus AnB).",
        "Suddenly, or spread over layers?": f"The loss is spread over {_interval(found.spread, 1)}"
        f"{spread} of the {len(found.layers)} steps of n (1: at one "
        f"step; {len(found.layers)}: evenly). The largest "
        f"part, {share:.0%}, comes between n = {before} "
        f"and n = {after}.",
        "Where?": f"Half of it is lost by n = {_interval(found.half_layer, 1)}{half} "
        "(interpolated).",
    }


def _interval(estimate: tuple[float, float, float], digits: int) -> str:
    value, low, high = estimate
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _figure(drawing: FigureSpec, colours: Iterable[str]) -> dict[str, Any]:
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
            (m.label, Markup(_svg(_swatch(m), f"{name}-key{i}", colours)))
            for i, m in enumerate(drawing.marks)
        ],
        "panels": [
            (panel.title, Markup(_svg(panel, f"{name}{i}", colours, label)))
            for i, (panel, label) in enumerate(zip(drawing.panels, labels, strict=True))
        ],
        "table": drawing.table,
    }


def _swatch(mark: Style) -> Panel:
    """A line and mark as in the legend."""

    def draw(axes) -> None:
        axes.plot([0, 1, 2], [0, 0, 0], mark.line, color=mark.colour)
        axes.plot([1], [0], mark.marker, color=mark.colour, markerfacecolor=mark.face)
        axes.set_axis_off()

    return Panel("", draw, 0.5, 0.24)


def _svg(panel: Panel, name: str, colours: Iterable[str], label: str = "") -> str:
    """One panel as inline SVG: theme colours as CSS variables, ``data-tip`` on every mark,
    ids unique in the page.
    """
    figure = render(panel)
    tagged = figure.findobj(lambda artist: hasattr(artist, "tips"))
    for i, artist in enumerate(tagged):
        artist.set_gid(f"tips{i}")
    buffer = io.StringIO()
    with styled(**AS_TEXT):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True
        )
    plt.close(figure)
    root = ET.fromstring(buffer.getvalue())
    for group, artist in (
        (root.find(f".//{SVG}g[@id='tips{i}']"), artist) for i, artist in enumerate(tagged)
    ):
        marks = list(group.iter(f"{SVG}use"))
        for mark, tip in zip(marks, artist.tips, strict=True):
            mark.set("data-tip", tip)
    for metadata in root.findall(f"{SVG}metadata"):
        root.remove(metadata)
    _isolate_ids(root, name)
    _theme(root, colours)
    width = float(root.get("width").removesuffix("pt"))
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
    """Drop ids that nothing refers to; put ``name`` before the others."""
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


def _theme(root: ET.Element, colours: Iterable[str]) -> None:
    """Colours become variables of the page, which knows the dark ones, too."""
    for element in root.iter():
        for light in colours:
            if light in (style := element.get("style", "")):
                element.set("style", style.replace(light, f"var({_variable(light)})"))


def _variable(colour: str) -> str:
    return f"--c{colour[1:]}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # + 0.0: no -0.000


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: Any) -> str:
    """A table's cell as text."""
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.4f}"
    return str(value)


def main(folder: Path, margin: float = MARGIN) -> None:
    path = write_report(folder, margin)
    tables = StudyResults.read(folder)
    claims, advice = read_csv(folder / "claims.csv"), advise(tables, margin)
    if not (advice or tables.is_paper) and (few := few_images(tables)):
        print(few)
    for one in advice[-1:]:
        print("\n".join(one.sentences))
    if not advice or (claims.verdict != "not tested").any():
        print("The paper's claims on this study (claims.csv has differences and intervals):")
        for claim in claims.to_dict("records"):
            tested = claim["verdict"] != "not tested"
            scope = f" (of {claim['holds for']})" if tested else ""
            if tested and claim["corrected"] != claim["verdict"]:
                scope += f" ({claim['corrected']} when corrected for {claims.p.count()} claims)"
            print(f"  {claim['verdict']:<12}  {claim['statement']}{scope}")
    print(f"report: {path.resolve()}")
