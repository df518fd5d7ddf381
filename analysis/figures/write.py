"""Every figure of a study, drawn and written."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from analysis.figures import FIGURES, design
from analysis.page import Page
from analysis.plotting.layout import write
from analysis.plotting.style import FigureSpec
from analysis.tables import StudyResults
from transferability.errors import UserError, did_you_mean
from transferability.files import remove_leftovers


def drawings(
    tables: StudyResults, only: Sequence[str] = FIGURES
) -> tuple[list[FigureSpec], dict[str, str]]:
    """Every figure that the study has networks for, and for the others the reason why not."""
    made = {
        name: import_module(f"analysis.figures.{name}").draw(tables)
        for name in FIGURES
        if name in only
    }
    encoding = tables.metadata["dataset"].get("encoding")  # of raw pixels there is nothing to say
    label = f" Images: {encoding}." if encoding else ""
    return (
        [
            replace(d, caption=f"{d.caption}{label}")
            for d in made.values()
            if isinstance(d, FigureSpec)
        ],
        {name: why for name, why in made.items() if isinstance(why, str)},
    )


def write_figures(
    folder: Path,
    page: Page,
    only: Sequence[str] | None = None,
    treatments: Sequence[str] | None = None,
) -> tuple[list[Path], dict[str, str]]:
    """Draw every figure of the folder's tables into it, or ``only`` these, of all networks or of
    bases and these ``treatments``; paths, and the figures that were not drawn with the reason.

    Raises:
        UserError: there is no such figure, or the study has no such treatment.
    """
    tables = StudyResults.read(folder)
    if treatments is not None:
        known = [t for t in tables.results.treatment.unique() if t != "base"]
        _all_known("treatments", treatments, known)
        tables.results = tables.results[tables.results.treatment.isin(["base", *treatments])]
    _all_known("only", only or (), ["design", *FIGURES])
    made, absent = drawings(tables, only or FIGURES)
    remove_leftovers(folder)
    if page.width is None and (only is None or "design" in only):
        made = [design.draw(tables.layers), *made]
    elif only and "design" in only:
        absent["design"] = "it is as wide as a page: leave --width away"
    return [path for drawing in made for path in write(drawing, folder, page)], absent


def _all_known(key: str, given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        near = did_you_mean(unknown[0], known) or ":"
        raise UserError(f"--{key} {unknown[0]} is no choice{near} There are {', '.join(known)}")
