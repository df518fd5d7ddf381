"""The report of a study: one HTML page that works offline, made from the tables alone.

python -m analysis.report FOLDER    writes FOLDER/report.html, claims.csv, decomposition.csv ...
"""

from analysis.command import command, with_margin

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(command(__spec__.name, __doc__, settings=with_margin))


import datetime
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.advice import LATER
from analysis.csv_files import read_csv, write_csv
from analysis.figures import design
from analysis.figures.write import drawings
from analysis.html import figure, template, variable
from analysis.page import MARGIN
from analysis.paper import published
from analysis.plotting import captions
from analysis.plotting.style import (
    DARK,
    layer_colors,
)
from analysis.statistics.baseline import commonest, few_images
from analysis.statistics.claims import assess
from analysis.statistics.decomposition import Transition, boosts, decompose, transition
from analysis.statistics.over_splits import LEAST
from analysis.statistics.paired import class_changes
from analysis.strategies import advise, confusions, summary
from analysis.tables import StudyResults, mixed, names
from analysis.use import in_python, in_shell, settings_of
from transferability.files import remove_leftovers, write_atomic

FIRST = ("advice", "accuracy", "distance", "decomposition")  # the figures that come first


def write_report(folder: Path, margin: float = MARGIN) -> Path:
    """Write ``folder``/report.html, and its computed tables as CSV files, from the tables in
    ``folder``.

    Args:
        margin: the accuracy difference below which one counts as good as the other.

    Raises:
        UserError: there are no tables.
    """
    tables = StudyResults.read(folder)
    remove_leftovers(folder)
    networks = _comparable(tables)
    claims = assess(networks, tables.layers, margin)
    write_csv(folder / "claims.csv", claims)
    write_csv(folder / "decomposition.csv", decompose(networks))
    write_csv(folder / "boosts.csv", boosts(networks, tables.layers))
    if advice := advise(tables, margin):
        ways = pd.concat([a.strategies.assign(images_per_class=a.images_per_class) for a in advice])
        later = () if "choose_by" in tables.metadata else LATER
        write_csv(folder / "advice.csv", ways.drop(columns=list(later)))
    path = folder / "report.html"
    now = datetime.datetime.now().astimezone()
    written = f"{now:%Y-%m-%d %H:%M %Z}" if unfinished(tables) else None
    write_atomic(path, page(tables, written, margin, claims))
    return path


def unfinished(tables: StudyResults) -> bool:
    """Whether the study has missing networks that may still be trained."""
    return not tables.is_paper and bool((tables.results.state == "missing").any())


def page(
    tables: StudyResults,
    written: str | None = None,
    margin: float = MARGIN,
    assessed: pd.DataFrame | None = None,
) -> str:
    """The complete page; names from datasets and tables are escaped.

    Args:
        written: the time of writing, for an unfinished study, whose page reloads itself.
        margin: as in :func:`write_report`.
        assessed: the claims, if they are assessed already.
    """
    made, absent = drawings(tables)
    colors = DARK | layer_colors(tables.layers - 1)
    networks, is_paper = _comparable(tables), tables.is_paper
    if assessed is None:
        assessed = assess(networks, tables.layers, margin)
    claims, advice = _with_the_papers(assessed, tables, margin), advise(tables, margin)
    missing = tables.results[tables.results.state == "missing"]
    return template(
        "report.html.j2", signed=_signed, p=_p, python=in_python, shell=in_shell
    ).render(
        about=tables.metadata,
        written=written,
        is_paper=is_paper,
        colors={variable(light): (light, dark) for light, dark in colors.items()},
        design=figure(design.draw(tables.layers), colors),
        figures=[figure(drawing, colors) for drawing in made if drawing.name in FIRST],
        others=[figure(drawing, colors) for drawing in made if drawing.name not in FIRST],
        absent=absent,
        claims=claims,
        covers={"model": captions.MODEL_COVERS, "splits": captions.SPLITS_COVER, "least": LEAST},
        mixed=mixed(tables.networks),
        tested=not advice or any(claim["verdict"] != "not tested" for claim in claims),
        verdicts=Counter(claim["verdict"] for claim in claims),
        transition=transition(networks),
        their_transition=None if is_paper else _of_the_paper(margin)[1],
        answers=_answers,
        measure=tables.measure,
        boosts=boosts(networks, tables.layers),
        decomposition=decompose(networks),
        changes=class_changes(tables),
        advice=advice[-1] if advice else None,
        store=tables.metadata.get("use", {}).get("store", "runs"),
        paste=settings_of(tables.metadata, advice[-1]) if advice else None,
        sizes=summary(advice) if len(advice) > 1 else None,
        confused=confusions(tables, advice[-1]) if advice else None,
        counts=_counts(tables),
        commonest=commonest(tables),
        few=None if advice or is_paper else few_images(tables),
        missing=names(missing, tables.results),
        results=tables.results,
    )


def _comparable(tables: StudyResults) -> pd.DataFrame:
    """The networks, or none if their means would mix what the study varies."""
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


def _with_the_papers(
    assessed: pd.DataFrame, tables: StudyResults, margin: float
) -> list[dict[str, Any]]:
    """The claims on this study, each with its assessment on the paper's published numbers."""
    ours = assessed.to_dict("records")
    if not tables.is_paper:
        for mine, theirs in zip(ours, _of_the_paper(margin)[0], strict=True):
            mine["paper"] = theirs
    return ours


@cache
def _of_the_paper(margin: float) -> tuple[list[dict[str, Any]], Transition | None]:
    """The claims and the transition to specific features in the paper's published numbers."""
    paper = published()
    claims = assess(paper.networks, paper.layers, margin).to_dict("records")
    return claims, transition(paper.networks)


def _answers(found: Transition, measure: str) -> dict[str, str]:
    """The paper's three questions, answered in numbers."""
    before, after, share = found.largest_step
    splits = [
        f" (over {found.splits} splits: {_interval(one, digits)})"
        for one, digits in zip(found.over_splits, (3, 1, 1), strict=False)
    ]
    total, half, spread = splits or ("", "", "")
    return {
        "How much?": f"{_interval(found.total, 3)}{total} of {measure} accuracy is lost at "
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


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # + 0.0: no -0.000


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


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
            scope = f" (for {claim['holds for']})" if tested else ""
            if tested and claim["corrected"] != claim["verdict"]:
                scope += f" ({claim['corrected']} when corrected for {claims.p.count()} claims)"
            print(f"  {claim['verdict']:<12}  {claim['statement']}{scope}")
    print(f"report: {path.resolve()}")
