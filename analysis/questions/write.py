"""The question that a study asks, drawn and written."""

from importlib import import_module
from pathlib import Path

from analysis.csv_files import write_csv
from analysis.figures import activity
from analysis.page import Page
from analysis.plotting.layout import write
from analysis.plotting.style import FigureSpec
from analysis.questions import QUESTIONS
from analysis.tables import StudyResults
from transferability.errors import UserError
from transferability.files import remove_leftovers


def question(tables: StudyResults) -> FigureSpec:
    """The figure of what the study varies.

    Raises:
        UserError: it varies nothing, or nothing of it is finished.
    """
    networks = tables.networks[tables.networks.accuracy.notna()]
    for name in QUESTIONS:
        one = import_module(f"analysis.questions.{name}")
        if one.asked(networks):
            return one.draw(tables)
    raise UserError(
        "nothing to compare: the finished networks with a base differ neither in network, recipe, "
        "images per class, split or seed, nor are there preserved layers (A3B~1); strategies for "
        "a pretrained base are compared by the figure `advice` (python -m analysis.figures)"
    )


def write_question(folder: Path, page: Page) -> tuple[list[FigureSpec], list[Path]]:
    """Draw the folder's question, and with random filters what becomes of them,
    and write the question's table.
    """
    tables = StudyResults.read(folder)
    asked, inside = question(tables), activity.draw(tables)
    drawn = [asked, inside] if isinstance(inside, FigureSpec) else [asked]
    remove_leftovers(folder)
    write_csv(folder / f"{asked.name}.csv", asked.table)
    paths = []
    for drawing in drawn:
        paths += write(drawing, folder, page)
    return drawn, paths
