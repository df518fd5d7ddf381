"""Draw and write all figures of a study."""

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
    """The figures that the study has networks for, and the reasons why the others are absent."""
    made = {
        name: import_module(f"analysis.figures.{name}").draw(tables)
        for name in FIGURES
        if name in only
    }
    encoding = tables.metadata["dataset"].get("encoding")  # absent for raw pixels
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
    """Draw the figures of the tables in ``folder`` into it.

    Args:
        only: names of figures; None: all.
        treatments: the treatments shown in addition to bases; None: all.

    Returns:
        The paths of the files, and the figures that were not drawn, each with the reason.

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
        raise UserError(f"--{key} {unknown[0]} is unknown{near} Available: {', '.join(known)}")
